"""Events of a cohort's medical record as one scan. The record is a table of events, MEDS, or OMOP.

Every form gives the same columns: `patient` (the cohort's id as text, or a person's number), `time` and `end` (microseconds, NULL
if missing), `code` as ``vocabulary/code``, `value`, `table` (source table of the row), `origin` (table of the hospital's system
from which a diagnosis comes), `visit` (number of its visit). A `value` that is present but not a number is NaN. `written` and
`written_end` are the text of a time and an end that are present but not read, else NULL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
import polars.selectors as cs
from polars.selectors import Selector

from fmaudit_core.cohort.inspect_release.demographics import codes_of_people, people_of_omop
from fmaudit_core.cohort.inspect_release.release_files import VOLUME_FOLDERS
from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.config import InspectCohort, TableCohort
from fmaudit_core.ehr.errors import EhrError
from fmaudit_core.storage.digests import digest, files_digest
from fmaudit_core.tabular.meds import find_meds, open_meds
from fmaudit_core.tabular.notes import Notes
from fmaudit_core.tabular.omop import OmopTables, find_omop, time_columns
from fmaudit_core.tabular.scan import Column, clock, decimal_comma, id_text, moment, scan_table, whole_number
from fmaudit_core.tabular.words import ENDS, MISSING_WORDS

_EVENT: Final = (
    Column("patient", ("patient_id", "subject_id", "person_id")),
    Column("time", ("time", "start", "timestamp")),
    Column("code", ("code",)),
)
_VALUE: Final = Column("value", ("value", "numeric_value"), needed=False)
_END: Final = Column("end", ("end", "end_time"), needed=False)
_TABLE: Final = Column("table", ("table",), needed=False)
_ORIGIN: Final = Column("origin", ("clarity_table", "load_table_id"), needed=False)
_VISIT: Final = Column("visit", ("visit_id", "visit_occurrence_id"), needed=False)
_NOTE: Final = Column("note", ("note_id",), needed=False)
_MORE: Final = (_VALUE, _END, _TABLE, _ORIGIN, _VISIT, _NOTE)
_COLUMNS: Final = ("patient", "time", "end", "code", "value", "table", "origin", "visit", "written", "written_end")
#: text of a time that is not recorded; ``\\N`` is MySQL's NULL
_NO_TIME_WORDS: Final = tuple(sorted(MISSING_WORDS))
#: text of a value that is not recorded; other words may be results, such as "not detected"
_NO_VALUE_WORDS: Final = ("", "na", "n/a", "nan", "none", "null", "\\n", "<na>", "#n/a", "-", ".")
#: missing ids and codes, as exports write them; NA is the code of sodium
_NOT_GIVEN: Final = ("", "nan", "NaN", "None", "null", "NULL", "<NA>", "#N/A")
#: OMOP tables with events -> prefix of their columns
_OMOP_EVENTS: Final[Mapping[str, str]] = {
    "visit_occurrence": "visit",
    "condition_occurrence": "condition",
    "drug_exposure": "drug",
    "procedure_occurrence": "procedure",
    "measurement": "measurement",
    "observation": "observation",
}


@dataclass(frozen=True)
class Record:
    """Location of the medical record of a cohort.

    Parameters
    ----------
    form : "events", "meds" or "omop"
    path : Path
        The file of events, the MEDS folder or archive, or the folder of OMOP tables.
    """

    form: str
    path: Path

    def fingerprint(self) -> str:
        """Return a digest of the names, sizes and times of the files, without reading them."""
        if not self.path.exists():
            raise EhrError("the file of events does not exist.", where=str(self.path), fix="Correct `cohort: events:`.")
        root = self.path.parent
        return digest(self.form, files_digest(root, [file.relative_to(root).as_posix() for file in self.files()]))

    def files(self) -> list[Path]:
        """Return the file of events, the MEDS folder or archive, or the files of the OMOP tables."""
        tables = find_omop(self.path) if self.form == "omop" else None
        # volumes may lie next to OMOP tables and are ignored
        return [self.path] if tables is None else [file for of in tables.files.values() for file in of]

    @property
    def numbered(self) -> bool:
        """Return whether patient ids are numbers."""
        return self.form != "events"


def record_of(cohort: TableCohort | InspectCohort) -> Record | None:
    """Return the medical record of a cohort, None if it has none. For INSPECT, MEDS takes precedence over OMOP."""
    if isinstance(cohort, TableCohort):
        return None if cohort.events is None else Record("events", cohort.events)
    root = cohort.ehr or cohort.root
    found = find_meds(root, passing_over=VOLUME_FOLDERS)
    if found is not None:
        return Record("meds", found)
    tables = find_omop(root, passing_over=VOLUME_FOLDERS)
    if tables is not None and any(name in tables.files for name in _OMOP_EVENTS):
        return Record("omop", tables.folder)
    return None


def events_of(
    record: Record, *, unpack_into: Path, demographics: bool = False, progress: Progress = silent
) -> pl.LazyFrame:
    """Return a scan of the events of a record. Only headers, vocabularies and persons are read at this point.

    Parameters
    ----------
    demographics : bool
        Whether to add the demographics of OMOP persons as events at birth, as in MEDS. Other forms may already contain them.

    Raises
    ------
    CohortError
        A file cannot be read or lacks a column.
    """
    if record.form == "events":
        rows, comma = scan_table(record.path, [*_EVENT, *_MORE]), decimal_comma(record.path)
        _refuse_nested(rows.collect_schema(), record.path.name)
        # spreadsheets leave blank rows
        rows = rows.filter(pl.any_horizontal(pl.all().is_not_null())).with_columns(_coded_text().cast(pl.String))
        return _tidy(rows, record.path.name, numbered=False, comma=comma)
    if record.form == "omop":
        tables = find_omop(record.path)
        if tables is None:
            raise EhrError("the OMOP tables no longer exist.", where=str(record.path))
        parts = [_omop_events(tables, name) for name in _OMOP_EVENTS if name in tables.files]
        return pl.concat([*parts, _omop_persons(tables)] if demographics else parts)
    dataset = open_meds(record.path, unpack_into=unpack_into, progress=progress)
    return _tidy(dataset.events(_MORE).rename({"subject_id": "patient"}), record.path.name, numbered=True, comma=False)


def _coded_text() -> Selector:
    """Return the columns whose text Parquet holds as codes."""
    return cs.categorical() | cs.enum()


def _refuse_nested(schema: pl.Schema, where: str) -> None:
    nested = [f"{name} holds {dtype}" for name, dtype in schema.items() if dtype.is_nested()]
    if nested:
        raise EhrError(
            f"{'; '.join(nested)}.", where=where, fix="Write one event per row, with text or numbers in each column."
        )


def _tidy(events: pl.LazyFrame, where: str, *, numbered: bool, comma: bool) -> pl.LazyFrame:
    """Return the events with our column types."""
    schema = events.collect_schema()
    code = pl.col("code").cast(pl.String)
    # a user's ids are text and kept unchanged, as in the table of the cohort
    patient = (
        _number("patient", schema) if numbered else _given(pl.col("patient").cast(pl.String).str.strip_chars(ENDS))
    )
    is_note = pl.col("note").is_not_null()
    if not schema["note"].is_integer():
        is_note &= ~pl.col("note").cast(pl.String).is_in(["", "NaN"])
    table = pl.when(is_note).then(pl.lit("note")).otherwise(pl.col("table").cast(pl.String))
    return events.select(
        patient.alias("patient"),
        clock("time", schema, where=where).alias("time"),
        clock("end", schema, where=where).alias("end"),
        code if numbered else _given(code),
        _value(schema, where, comma=comma),
        table.alias("table"),
        pl.col("origin").cast(pl.String),
        _visit(schema),
        _unread("time", schema).alias("written"),
        _unread("end", schema).alias("written_end"),
    )


def _given(text: pl.Expr) -> pl.Expr:
    """Return text, NULL if an export has written a missing cell as a word."""
    return pl.when(~text.is_in(_NOT_GIVEN)).then(text)


def _unread(column: str, schema: pl.Schema) -> pl.Expr:
    """Return the text of a cell that is present but not a time, else NULL."""
    if schema[column] != pl.String:
        return pl.lit(None, pl.String)
    text = pl.col(column).str.strip_chars()
    is_present = ~text.str.to_lowercase().is_in(_NO_TIME_WORDS)
    return pl.when(is_present & moment(column).is_null()).then(text)


def _value(schema: pl.Schema, where: str, *, comma: bool) -> pl.Expr:
    """Return values as numbers; text that is not a number is NaN, and is counted later."""
    value, dtype = pl.col("value"), schema["value"]
    if dtype == pl.String:
        value = pl.when(~value.str.to_lowercase().is_in(_NO_VALUE_WORDS)).then(value)
        number = (value.str.replace(",", ".", literal=True) if comma else value).cast(pl.Float32, strict=False)
        unread = value.is_not_null() & ~number.is_finite().fill_null(value=False)
        return pl.when(unread).then(math.nan).otherwise(number).alias("value")
    if not (dtype.is_numeric() or dtype in (pl.Null, pl.Boolean)):
        raise EhrError(
            f"the column of values holds {dtype}.",
            where=where,
            fix="Write the values as numbers, or remove the column.",
        )
    return value.cast(pl.Float32).fill_nan(None)


def _omop_events(tables: OmopTables, name: str) -> pl.LazyFrame:
    """Return the events of one OMOP table. The source concept takes precedence over the standard one, as in the MEDS ETL."""
    kind, names = _OMOP_EVENTS[name], tables.columns(name)
    own = [one for one in names if one.lower().startswith(kind)] or names
    starts, ends = time_columns(own), time_columns(own, end=True)
    if not starts:
        raise EhrError(
            f"no column holds the start time of the events of {name}; the columns are {', '.join(names)}.",
            where=str(tables.folder),
            fix="Export the table with its *_date or *_datetime columns.",
        )
    columns = [
        Column("patient", ("person_id",)),
        *(Column(one, (one,)) for one in starts),
        Column("concept", (f"{kind}_concept_id",)),
        Column("source", (f"{kind}_source_concept_id",), needed=False),
        Column("value", ("value_as_number",), needed=False),
        _ORIGIN,
        _VISIT,
        *(Column(one, (one,)) for one in ends),
    ]
    rows = tables.scan(name, columns)
    rows = _first_known(rows, "time", starts, name)
    rows = _first_known(rows, "end", ends, name)
    schema = rows.collect_schema()
    source, concept = _number("source", schema), _number("concept", schema)
    rows = rows.select(
        _number("patient", schema).alias("patient"),
        "time",
        "end",
        pl.when(source != 0).then(source).otherwise(concept).alias("concept_id"),
        _value(schema, name, comma=any(decimal_comma(path) for path in tables.files[name])),
        pl.lit(name).alias("table"),
        pl.col("origin").cast(pl.String),
        _visit(schema),
        pl.col("written_time").alias("written"),
        "written_end",
    )
    unnamed = pl.when(pl.col("concept_id") != 0).then("OMOP/" + pl.col("concept_id").cast(pl.String))
    named = rows.join(_concepts(tables), on="concept_id", how="left").with_columns(code=pl.coalesce("code", unnamed))
    return named.select(_COLUMNS)


def _first_known(rows: pl.LazyFrame, name: str, parts: list[str], where: str) -> pl.LazyFrame:
    """Add a column with the first non-blank time of `parts`, and its text if it is not read; NULL if there are no columns."""
    if not parts:
        nothing = (pl.lit(None, pl.Datetime("us")).alias(name), pl.lit(None, pl.String).alias(f"written_{name}"))
        return rows.with_columns(nothing)
    if len({rows.collect_schema()[part] for part in parts}) == 1:  # then only one column is parsed
        parts, rows = [name], rows.with_columns(pl.coalesce(parts).alias(name))
    schema = rows.collect_schema()
    time = pl.coalesce(clock(part, schema, where=where) for part in parts)
    written = pl.when(time.is_null()).then(pl.coalesce(_unread(part, schema) for part in parts))
    return rows.with_columns(time.alias(name), written.alias(f"written_{name}"))


def _omop_persons(tables: OmopTables) -> pl.LazyFrame:
    """Return sex, race and ethnicity of OMOP persons as events at birth."""
    people = codes_of_people(people_of_omop(tables, Notes())).lazy()
    nothing: dict[str, pl.DataType] = {"value": pl.Float32(), "visit": pl.Int64()}
    nothing |= dict.fromkeys(("origin", "written", "written_end"), pl.String())
    return people.select(
        pl.col("person_id").alias("patient"),
        pl.col("birth").alias("time"),
        pl.lit(None, pl.Datetime("us")).alias("end"),
        "code",
        pl.lit("person").alias("table"),
        *(pl.lit(None, dtype).alias(name) for name, dtype in nothing.items()),
    ).select(_COLUMNS)


def _concepts(tables: OmopTables) -> pl.LazyFrame:
    """Return `concept_id` and `code` as ``vocabulary/code``; empty if there is no vocabulary."""
    if "concept" not in tables.files:
        return pl.LazyFrame(schema={"concept_id": pl.Int64, "code": pl.String})
    columns = [Column(name, (name,)) for name in ("concept_id", "vocabulary_id", "concept_code")]
    return tables.scan("concept", columns).select(
        whole_number("concept_id"),
        code=pl.concat_str("vocabulary_id", pl.col("concept_code").cast(pl.String), separator="/"),
    )


def _number(column: str, schema: pl.Schema) -> pl.Expr:
    # integer ids are not converted to text: there may be 200 million of them
    return pl.col(column).cast(pl.Int64) if schema[column].is_integer() else whole_number(column)


def _visit(schema: pl.Schema) -> pl.Expr:
    """Return the visit number of a row: an integer as it is, other text as a hash, NULL if there is none."""
    visit, dtype = pl.col("visit"), schema["visit"]
    if dtype.is_integer():
        return visit.cast(pl.Int64)
    if dtype.is_float():
        return visit.fill_nan(None).cast(pl.Int64)
    text = id_text("visit")
    return pl.coalesce(
        whole_number("visit"), pl.when(text.is_not_null()).then(text.hash().reinterpret(signed=True))
    ).alias("visit")


def patients_of(studies: pl.DataFrame, record: Record) -> pl.DataFrame:
    """Return the patients of the cohort with their id in the record, `patient`, and `at`, their index in order of id."""
    ids = studies.select("patient_id").unique().sort("patient_id").with_row_index("at")
    key = whole_number("patient_id") if record.numbered else pl.col("patient_id")
    return ids.select(key.alias("patient"), pl.col("at").cast(pl.Int32), "patient_id").drop_nulls("patient")

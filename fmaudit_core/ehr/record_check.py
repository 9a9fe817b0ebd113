"""What stops the read of a medical record: bytes, headers, patients, times and events that would be lost quietly.

The counts come from `record_look.py`. No message holds a cell of the record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.config import EhrSection
from fmaudit_core.ehr.cutoffs import Rule
from fmaudit_core.ehr.effective_time import UNREAD_TIME
from fmaudit_core.ehr.errors import EhrError
from fmaudit_core.ehr.record_look import RecordLook, forms_of_unread, look_at_record
from fmaudit_core.ehr.source import Record
from fmaudit_core.ehr.time_forms import named_forms
from fmaudit_core.tabular.delimited import find_layout, is_regular, refuse_repeated_names
from fmaudit_core.tabular.errors import rows_named
from fmaudit_core.tabular.scan import PARQUET, ends_early, is_table, rows_of_other_width, scan_header
from fmaudit_core.tabular.text_cells import SUFFIXES
from fmaudit_core.tabular.text_check import check_text, header_is_data

#: largest share of rows that may be lost without `ehr: partial: true`
MOST_LOST: Final = 0.01
#: how the library writes the second of two columns with one name
_TWICE: Final = re.compile(r"(.+)_duplicated_\d+")
#: names of columns that tell the header of a user's events from a first row of data
_EVENT_NAMES: Final = ("patient_id", "subject_id", "person_id", "time", "code")
_WRITE_TIMES: Final = "Write times as 2020-02-05 or 2020-02-05 14:30"
_GO_ON: Final = "`ehr: partial: true` goes on without these rows"


def check_files(record: Record) -> None:
    """Refuse files of a record that would be misread: encodings, quotation marks, headers.

    Raises
    ------
    EhrError, CohortError
        Names the file, and the line if there is one.
    """
    if record.form == "events" and not is_table(record.path):
        raise EhrError(
            "is neither CSV nor Parquet.", where=record.path.name, fix="Save the events as .csv, .csv.gz or .parquet."
        )
    for path in record.files():
        if not path.is_file() or not is_table(path):
            continue
        check_text(path)
        if record.form == "events":
            _check_layout(path)
        _check_header(scan_header(path), path)


def _check_layout(path: Path) -> None:
    """Refuse a user's own file with lines above its header, or rows whose last cells would be lost and others shifted."""
    if path.suffix.lower() in SUFFIXES and path.suffix.lower() not in PARQUET:
        layout = find_layout(path, _EVENT_NAMES)
        if layout.header_row > 1:
            raise EhrError("its first line is `sep=`, as Excel writes it.", where=path.name, fix="Remove this line.")
        if is_regular(path, layout):
            return
    rows = rows_of_other_width(path, longer=True)
    if rows:
        raise EhrError(
            f"{rows_named(rows)}: more cells than the header's.",
            where=path.name,
            fix="Text that holds the separator needs quotes.",
        )
    if ends_early(path):
        raise EhrError(
            "its last line has fewer cells than the header and no line end, so the file may be truncated.",
            where=path.name,
            fix="Export or download it again; remove a line below the table.",
        )


def _check_header(names: list[str], path: Path) -> None:
    if header_is_data(names):
        raise EhrError(
            "its first row holds numbers or dates, so the names of the columns are missing.",
            where=path.name,
            fix="Add a first row with the names: patient_id, time, code, value.",
        )
    written = [match[1] if (match := _TWICE.fullmatch(name)) and match[1] in names else name for name in names]
    refuse_repeated_names(written, path)


def check_events(
    events: pl.LazyFrame, record: Record, patients: pl.DataFrame, studies: pl.DataFrame, settings: EhrSection
) -> RecordLook:
    """Count the rows of a record and refuse one of which too much would be lost.

    Parameters
    ----------
    events : scan of `source.events_of`
    patients : frame of `source.patients_of`
    studies : frame of `study_id, patient_id, split, time`

    Raises
    ------
    EhrError
        Rows have another number of cells than the header, more than 1 % cannot be used, no row is of the cohort's patients,
        or no event is before its study.
    """
    with damage_named(record):
        look = look_at_record(events, record, patients, studies, settings.cutoff)
    if look.n_patients == 0:
        raise _of_nobody(events, record, patients, look)
    if look.n_patients < look.n_cohort and not (record.numbered or settings.partial):
        _check_spellings(events, record, patients)
    if look.n_lost > MOST_LOST * look.n_rows and not settings.partial:
        raise _too_many_lost(events, record, patients, look)
    if look.n_unread_ends > MOST_LOST * look.n_rows and not settings.partial:
        forms = named_forms(forms_of_unread(events, patients, "written_end"))
        raise EhrError(
            f"{look.n_unread_ends:,} of {look.n_rows:,} rows have an end that is not read: {forms}.",
            where=record.path.name,
            fix=f"{_WRITE_TIMES}. `ehr: partial: true` goes on as if these rows had no end.",
        )
    if look.n_before == 0 and look.n_same_day + look.n_later > 0:
        raise _all_too_late(record, look, settings.cutoff)
    return look


@contextmanager
def damage_named(record: Record) -> Iterator[None]:
    """Read the rows of a record inside this context; the library's message is omitted, because it may quote a cell.

    Raises
    ------
    EhrError
        A file of the record is damaged, or the disk is full.
    """
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        _check_widths(record)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise EhrError(
            f"the events cannot be read ({reason}).",
            where=record.path.name,
            fix="A file of the medical record may be truncated: export or download it again. If the disk is full, set "
            "FMAUDIT_HOME to a larger disk.",
        ) from error


def _check_widths(record: Record) -> None:
    for path in record.files():
        rows = rows_of_other_width(path) if path.is_file() and is_table(path) else []
        if rows:
            raise EhrError(
                f"{rows_named(rows)}: fewer or more cells than the header's.",
                where=path.name,
                fix="A blank cell still needs its separator; text that holds the separator needs quotes.",
            )


def _too_many_lost(events: pl.LazyFrame, record: Record, patients: pl.DataFrame, look: RecordLook) -> EhrError:
    reasons = [f"{n:,} {reason}" for reason, n in look.lost.items()]
    what = f"{look.n_lost:,} of {look.n_rows:,} rows cannot be used, which is too many: {', '.join(reasons)}."
    fix = f"Correct these rows; {_GO_ON}."
    if UNREAD_TIME in look.lost:
        what += f" Times are not read: {named_forms(forms_of_unread(events, patients))}."
        fix = f"{_WRITE_TIMES}; {_GO_ON}."
    return EhrError(what, where=record.path.name, fix=fix)


def _of_nobody(events: pl.LazyFrame, record: Record, patients: pl.DataFrame, look: RecordLook) -> EhrError:
    if look.n_rows + look.n_others == 0:
        return EhrError(
            "holds no event of the cohort's patients: it has no rows.",
            where=record.path.name,
            fix="Export the events of the cohort's patients.",
        )
    fix = "The record must use the cohort's patient ids; `cohort_notes` lists the tables that were read."
    count = ""
    if not record.numbered:
        _, what = alike_ids(events, patients)
        count = f" (it has {look.n_rows + look.n_others:,} rows){f'; {what}' if what else ''}"
        fix = "Write the ids as in the cohort's table, character by character."
    return EhrError(f"holds no event of the cohort's patients{count}.", where=record.path.name, fix=fix)


def _check_spellings(events: pl.LazyFrame, record: Record, patients: pl.DataFrame) -> None:
    """Refuse a record in which some of the cohort's patients have ids of another spelling."""
    n, what = alike_ids(events, patients)
    if n > MOST_LOST * patients.height:
        raise EhrError(
            f"it lacks patients of the cohort, but {what}.",
            where=record.path.name,
            fix="Write the ids as in the cohort's table; `ehr: partial: true` goes on if these are other patients.",
        )


def alike_ids(events: pl.LazyFrame, patients: pl.DataFrame) -> tuple[int, str]:
    """Return the number of patients whose id in the record differs by spelling only, and a clause that says how."""
    theirs = events.select(pl.col("patient").unique()).collect(engine="streaming").drop_nulls()
    missing = patients.select("patient").join(theirs, on="patient", how="anti")
    others = theirs.join(patients.select("patient"), on="patient", how="anti")
    spellings = {
        "`.0` at their end": pl.col("patient").str.replace(r"\.0+$", ""),
        "zeros at their start": pl.col("patient").str.strip_chars_start("0"),
        "capital letters": pl.col("patient").str.to_lowercase(),
    }
    for what, plain in spellings.items():
        n = missing.select(plain).unique().join(others.select(plain).unique(), on="patient", how="semi").height
        if n:
            return n, f"the ids of {n:,} differ from the cohort's by {what} only"
    return 0, ""


def _all_too_late(record: Record, look: RecordLook, rule: Rule) -> EhrError:
    fix = "Export events from before the studies"
    if rule == "strict":
        fix += " (under `ehr: cutoff: strict` the cutoff is midnight before the study's day)"
    return EhrError(
        f"no event is before the cutoff of its patient's study: {look.n_same_day:,} are on the day of the study at or after "
        f"the cutoff, {look.n_later:,} on a later day.",
        where=record.path.name,
        fix=f"{fix}; or leave the record out: `probes: modalities: [ct]`.",
    )

"""Sex, race, ethnicity and birth of INSPECT patients, from OMOP persons, MEDS person events or a user's file.

The tables of the release do not contain them. `race_ethnicity` is the first match of hispanic (of any race), nh_white, nh_black,
nh_asian, nh_nhpi, nh_aian, nh_other, else unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import polars as pl

from fmaudit_core.cohort.schema import MAX_AGE
from fmaudit_core.common.vocabulary import UNKNOWN
from fmaudit_core.tabular.errors import CohortError, starting_with_rows
from fmaudit_core.tabular.meds import BIRTH_CODES, MedsDataset
from fmaudit_core.tabular.notes import Notes
from fmaudit_core.tabular.omop import OmopTables
from fmaudit_core.tabular.scan import Column, clock, collected, moment, scan_table, whole_number

UnknownEthnicity = Literal["as_race", "unknown"]

#: columns of a person; `races` may hold several levels, `hispanic` is NULL if not recorded
PEOPLE: Final = pl.Schema(
    {
        "person_id": pl.Int64(),
        "sex": pl.String(),
        "races": pl.List(pl.String),
        "hispanic": pl.Boolean(),
        "birth": pl.Datetime("us"),
    }
)
#: matching order, after hispanic
RACES: Final = ("nh_white", "nh_black", "nh_asian", "nh_nhpi", "nh_aian", "nh_other")
RACE_ETHNICITY_LEVELS: Final = ("hispanic", *RACES, UNKNOWN)

_SEX_CONCEPTS: Final = {8532: "female", 8507: "male"}
_HISPANIC_CONCEPTS: Final = {38003563: True, 38003564: False}
_RACE_CONCEPTS: Final = {8527: "nh_white", 8516: "nh_black", 8515: "nh_asian", 8557: "nh_nhpi", 8657: "nh_aian"}
#: source value for Other; concept 0 alone includes both Other and Unknown
_OTHER_SOURCE: Final = r"(?i)(^|\|)\s*other( race)?\s*(\||$)"

#: code -> (kind, level) for person codes; kind is sex, race or ethnicity
_CODES: Final[Mapping[str, tuple[str, str]]] = {
    "Gender/F": ("sex", "female"),
    "Gender/M": ("sex", "male"),
    "Ethnicity/Hispanic": ("ethnicity", "hispanic"),
    "Ethnicity/Not Hispanic": ("ethnicity", "not hispanic"),
    "Race/5": ("race", "nh_white"),
    "Race/3": ("race", "nh_black"),
    "Race/2": ("race", "nh_asian"),
    "Race/4": ("race", "nh_nhpi"),
    "Race/1": ("race", "nh_aian"),
}
#: code of each level; a race found only in a source value has no FEMR code
_CODE_OF: Final = {level: code for code, level in _CODES.items()} | {("race", "nh_other"): "Race/other"}
#: descriptions of other person codes, as in the OMOP vocabulary
_DESCRIPTIONS: Final[Mapping[tuple[str, str], str]] = {
    ("sex", "female"): "female",
    ("sex", "male"): "male",
    ("ethnicity", "hispanic or latino"): "hispanic",
    ("ethnicity", "not hispanic or latino"): "not hispanic",
    ("race", "white"): "nh_white",
    ("race", "black or african american"): "nh_black",
    ("race", "black"): "nh_black",
    ("race", "african american"): "nh_black",
    ("race", "asian"): "nh_asian",
    ("race", "native hawaiian or other pacific islander"): "nh_nhpi",
    ("race", "american indian or alaska native"): "nh_aian",
    ("race", "other race"): "nh_other",
    ("race", "other"): "nh_other",
}
_KINDS: Final = {"gender": "sex", "race": "race", "ethnicity": "ethnicity"}

_SEX_WORDS: Final = {"female": "female", "f": "female", "male": "male", "m": "male"}
_BLANK_WORDS: Final = ("", "unknown", "na", "n/a", "nan", "null", "none")


def race_ethnicity(unknown_ethnicity: UnknownEthnicity) -> pl.Expr:
    """Return the first matching level of `races` and `hispanic` of `PEOPLE`.

    Parameters
    ----------
    unknown_ethnicity : str
        Level if the ethnicity was not recorded: `as_race` treats the person as not Hispanic, `unknown` gives unknown.
    """
    known = pl.col("hispanic").is_not_null() | pl.lit(unknown_ethnicity == "as_race")
    level = pl.lit(UNKNOWN)
    for race in reversed(RACES):
        level = pl.when(known & pl.col("races").list.contains(race)).then(pl.lit(race)).otherwise(level)
    return pl.when(pl.col("hispanic")).then(pl.lit("hispanic")).otherwise(level)


def people_of_omop(tables: OmopTables, notes: Notes) -> pl.DataFrame:
    """Read the table `person` as a frame of `PEOPLE`.

    Raises
    ------
    CohortError
        A column is missing, or a person is listed twice with different content.
    """
    optional = ("birth_datetime", "year_of_birth", "month_of_birth", "day_of_birth", "race_source_value")
    columns = [Column(name, (name,)) for name in ("person_id", "gender_concept_id", "race_concept_id")]
    columns += [Column("ethnicity_concept_id", ("ethnicity_concept_id",))]
    columns += [Column(name, (name,), needed=False) for name in optional]
    rows = tables.read("person", columns)
    numbers = ("gender_concept_id", "race_concept_id", "ethnicity_concept_id", *optional[1:4])
    birth = clock("birth_datetime", rows.schema, where="person")
    # as in the MEDS ETL, a missing month or day is taken as the first
    built = pl.concat_str(
        pl.when(pl.col("year_of_birth") > 0).then(pl.col("year_of_birth")).cast(pl.String).str.zfill(4),
        *(pl.col(name).fill_null(1).cast(pl.String).str.zfill(2) for name in ("month_of_birth", "day_of_birth")),
        separator="-",
    )
    rows = rows.with_columns(
        whole_number("person_id"), *(whole_number(name) for name in numbers), birth=birth.cast(pl.Datetime("us"))
    ).with_columns(built=built)
    rows = rows.with_columns(birth=pl.coalesce("birth", moment("built")))
    has_birth = pl.any_horizontal(pl.col("birth_datetime", "year_of_birth").is_not_null())
    notes.add(
        "birth that is no date",
        rows.filter(has_birth & pl.col("birth").is_null()).height,
        "persons",
        "age taken as unknown",
    )
    race = _mapped("race_concept_id", _RACE_CONCEPTS, pl.String)
    says_other = pl.col("race_source_value").cast(pl.String).str.contains(_OTHER_SOURCE).fill_null(False)
    race = pl.coalesce(race, pl.when(says_other).then(pl.lit("nh_other")))
    for name, table in (
        ("gender_concept_id", _SEX_CONCEPTS),
        ("race_concept_id", _RACE_CONCEPTS),
        ("ethnicity_concept_id", _HISPANIC_CONCEPTS),
    ):
        other = rows.filter(pl.col(name).is_not_null() & ~pl.col(name).is_in([0, *table]))
        notes.add(f"{name} of no level", other.height, "persons", "taken as unknown")
    people = rows.select(
        "person_id",
        sex=_mapped("gender_concept_id", _SEX_CONCEPTS, pl.String).fill_null(UNKNOWN),
        races=pl.concat_list(race).list.drop_nulls(),
        hispanic=_mapped("ethnicity_concept_id", _HISPANIC_CONCEPTS, pl.Boolean),
        birth="birth",
    )
    return _each_once(people.drop_nulls("person_id"), "person")


def codes_of_people(people: pl.DataFrame) -> pl.DataFrame:
    """Return the demographics of persons as MEDS codes, one row per code; unknown values have no row.

    Parameters
    ----------
    people : frame of `PEOPLE`

    Returns
    -------
    frame of `person_id, birth, code`
    """
    levels = {
        "sex": pl.concat_list("sex"),
        "race": pl.col("races"),
        "ethnicity": pl.concat_list(
            pl.when(pl.col("hispanic")).then(pl.lit("hispanic")).when(~pl.col("hispanic")).then(pl.lit("not hispanic"))
        ),
    }
    parts = [
        people.select("person_id", "birth", code=level)
        .explode("code")
        .with_columns(pl.col("code").replace_strict(_codes_of(kind), default=None, return_dtype=pl.String))
        for kind, level in levels.items()
    ]
    return pl.concat(parts).drop_nulls("code")


def _codes_of(kind: str) -> dict[str, str]:
    return {level: code for (its_kind, level), code in _CODE_OF.items() if its_kind == kind}


def people_of_meds(dataset: MedsDataset, notes: Notes) -> pl.DataFrame:
    """Read the person events of a MEDS dataset as a frame of `PEOPLE`, in one pass over the codes of all events.

    A concept with source value 0 has no event, so absent means unknown. Other person codes are mapped through the vocabulary
    (their parents or their description). Codes that cannot be mapped are unknown and are counted.
    """
    vocabulary = dataset.codes()
    notes.add(
        "not there: metadata/codes.parquet (what the record's own codes mean)", int(vocabulary.is_empty()), "files"
    )
    levels = _levels_of_codes(vocabulary)
    code = pl.col("code")
    of_person = code.is_in([*levels, *BIRTH_CODES]) | code.str.contains(r"^(?i)(gender|race|ethnicity)/")
    events = collected(dataset.events().filter(of_person), where=dataset.folder.name).drop_nulls("subject_id")
    unmapped = events.filter(~code.is_in([*levels, *BIRTH_CODES]))
    notes.add("person code of no level", unmapped.get_column("subject_id").n_unique(), "persons", "taken as unknown")

    def of_kind(kind: str) -> pl.Expr:
        named = {one: level for one, (its_kind, level) in levels.items() if its_kind == kind}
        return code.replace_strict(named, default=None, return_dtype=pl.String).drop_nulls().unique().sort()

    sexes, ethnicities = of_kind("sex"), of_kind("ethnicity")
    people = events.group_by("subject_id").agg(
        sexes=sexes,
        races=of_kind("race"),
        ethnicities=ethnicities,
        birth=pl.col("time").filter(code.is_in(BIRTH_CODES)).min(),
    )
    hispanic, is_recorded = pl.col("ethnicities").list.contains("hispanic"), pl.col("ethnicities").list.len() > 0
    return people.select(
        person_id="subject_id",
        sex=pl.when(pl.col("sexes").list.len() == 1).then(pl.col("sexes").list.first()).otherwise(pl.lit(UNKNOWN)),
        races="races",
        hispanic=pl.when(is_recorded).then(hispanic),
        birth="birth",
    ).sort("person_id")


def people_of_file(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read a user's table with person_id, sex, race_ethnicity, and birth_date or age.

    Returns
    -------
    levels : frame
        person_id, sex, race_ethnicity, each person once.
    ages : frame
        person_id, birth (Datetime) and age (Int64), either of them NULL.

    Raises
    ------
    CohortError
        A column is missing, a level is not allowed, an age or date cannot be read, or a person is listed twice.
    """
    columns = [Column(name, (name,)) for name in ("person_id", "sex", "race_ethnicity")]
    dated = Column("birth", ("birth_date", "birth_datetime", "date_of_birth"), needed=False)
    rows = collected(
        scan_table(path, [*columns, dated, Column("age", ("age",), needed=False)], rows=True), where=path.name
    )
    if rows.get_column("birth").is_null().all() and rows.get_column("age").is_null().all():
        raise CohortError(
            "holds neither birth_date nor age.", where=path.name, fix="Add one of them: age bands need it."
        )
    text = {name: pl.col(name).cast(pl.String).fill_null("").str.strip_chars() for name in ("sex", "race_ethnicity")}
    level = {
        "sex": text["sex"].str.to_lowercase().replace(_SEX_WORDS),
        "race_ethnicity": text["race_ethnicity"].str.to_lowercase(),
    }
    allowed = {"sex": ("female", "male", UNKNOWN), "race_ethnicity": RACE_ETHNICITY_LEVELS}
    for name, expression in level.items():
        level[name] = pl.when(expression.is_in(_BLANK_WORDS)).then(pl.lit(UNKNOWN)).otherwise(expression)
        _refuse(rows.filter(~level[name].is_in(allowed[name])), f"a {name} other than {', '.join(allowed[name])}", path)
    as_text = rows.with_columns(pl.col("birth", "age").cast(pl.String))
    age = pl.col("age").cast(pl.Float64, strict=False)
    _refuse(
        as_text.filter(pl.col("birth").is_not_null() & moment("birth").is_null()),
        "a birth_date that is not a date",
        path,
    )
    _refuse(
        as_text.filter(pl.col("age").is_not_null() & ~age.is_finite().fill_null(False)),
        "an age that is not a number",
        path,
    )
    _refuse(as_text.filter(~age.is_between(0, MAX_AGE + 1, closed="left")), f"an age outside 0 to {MAX_AGE}", path)
    _refuse(as_text.filter(whole_number("person_id").is_null()), "a person_id that is not a whole number", path)
    known = as_text.select(
        "row",
        whole_number("person_id"),
        sex=level["sex"],
        race_ethnicity=level["race_ethnicity"],
        birth=moment("birth"),
        age=age.floor().cast(pl.Int64),
    )
    _refuse(known.filter(pl.col("person_id").is_duplicated()), "a person is listed more than once", path)
    return known.select("person_id", "sex", "race_ethnicity"), known.select("person_id", "birth", "age")


def _levels_of_codes(codes: pl.DataFrame) -> dict[str, tuple[str, str]]:
    """Return kind and level of every person code: known codes, and others by their parent or their description."""
    levels = dict(_CODES)
    for code, description, parents in codes.iter_rows():
        if code is None or code in levels:
            continue
        parent = next((one for one in parents or () if one in _CODES), None)
        kind = _KINDS.get(code.split("/", 1)[0].lower())
        level = _DESCRIPTIONS.get((kind, (description or "").strip().lower())) if kind else None
        if parent is not None:
            levels[code] = _CODES[parent]
        elif kind and level:
            levels[code] = (kind, level)
    return levels


def _mapped(column: str, levels: Mapping[int, object], dtype: type[pl.DataType]) -> pl.Expr:
    return pl.col(column).replace_strict(dict(levels), default=None, return_dtype=dtype)


def _each_once(people: pl.DataFrame, where: str) -> pl.DataFrame:
    distinct = people.unique(maintain_order=True)
    twice = distinct.filter(pl.col("person_id").is_duplicated()).get_column("person_id").n_unique()
    if twice:
        raise CohortError(
            f"{twice} persons are listed more than once, with different content.",
            where=where,
            fix="Download the table again.",
        )
    return distinct.sort("person_id")


def _refuse(bad: pl.DataFrame, problem: str, path: Path) -> None:
    if bad.height:
        rows = starting_with_rows(bad.get_column("row").to_list())
        raise CohortError(f"{rows}: {problem}.", where=path.name, fix="Correct these rows.")

"""Reader of a user's cohort: one CSV or Parquet file with a row per study, and a folder of CT series.

`tabular/text_cells.py` reads the file as text cells, `images.py` finds images, `schema.py` defines a validated cohort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.cohort.ages import band_of
from fmaudit_core.cohort.images import locate
from fmaudit_core.cohort.outcomes import check_classes, flow_of, label_flow
from fmaudit_core.cohort.schema import MAX_AGE, Cohort, blank, broken_rules, validate_labels, validate_studies
from fmaudit_core.cohort.splits import assign_split
from fmaudit_core.common.errors import columns_missing, did_you_mean
from fmaudit_core.common.vocabulary import SPLITS, UNKNOWN, too_many_levels
from fmaudit_core.config import AgeBand, TableCohort
from fmaudit_core.tabular.errors import CohortError, rows_named, starting_with_rows, words_named
from fmaudit_core.tabular.scan import moment
from fmaudit_core.tabular.text_cells import read_cells

SPLIT_WORDS: Final[Mapping[str, str]] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "tuning": "val",
    "test": "test",
    "held_out": "test",
}
LABEL_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "positive", "pos"), True),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "negative", "neg"), False),
    **dict.fromkeys(("", "na", "n/a", "nan", "null", "none", "censored", "censor", "unknown"), None),
}
_BLANK_LEVELS: Final = ("", "na", "n/a", "nan", "null", "none", "unknown")
_IMAGE_SUFFIXES: Final = ("", ".nii.gz", ".nii")
_NUMBER: Final = r"^[+-]?[0-9]+(\.[0-9]*)?$"
#: reserved column names, not allowed for tasks and attributes
_OWN: Final = ("row", "study_id", "patient_id", "split", "age", "image", "image_path", "series_uid", "time")
_OPTIONAL: Final = ("split", "image", "series_uid", "sex", "race_ethnicity")


def _split_of(words: pl.Expr) -> pl.Expr:
    """Return the split named by a word, NULL if it names none."""
    return words.str.to_lowercase().replace_strict(dict(SPLIT_WORDS), default=None, return_dtype=pl.String)


_IS_NUMBER: Final = pl.col("age").str.contains(_NUMBER).fill_null(value=False)
_AGE: Final = pl.col("age").cast(pl.Float64, strict=False)
_ROW_RULES: Final = {
    "no study id": blank("study_id"),
    "no patient id": blank("patient_id"),
    "a study is listed more than once": pl.col("study_id").is_duplicated() & ~blank("study_id"),
    "one patient is in more than one split, which inflates every score": ~blank("patient_id")
    & (_split_of(pl.col("split")).drop_nulls().n_unique().over("patient_id") > 1),
    f"a split other than {', '.join(SPLITS)}": _split_of(pl.col("split")).is_null(),
    "an age that is not a number": ~_IS_NUMBER,
    f"an age outside 0 to {MAX_AGE}": _IS_NUMBER & ~_AGE.is_between(0, MAX_AGE + 1, closed="left"),
}
_IMAGE_RULES: Final = {
    "no image path": blank("name"),
    "the image path is outside the cohort's folder": ~pl.col("inside"),
    "a study without images": ~pl.col("exists"),
}


def read_table_cohort(
    section: TableCohort, *, tasks: Sequence[str], attributes: Sequence[str], age_bands: Sequence[AgeBand]
) -> Cohort:
    """Read and validate a cohort.

    Parameters
    ----------
    section : TableCohort
        The table, the image folder, and a mapping from our column names to the user's if they differ. The table needs
        `study_id`, `patient_id`, `age`, and a column per task and per attribute. `split`, `image` and `series_uid` (the series
        to use, blank if the rules choose) are optional. Without
        `split`, patients are split 70/10/20 by a hash of their id. Without `image`, the folder or .nii.gz file of a study
        has the name of the study. With a medical record, the table also needs `time`, the time of the study, blank if unknown.
    tasks, attributes : sequence of str
    age_bands : sequence of AgeBand
        Studies outside all bands are excluded and counted.

    Raises
    ------
    CohortError
        The message names the file, the rows and the fix.
    """
    where = section.table.name
    _check_names(tasks, attributes)
    cells, rows = read_cells(section.table)
    raw = _named_as_ours(cells, section, tasks, attributes).with_columns(row=rows)
    problems = broken_rules(raw, _ROW_RULES)
    if problems:
        raise CohortError(problems, where=where, fix="Correct these rows; the other columns were not checked yet.")
    _check_times(raw, where)
    labels = _labels(raw, tasks, where)
    _check_levels(raw, section, attributes)
    raw = raw.with_columns(image_path=_image_paths(raw, section.images, where))
    studies = _studies(raw, attributes, age_bands)
    kept = studies.drop_nulls("age_band")
    if kept.is_empty():
        bands = ", ".join(band.label for band in age_bands)
        raise CohortError(f"no study has an age inside the bands {bands}.", where=where)
    labels = labels.join(kept.select("study_id"), on="study_id", how="semi", maintain_order="left")
    check_classes(kept, labels, tasks, where)
    return Cohort(
        studies=validate_studies(kept, where=where),
        labels=validate_labels(labels, where=where),
        flow=flow_of([("listed in the table", studies), ("age inside the age bands", kept)], labels, tasks),
        images_root=section.images,
        label_flow=label_flow(kept, labels, attributes),
    )


def _check_names(tasks: Sequence[str], attributes: Sequence[str]) -> None:
    clashing = [name for name in dict.fromkeys((*tasks, *attributes)) if name in _OWN]
    if clashing:
        raise CohortError(
            f"{', '.join(clashing)} cannot be a task or an attribute: the name is reserved.",
            where="audit.yaml",
            fix="Ages are audited as age_band." if "age" in clashing else "Give the column another name.",
        )


def _named_as_ours(
    frame: pl.DataFrame, section: TableCohort, tasks: Sequence[str], attributes: Sequence[str]
) -> pl.DataFrame:
    """Return the needed columns under our names, with a missing split assigned and missing attributes left blank."""
    theirs = dict(section.columns)
    needed = ["study_id", "patient_id", "age", *tasks, *(name for name in attributes if name != "age_band")]
    if section.events is not None:
        needed.append("time")
    missing = [theirs.get(name, name) for name in (*needed, *theirs) if theirs.get(name, name) not in frame.columns]
    if missing:
        hints = [did_you_mean(name, frame.columns) for name in dict.fromkeys(missing)]
        raise CohortError(
            f"{columns_missing(hints)}; the columns are {', '.join(frame.columns)}.",
            where=section.table.name,
            fix="Rename it, map it under `cohort: columns:`, or list only tasks and attributes that the table has.",
        )
    given = [name for name in _OPTIONAL if theirs.get(name, name) in frame.columns]
    ours = frame.select(pl.col(theirs.get(name, name)).alias(name) for name in dict.fromkeys((*needed, *given)))
    if "split" not in ours.columns:
        split = pl.col("patient_id").map_elements(assign_split, return_dtype=pl.String)
        ours = ours.with_columns(split=split)
    absent = [name for name in ("sex", "race_ethnicity") if name not in ours.columns]
    return ours.with_columns(pl.lit("").alias(name) for name in absent)


def _check_times(raw: pl.DataFrame, where: str) -> None:
    """Check that every given time can be parsed."""
    if "time" not in raw.columns:
        return
    bad = raw.filter((pl.col("time") != "") & moment("time").is_null())
    if bad.height:
        rows = starting_with_rows(bad.get_column("row").to_list())
        raise CohortError(
            f"{rows}: not a valid time.",
            where=where,
            fix="Write 2020-01-31 14:05, or leave it blank.",
        )


def _check_levels(raw: pl.DataFrame, section: TableCohort, attributes: Sequence[str]) -> None:
    """Refuse an attribute with too many levels, because a column of ids would show patients as subgroups on every page."""
    n_patients = raw.get_column("patient_id").n_unique()
    for name in attributes:
        if name != "age_band" and too_many_levels(n_levels := raw.get_column(name).n_unique(), n_patients):
            raise CohortError(
                f"column {section.columns.get(name, name)} has {n_levels:,} levels for {n_patients:,} patients: it "
                "may identify them and cannot be used as an attribute.",
                where=section.table.name,
                fix="Map the right column under `cohort: columns:`, or group its levels.",
            )


def _labels(raw: pl.DataFrame, tasks: Sequence[str], where: str) -> pl.DataFrame:
    """Return one row per study and task. An unknown word raises an error that names the word, its count and its rows."""
    problems, ids = [], _ids_of(raw)
    for task in tasks:
        words = raw.select("row", word=pl.col(task).str.to_lowercase())
        bad = words.filter(~pl.col("word").is_in(list(LABEL_WORDS)).fill_null(value=False))
        if bad.height:
            shown = words_named(bad.get_column("word"), ids)
            rows = sorted(bad.get_column("row").to_list())
            problems.append(f"{rows_named(rows)}, column {task}: {shown} is not a valid label ({bad.height} in all)")
    if problems:
        text = "; ".join(problems)
        raise CohortError(
            text[0].upper() + text[1:] + ".", where=where, fix="Labels are 1 or 0, true or false; blank means censored."
        )
    long = raw.select("study_id", *tasks).unpivot(index="study_id", variable_name="task", value_name="word")
    word = pl.col("word").str.to_lowercase()
    label = word.replace_strict(dict(LABEL_WORDS), return_dtype=pl.Boolean)
    return long.select("study_id", "task", label=label).sort("study_id", "task")


def _ids_of(raw: pl.DataFrame) -> set[str]:
    """Return the ids of studies and patients in lower case."""
    return {*raw.get_column("study_id").str.to_lowercase(), *raw.get_column("patient_id").str.to_lowercase()}


def _image_paths(raw: pl.DataFrame, root: Path | None, where: str) -> pl.Series:
    """Return the image path of each study relative to the root, checked to exist and to lie inside; NULL without a root."""
    if root is None:
        return pl.Series("image_path", [None] * raw.height, dtype=pl.String)
    if not root.is_dir():
        raise CohortError("is not a folder.", where=str(root), fix="Set `cohort: images:` to the folder of CT series.")
    named = raw.get_column("image" if "image" in raw.columns else "study_id")
    suffixes = ("",) if "image" in raw.columns else _IMAGE_SUFFIXES
    located = [locate(root, name, suffixes) for name in named]
    checked = raw.select("row").with_columns(
        name=named,
        inside=pl.Series([one.inside for one in located]) | (named == ""),
        exists=pl.Series([one.exists for one in located]) | (named == ""),
    )
    problems = broken_rules(checked, _IMAGE_RULES)
    if problems:
        raise CohortError(
            problems,
            where=where,
            fix=f"Images are searched for in {root.name}/, by the column `image` if there is one, else by study_id.",
        )
    return pl.Series("image_path", [one.path for one in located], dtype=pl.String)


def _studies(raw: pl.DataFrame, attributes: Sequence[str], age_bands: Sequence[AgeBand]) -> pl.DataFrame:
    age = pl.col("age").cast(pl.Float64).floor().cast(pl.Int64)
    further = [name for name in attributes if name not in ("age_band", "sex", "race_ethnicity")]
    levels = [_level(name) for name in ("sex", "race_ethnicity", *further)]
    return raw.select(
        "study_id",
        "patient_id",
        _split_of(pl.col("split")).alias("split"),
        age.alias("age"),
        band_of(age, age_bands).alias("age_band"),
        *levels,
        "image_path",
        *([pl.col("series_uid").fill_null("")] if "series_uid" in raw.columns else []),
        *([moment("time").alias("time")] if "time" in raw.columns else []),
    ).sort("study_id")


def _level(name: str) -> pl.Expr:
    """Return the level of an attribute as given, with blank and equivalent words as `unknown`."""
    blank = pl.col(name).str.to_lowercase().is_in(_BLANK_LEVELS)
    return pl.when(blank).then(pl.lit(UNKNOWN)).otherwise(pl.col(name)).alias(name)

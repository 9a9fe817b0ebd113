"""Reader of a user's cohort: one CSV or Parquet file with a row per study, and a folder of CT series.

`tabular/text_cells.py` reads the file as text cells, `images.py` and `archive.py` find images, `schema.py` defines a validated
cohort.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.cohort.ages import band_of, read_ages
from fmaudit_core.cohort.archive import KEYS, ReadArchive, studies_in_archive
from fmaudit_core.cohort.images import ListedNames, Located, locate, locate_listed
from fmaudit_core.cohort.outcomes import check_classes, flow_of, label_flow
from fmaudit_core.cohort.schema import MAX_AGE, Cohort, blank, broken_rules, validate_labels, validate_studies
from fmaudit_core.cohort.splits import assign_split
from fmaudit_core.common.errors import columns_missing, did_you_mean
from fmaudit_core.common.local_paths import ADDRESS
from fmaudit_core.common.vocabulary import RESERVED_ATTRIBUTES, SPLITS, identifying_levels
from fmaudit_core.config import AgeBand, LocalTableCohort
from fmaudit_core.tabular.errors import (
    CohortError,
    columns_named,
    ids_in_lower_case,
    rows_named,
    starting_with_rows,
    words_named,
)
from fmaudit_core.tabular.labels import read_labels
from fmaudit_core.tabular.levels import LevelsError, normal_levels
from fmaudit_core.tabular.notes import Notes, note_changing_people, note_labels, note_levels, note_similar_ids
from fmaudit_core.tabular.scan import moment
from fmaudit_core.tabular.text_cells import column_names, read_cells
from fmaudit_core.tabular.words import normal_splits, shortened_ids, without_missing_words

_IMAGE_SUFFIXES: Final = ("", ".nii.gz", ".nii")
#: reserved column names, not allowed for tasks and attributes
_OWN: Final = ("row", "study_id", "patient_id", "split", "age", "image", "image_path", "series_uid", "time", *KEYS)
_OPTIONAL: Final = ("split", "image", "series_uid", "sex", "race_ethnicity", *KEYS)


_AGE: Final = pl.col("age_years")
_IS_SPLIT: Final = pl.col("split").is_in(SPLITS)
_ROW_RULES: Final = {
    "no study id": blank("study_id"),
    "no patient id": blank("patient_id"),
    "a study is listed more than once": pl.col("study_id").is_duplicated() & ~blank("study_id"),
    "one patient is in more than one split, which inflates every score": ~blank("patient_id")
    & (pl.col("split").filter(_IS_SPLIT).n_unique().over("patient_id") > 1),
    "patients share an id such as 1.2E+15, as a spreadsheet shortens long numbers": ~blank("patient_id")
    & shortened_ids(),
    f"a split other than {', '.join(SPLITS)}": ~_IS_SPLIT.fill_null(value=False),
    "an age that is not a number": _AGE.is_null(),
    f"an age outside 0 to {MAX_AGE}": ~_AGE.is_between(0, MAX_AGE + 1, closed="left"),
}
_IMAGE_RULES: Final = {
    "no image path": blank("name"),
    "the image path is an address such as s3://..., not a path": pl.col("address"),
    "the image path is outside the cohort's folder": ~pl.col("inside"),
    "a study without images": ~pl.col("exists"),
}


def read_table_cohort(
    section: LocalTableCohort,
    *,
    tasks: Sequence[str],
    attributes: Sequence[str],
    covariates: Sequence[str] = (),
    age_bands: Sequence[AgeBand],
    archive: ReadArchive | None = None,
    listed: ListedNames | None = None,
) -> Cohort:
    """Read and validate a cohort.

    Parameters
    ----------
    section : LocalTableCohort
        The table, the image folder, and a mapping from our column names to the user's if they differ. The table needs
        `study_id`, `patient_id`, `age`, and a column per task and per attribute. `split`, `image` and `series_uid` (the series
        to use, blank if the rules choose) are optional. Without `split`, patients are split 70/10/20 by a hash of their id.
        Without `image`, the folder or .nii.gz file of a study has the name of the study; if no study has one, or if `study_uid`
        or `accession` is mapped, studies are found by these columns in an archive of any layout. With a medical record, the
        table also needs `time`, the time of the study, blank if unknown.
    tasks, attributes : sequence of str
    covariates : sequence of str
        Further columns of levels, which define no subgroups.
    age_bands : sequence of AgeBand
        Studies outside all bands are excluded and counted.
    archive : callable, optional
        Indexes the images; without it, images are found by name only.
    listed : callable, optional
        Finds images by name in a bucket, if they are in one.

    Raises
    ------
    CohortError
        The message names the file, the rows and the fix.
    """
    where, notes = section.table.name, Notes()
    levelled = [*attributes, *covariates]
    _check_names(tasks, levelled)
    raw = _read_as_ours(section, tasks, levelled)
    ages = read_ages(raw.get_column("age"))
    raw = raw.with_columns(age_years=ages.years)
    problems = broken_rules(raw, _ROW_RULES)
    if problems:
        raise CohortError(problems, where=where, fix="Correct these rows; the other columns were not checked yet.")
    _check_times(raw, where)
    labels = _labels(raw, section, tasks, notes)
    raw = _with_levels(raw, section, levelled, notes)
    notes.add("open ages", ages.n_open, "studies", "such as >89 or 90+; read as the nearest age inside")
    note_similar_ids(raw, notes)
    if archive is not None and _is_archive(raw, section, listed):
        found = studies_in_archive(raw, archive(), where=where, notes=notes)
        raw = raw.with_columns(found, image_path=pl.lit(None, dtype=pl.String))
    else:
        paths = _image_paths(raw, section.images, where) if listed is None else _listed_paths(raw, listed, where)
        raw = raw.drop(KEYS, strict=False).with_columns(image_path=paths)
    studies = _studies(raw, levelled, age_bands)
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
        notes=notes.frame(),
    )


def _check_names(tasks: Sequence[str], attributes: Sequence[str]) -> None:
    clashing = [name for name in tasks if name in _OWN]
    clashing += [name for name in attributes if name in (*_OWN, *RESERVED_ATTRIBUTES)]
    if clashing:
        raise CohortError(
            f"{', '.join(clashing)} cannot be a task or an attribute: the name is reserved.",
            where="audit.yaml",
            fix="Ages are audited as age_band."
            if "age" in clashing
            else "Map it to another name under `cohort: columns:`.",
        )


def _read_as_ours(section: LocalTableCohort, tasks: Sequence[str], attributes: Sequence[str]) -> pl.DataFrame:
    """Return the needed columns under our names, and `row`, with a missing split assigned and missing attributes left blank."""
    theirs = dict(section.columns)
    needed = ["study_id", "patient_id", "age", *tasks, *(name for name in attributes if name != "age_band")]
    if section.events is not None:
        needed.append("time")
    wanted = {theirs.get(name, name) for name in (*needed, *theirs)}
    found = column_names(section.table, wanted)
    missing = [theirs.get(name, name) for name in (*needed, *theirs) if theirs.get(name, name) not in found]
    if missing:
        hints = [did_you_mean(name, found) for name in dict.fromkeys(missing)]
        raise CohortError(
            f"{columns_missing(hints)}; the columns are {columns_named(found)}.",
            where=section.table.name,
            fix="Rename it, map it under `cohort: columns:`, or list only tasks, attributes and covariates that the table has.",
        )
    given = [name for name in _OPTIONAL if theirs.get(name, name) in found]
    names = {name: theirs.get(name, name) for name in dict.fromkeys((*needed, *given))}
    frame, rows = read_cells(section.table, only=set(names.values()), expected=wanted)
    ours = frame.select(pl.col(own).alias(name) for name, own in names.items()).with_columns(row=rows)
    ours = ours.with_columns(without_missing_words(ours.get_column(name)) for name in ("study_id", "patient_id"))
    if "split" not in ours.columns:
        split = pl.col("patient_id").map_elements(assign_split, return_dtype=pl.String)
        ours = ours.with_columns(split=split)
    ours = ours.with_columns(normal_splits(ours.get_column("split")))
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


def _with_levels(raw: pl.DataFrame, section: LocalTableCohort, attributes: Sequence[str], notes: Notes) -> pl.DataFrame:
    """Return the attributes in normal form.

    An attribute with too many levels is refused, because a column of ids would show patients as subgroups on every page.
    """
    n_patients, columns = raw.get_column("patient_id").n_unique(), []
    for name in dict.fromkeys((*attributes, "sex", "race_ethnicity")):
        if name == "age_band":
            continue
        theirs, n_levels = section.columns.get(name, name), raw.get_column(name).n_unique()
        if name in attributes and (problem := identifying_levels(theirs, n_levels, n_patients)):
            raise CohortError(
                problem,
                where=section.table.name,
                fix="Map the right column under `cohort: columns:`, or group its levels.",
            )
        try:
            levels = normal_levels(
                name, raw.get_column(name), merge=section.levels.merge == "case" or name not in attributes
            )
        except LevelsError as error:
            raise CohortError(error.what, where=section.table.name, fix=error.fix) from error
        if name in attributes:
            note_levels(name, levels, notes, "studies")
        columns.append(levels.column)
    raw = raw.with_columns(columns)
    note_changing_people(raw, [name for name in attributes if name != "age_band"], notes)
    return raw


def _labels(raw: pl.DataFrame, section: LocalTableCohort, tasks: Sequence[str], notes: Notes) -> pl.DataFrame:
    """Return one row per study and task. An unknown word raises an error that names the word, its count and its rows."""
    problems, ids, read = [], ids_in_lower_case(raw), {}
    for task in tasks:
        found = read[task] = read_labels(raw.get_column(task), section.labels.positive, section.labels.negative)
        bad = raw.filter(found.unreadable)
        if bad.height:
            shown = words_named(bad.get_column(task).str.to_lowercase(), ids)
            rows = sorted(bad.get_column("row").to_list())
            problems.append(f"{rows_named(rows)}, column {task}: {shown} is not a valid label ({bad.height} in all)")
        note_labels(task, found, notes, "studies")
        notes.add(f"{task} has no label", found.n_blank, "studies", "blank, or a word for it: censored")
    if problems:
        text = "; ".join(problems)
        raise CohortError(
            text[0].upper() + text[1:] + ".",
            where=section.table.name,
            fix="Labels are 1 or 0, true or false; blank means censored. Name other words under `cohort: labels:`.",
        )
    long = [
        pl.DataFrame({"study_id": raw.get_column("study_id"), "task": task, "label": read[task].column})
        for task in tasks
    ]
    return pl.concat(long).sort("study_id", "task")


def _is_archive(raw: pl.DataFrame, section: LocalTableCohort, listed: ListedNames | None) -> bool:
    """Return whether studies are found by an index: names in the table and a folder per study go first, unless it is mapped."""
    keys, root = [name for name in KEYS if name in raw.columns], section.images
    if not keys or "image" in raw.columns or (listed is None and (root is None or not root.is_dir())):
        return False
    if any(name in section.columns for name in keys):
        return True
    names = raw.get_column("study_id")
    if listed is not None:
        return not listed([f"{name}{suffix}" for name in names for suffix in _IMAGE_SUFFIXES])
    return root is not None and not any(locate(root, name, _IMAGE_SUFFIXES).exists for name in names)


def _image_paths(raw: pl.DataFrame, root: Path | None, where: str) -> pl.Series:
    """Return the image path of each study relative to the root, checked to exist and to lie inside; NULL without a root."""
    if root is None:
        return pl.Series("image_path", [None] * raw.height, dtype=pl.String)
    if not root.is_dir():
        raise CohortError("is not a folder.", where=str(root), fix="Set `cohort: images:` to the folder of CT series.")
    named, suffixes = _named_images(raw)
    located = [locate(root, name, suffixes) for name in named]
    fix = (
        f"Images are searched for in {root.name}/, by the column `image` if there is one, else by study_id. If its files "
        "lie in another layout, map `study_uid` or `accession` under `cohort: columns:`."
    )
    return _checked_paths(raw, named, located, where, fix)


def _listed_paths(raw: pl.DataFrame, listed: ListedNames, where: str) -> pl.Series:
    """Return the image path of each study relative to the bucket's folder, checked to have objects."""
    named, suffixes = _named_images(raw)
    found = listed([f"{name}{suffix}" for name in named for suffix in suffixes])
    located = [locate_listed(found, name, suffixes) for name in named]
    fix = (
        "Images are searched for in the bucket, by the column `image` if there is one, else by study_id: a folder of objects, or "
        "one object. If its objects have other names, map `study_uid` or `accession` under `cohort: columns:`."
    )
    return _checked_paths(raw, named, located, where, fix)


def _named_images(raw: pl.DataFrame) -> tuple[pl.Series, Sequence[str]]:
    """Return the name of the images of each study, and the suffixes that a file of that name may have."""
    if "image" in raw.columns:
        return raw.get_column("image"), ("",)
    return raw.get_column("study_id"), _IMAGE_SUFFIXES


def _checked_paths(raw: pl.DataFrame, named: pl.Series, located: Sequence[Located], where: str, fix: str) -> pl.Series:
    address = named.str.contains(ADDRESS)
    checked = raw.select("row").with_columns(
        name=named,
        address=address,
        inside=pl.Series([one.inside for one in located]) | (named == "") | address,
        exists=pl.Series([one.exists for one in located]) | (named == "") | address,
    )
    problems = broken_rules(checked, _IMAGE_RULES)
    if problems:
        raise CohortError(problems, where=where, fix=fix)
    return pl.Series("image_path", [one.path for one in located], dtype=pl.String)


def _studies(raw: pl.DataFrame, attributes: Sequence[str], age_bands: Sequence[AgeBand]) -> pl.DataFrame:
    age = _AGE.floor().cast(pl.Int64)
    further = [name for name in attributes if name not in ("age_band", "sex", "race_ethnicity")]
    return raw.select(
        "study_id",
        "patient_id",
        "split",
        age.alias("age"),
        band_of(age, age_bands).alias("age_band"),
        "sex",
        "race_ethnicity",
        *further,
        "image_path",
        *(pl.col(name).fill_null("") for name in ("study_uid", "series_uid") if name in raw.columns),
        *([moment("time").alias("time")] if "time" in raw.columns else []),
    ).sort("study_id")

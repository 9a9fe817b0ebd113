"""Tables of an INSPECT release joined on its keys, one row per row of the labels table. Exclusions are in `reader.py`.

`study_id` is `impression_id` as text, the volume is found by `image_id`, the patient by `person_id`. Release 0.2.0 has no
`impression_id`; there a study is named `<patient>_<time>`, like its volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.cohort.inspect_release.labels import OTHER_PE
from fmaudit_core.cohort.inspect_release.release_files import Release
from fmaudit_core.common.vocabulary import SPLITS
from fmaudit_core.tabular.errors import CohortError, starting_with_rows
from fmaudit_core.tabular.notes import Notes
from fmaudit_core.tabular.scan import (
    Column,
    clock,
    collected,
    id_text,
    moment,
    rows_of_other_width,
    scan_table,
    whole_number,
)

_STUDY: Final = Column("study_id", ("impression_id", "impressionid"))
_PERSON: Final = Column("person_id", ("person_id", "personid", "patient_id", "PatientID"))
_IMAGE: Final = Column("volume", ("image_id", "imageid"))
_SPLIT: Final = Column("split", ("split",))
_PROCEDURE_TIME: Final = Column("procedure", ("procedure_DATETIME", "procedure_time"), needed=False)
_NOTE_TIME: Final = Column("note", ("note_DATETIME", "note_time"), needed=False)
_PROVENANCE: Final = Column("provenance", ("provenance",), needed=False)
_OLD_TIME: Final = Column("procedure", ("StudyTime", "procedure_time", "procedure_DATETIME"))
_SPLIT_WORDS: Final = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}
_SHOWN_CHARACTERS: Final = 20
#: studies listed elsewhere that one table may lack: an absolute limit, and a share of all studies; the larger applies
_LACKING_FROM: Final = 10
_LACKING_UPTO: Final = 0.01
_CONTRAST: Final = r"(?i)contrast"


def read_listed(release: Release, tasks: Sequence[Column], notes: Notes, *, partial: bool = False) -> pl.DataFrame:
    """Read every row of the labels table, joined with the other tables by study.

    Parameters
    ----------
    partial : bool
        Whether a table may lack more than a few of the studies listed in the others.

    Returns
    -------
    frame
        row, study_id, person_id, split, time, time_source, volume, provenance, contrast_mentioned, rescale_slope,
        rescale_intercept, listed_slices, listed_thickness_mm, and the words of each task and of `pe_positive`. Identical
        repeats of a study are included. person_id and split are NULL if no other table lists the study.

    Raises
    ------
    CohortError
        A table is damaged or truncated, or lacks a column; a study is listed twice with different content; the tables disagree on
        the patient of a study; a patient is in two splits; a time cannot be read.
    """
    listed = _read_master(release, tasks) if release.layout == "0.2.0" else _read_tables(release, tasks, notes, partial)
    for role, path in (("labels", release.labels), ("splits", release.splits), ("mapping", release.mapping)):
        if role == "labels" or path != release.labels:
            notes.add(f"{role} file", 1, "files", path.name)
    listed = _with_series(listed, release, notes)
    listed = _with_descriptions(listed, release)
    _check_splits(listed, release.splits.name)
    return listed


def _read_tables(release: Release, tasks: Sequence[Column], notes: Notes, partial: bool) -> pl.DataFrame:
    labels = _keyed(release.labels, [_STUDY, *tasks, OTHER_PE])
    mapping = _keyed(release.mapping, [_STUDY, _PERSON, _IMAGE, _PROCEDURE_TIME, _NOTE_TIME, _PROVENANCE])
    splits = _keyed(release.splits, [_STUDY, replace(_PERSON, needed=False), _SPLIT])
    where = release.mapping.name
    for table, path in ((labels, release.labels), (mapping, release.mapping), (splits, release.splits)):
        repeats = table.height - _once(table, path.name).height
        notes.add(f"identical repeats in {path.name}", repeats, "rows", "one of each is kept")
    mapping, splits = _once(mapping, where), _once(splits, release.splits.name)
    _check_whole({release.labels.name: labels, where: mapping, release.splits.name: splits}, notes, partial=partial)
    mapping = mapping.with_columns(_persons(mapping, where), volume_name("volume"))
    splits = splits.with_columns(_persons(splits, release.splits.name))
    mapping = _with_time(mapping, where)
    joined = mapping.join(splits.select("study_id", split_person="person_id"), on="study_id", how="left")
    disagreeing = joined.filter(pl.col("person_id") != pl.col("split_person"))
    if disagreeing.height:
        rows = starting_with_rows(disagreeing.get_column("row").to_list())
        raise CohortError(
            f"{rows}: person_id differs from {release.splits.name} ({disagreeing.height} studies).",
            where=where,
            fix="These tables are of different releases: download both again.",
        )
    columns = ("study_id", "person_id", "volume", "time", "time_source", "provenance")
    return labels.join(mapping.select(columns), on="study_id", how="left", maintain_order="left").join(
        splits.select("study_id", "split"), on="study_id", how="left", maintain_order="left"
    )


def _read_master(release: Release, tasks: Sequence[Column]) -> pl.DataFrame:
    where = release.labels.name
    columns = [replace(_STUDY, name="impression", needed=False), _PERSON, _OLD_TIME, _SPLIT, *tasks, OTHER_PE]
    rows = _rows_of(release.labels, columns)
    rows = rows.with_columns(_persons(rows, where), note=pl.lit(None, pl.String), provenance=pl.lit(None, pl.String))
    # the volume name contains the time as written: 831469698_2129-09-04_01_46_00
    volume = pl.concat_str(
        pl.col("person_id").cast(pl.String), pl.col("procedure").str.replace_all(r"[:T ]", "_"), separator="_"
    )
    rows = rows.with_columns(volume=volume).with_columns(study_id=pl.coalesce(id_text("impression"), pl.col("volume")))
    _refuse(rows.filter(pl.col("study_id").is_null()), "no patient or time", where)
    _once(rows.drop("impression"), where)
    return _with_time(rows, where).drop("impression")


def _keyed(path: Path, columns: Sequence[Column]) -> pl.DataFrame:
    """Return the rows of a table with row numbers and with `study_id` as text."""
    rows = _rows_of(path, columns).with_columns(id_text("study_id"))
    _refuse(rows.filter(pl.col("study_id").is_null()), "no impression_id", path.name)
    return rows


def _check_whole(tables: Mapping[str, pl.DataFrame], notes: Notes, *, partial: bool) -> None:
    """Count studies listed in one table and missing in another. A few are noted; many are an error (truncated file)."""
    ids = {name: frame.select("study_id").unique() for name, frame in tables.items()}
    every = pl.concat(ids.values()).unique()
    for name, own in ids.items():
        lacking = every.height - own.height
        notes.add(f"listed elsewhere, not in {name}", lacking, "studies", "left out")
        if lacking > max(_LACKING_FROM, _LACKING_UPTO * every.height) and not partial:
            raise CohortError(
                f"lists {own.height:,} studies and lacks {lacking:,} that the other tables list; it may be truncated.",
                where=name,
                fix="Download it again. To audit a part of the release, set `cohort: partial: true`.",
            )


def _rows_of(path: Path, columns: Sequence[Column]) -> pl.DataFrame:
    """Return the rows of a table with row numbers. Refuse truncated rows, because their labels would be read as censored."""
    rows = collected(scan_table(path, columns, rows=True), where=path.name)
    ragged = rows_of_other_width(path)
    if ragged:
        raise CohortError(
            f"{starting_with_rows(ragged)}: fewer or more cells than the header.",
            where=path.name,
            fix="It may be truncated: download it again.",
        )
    return rows


def _once(rows: pl.DataFrame, where: str) -> pl.DataFrame:
    """Return each study once. Repeats must be identical in every column that is read."""
    distinct = rows.unique(subset=[name for name in rows.columns if name != "row"], keep="first", maintain_order=True)
    conflicting = distinct.filter(pl.col("study_id").is_duplicated())
    _refuse(conflicting, "a study is listed more than once, with different content", where)
    return distinct


def _persons(rows: pl.DataFrame, where: str) -> pl.Expr:
    """Return an expression of `person_id` as an integer, after a check that every cell is an integer or blank."""
    bad = rows.filter(id_text("person_id").is_not_null() & whole_number("person_id").is_null())
    _refuse(bad, "a person_id that is not a whole number", where)
    return whole_number("person_id")


def _with_time(rows: pl.DataFrame, where: str) -> pl.DataFrame:
    """Add `time` of the order, else of the note, and its `time_source`."""
    for name in ("procedure", "note"):
        if rows.schema[name] == pl.String:
            bad = rows.filter(pl.col(name).is_not_null() & moment(name).is_null())
            _refuse(bad, f"a {name} time that is not a date", where)
    rows = rows.with_columns(clock(name, rows.schema, where=where).alias(name) for name in ("procedure", "note"))
    source = (
        pl.when(pl.col("procedure").is_not_null())
        .then(pl.lit("procedure"))
        .when(pl.col("note").is_not_null())
        .then(pl.lit("note"))
        .otherwise(pl.lit("none"))
    )
    return rows.with_columns(time=pl.coalesce("procedure", "note"), time_source=source).drop("procedure", "note")


def _with_series(listed: pl.DataFrame, release: Release, notes: Notes) -> pl.DataFrame:
    """Add rescale and size of each volume from the series with most slices, because the first row may be a localizer."""
    names = {
        "n": ("num_slices",),
        "rescale_slope": ("RescaleSlope",),
        "rescale_intercept": ("RescaleIntercept",),
        "listed_thickness_mm": ("SliceThickness",),
    }
    if release.series is None:
        nothing = {name: pl.lit(None, pl.Float64) for name in list(names)[1:]}
        return listed.with_columns(listed_slices=pl.lit(None, pl.Int64), **nothing)
    columns = [_IMAGE, *(Column(name, theirs, needed=name == "n") for name, theirs in names.items())]
    rows = collected(scan_table(release.series, columns, rows=True), where=release.series.name)
    rows = rows.with_columns(
        volume_name("volume"),
        *(_number(name) for name in names),
    )
    largest = rows.sort("n", "row", descending=[True, False], nulls_last=True).unique(
        "volume", keep="first", maintain_order=True
    )
    first = rows.unique("volume", keep="first", maintain_order=True).select("volume", first="n")
    smaller = largest.join(first, on="volume").filter(pl.col("first") < pl.col("n"))
    notes.add(
        "first series is not the largest", smaller.height, "volumes", "the largest is taken: a localizer may lead"
    )
    kept = largest.select("volume", *list(names)[1:], listed_slices=pl.col("n").cast(pl.Int64))
    return listed.join(kept, on="volume", how="left", maintain_order="left")


def _number(column: str) -> pl.Expr:
    """Return a cell as Float64, NULL if it is not a finite number."""
    number = pl.col(column).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number).alias(column)


def _with_descriptions(listed: pl.DataFrame, release: Release) -> pl.DataFrame:
    """Add whether the description of a study contains the word contrast, with or without; NULL without a description."""
    if release.descriptions is None:
        return listed.with_columns(contrast_mentioned=pl.lit(None, pl.Boolean))
    columns = [_STUDY, Column("description", ("StudyDescription",))]
    rows = collected(scan_table(release.descriptions, columns), where=release.descriptions.name)
    found = rows.group_by(id_text("study_id")).agg(
        contrast_mentioned=pl.col("description").str.contains(_CONTRAST).any(ignore_nulls=True),
        any_description=pl.col("description").is_not_null().any(),
    )
    found = found.select("study_id", pl.when("any_description").then("contrast_mentioned").alias("contrast_mentioned"))
    return listed.join(found, on="study_id", how="left", maintain_order="left")


def _check_splits(listed: pl.DataFrame, where: str) -> None:
    words = listed.get_column("split").drop_nulls()
    bad = words.filter(~words.str.to_lowercase().is_in(list(_SPLIT_WORDS)))
    if len(bad):
        shown = ", ".join(repr(word[:_SHOWN_CHARACTERS]) for word in bad.unique().sort().head(3))
        raise CohortError(
            f"{shown} is not a valid split ({len(bad)} rows); the splits are {', '.join(SPLITS)}.", where=where
        )
    apart = listed.filter(split_of().drop_nulls().n_unique().over("person_id") > 1).drop_nulls("person_id")
    if apart.height:
        patients = apart.get_column("person_id").n_unique()
        raise CohortError(
            f"{patients} patient{'s are' if patients > 1 else ' is'} in more than one split ({apart.height} studies), which "
            "inflates every score.",
            where=where,
            fix="The release's splits are by patient: download the file again.",
        )


def volume_name(column: str) -> pl.Expr:
    """Return the name of a volume without the file suffix that some tables include."""
    return pl.col(column).cast(pl.String).str.strip_chars().str.replace(r"(?i)\.nii(\.gz)?$", "")


def split_of() -> pl.Expr:
    """Return the split named by a word. `valid` in the release is `val`."""
    return pl.col("split").str.to_lowercase().replace_strict(_SPLIT_WORDS, default=None, return_dtype=pl.String)


def _refuse(bad: pl.DataFrame, problem: str, where: str) -> None:
    if bad.height:
        rows = starting_with_rows(bad.get_column("row").to_list())
        raise CohortError(f"{rows}: {problem}.", where=where, fix="Download the file again, or correct these rows.")

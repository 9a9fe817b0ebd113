"""Predictions computed elsewhere, audited as a model: read, joined to the cohort's studies, checked against its labels.

Layouts, CSV or Parquet, recognised by their columns:

- fmaudit's own: `study_id`, `y_score`, and `task` if there are several; studies outside the cohort are counted.
- INSPECT's (`<task>_pred_proba.csv`): `patient_id, procedure_time, label, prob`. Since April 2025 both ids are the image's; its
  record models give the time of PE a day early. The join that finds more than 95 % of the rows is used.

Pickle files are never opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.cohort.inspect_release.labels import boolean
from fmaudit_core.cohort.inspect_release.release_tables import volume_name
from fmaudit_core.common.vocabulary import DIAGNOSIS_TASK
from fmaudit_core.encoders.checksums import sha256_of
from fmaudit_core.encoders.errors import PredictionsFileError
from fmaudit_core.encoders.pooling import GIVEN
from fmaudit_core.encoders.spec import PredictionsFile
from fmaudit_core.tables.probes import BASELINE_JOINS
from fmaudit_core.tabular.errors import CohortError, starting_with_rows
from fmaudit_core.tabular.scan import (
    Column,
    collected,
    id_text,
    is_table,
    moment,
    rows_of_other_width,
    scan_header,
    scan_table,
)
from fmaudit_core.tabular.text_check import check_text
from fmaudit_core.tabular.words import trimmed

#: minimum share of a file's rows that a join must find
FOUND_FROM: Final = 0.95
#: maximum share of labels that may differ from the cohort's; above it, the file is taken for another task or cohort
APART_UPTO: Final = 0.05
#: columns of the study table used in joins
JOINED_BY: Final = ("study_id", "patient_id", "split", "image_path", "time")

_STUDY: Final = Column("study", ("study_id",))
_PATIENT: Final = Column("patient", ("patient_id", "person_id", "PatientID", "patient"))
_TIME: Final = Column("time", ("procedure_time", "procedure_DATETIME", "StudyTime", "time"))
_SCORE: Final = Column("score", ("y_score", "prob", "score", "probability"))
_LABEL: Final = Column("label", ("label", "y_true"), needed=False)
_TASK: Final = Column("task", ("task",), needed=False)

_BY_STUDY: Final = "study_id"
_BY_IMAGE: Final = "image_id"
_BY_TIME: Final = "patient and time"
_BY_DAY_BEFORE: Final = "patient and time, a day early"


@dataclass(frozen=True)
class BaselineScores:
    """A baseline's scores for one task.

    Parameters
    ----------
    scores : frame
        Rows in the layout of `probes.selection`, for val and test studies with a known label; probe, modality and pooling are
        `given`.
    join : frame of `BASELINE_JOINS`, one row
        `threshold` is `validation` where an operating threshold can be chosen, else `none`.
    """

    scores: pl.DataFrame
    join: pl.DataFrame

    @property
    def has_threshold(self) -> bool:
        """Return whether validation studies of both classes are scored, so that a threshold can be chosen on them."""
        return bool(self.join.get_column("threshold").item() == "validation")


def baseline_scores(
    file: PredictionsFile, studies: pl.DataFrame, labels: pl.DataFrame, *, baseline: str
) -> BaselineScores:
    """Read one file of predictions and join it to the cohort.

    Parameters
    ----------
    studies, labels : frames
        The cohort's. Of `studies` the columns `JOINED_BY` are used; the last two are optional.
    baseline : str
        Name of the baseline, recorded as `encoder`.

    Raises
    ------
    PredictionsFileError
        The file is missing, has another checksum, or cannot be read; a column is missing; a score is repeated or not a number;
        too few studies are found; the labels differ; test has one class only. Messages give row numbers, never patient ids.
    """
    where = file.path.name
    rows = read_rows(file)
    found, by = _joined(rows, studies, file.task, where)
    _refuse_repeats(found.filter(pl.col("study_id").is_not_null() & pl.col("study_id").is_duplicated()), where)
    own = labels.filter(pl.col("task") == file.task).select("study_id", y_true="label")
    known = studies.select("study_id", "patient_id", pl.col("split").cast(pl.String)).join(
        own, on="study_id", how="left"
    )
    matched = found.drop_nulls("study_id").join(known, on="study_id", how="inner").sort("study_id")
    n_labels, n_apart = _compared_labels(matched, where)
    audited = matched.filter(pl.col("split") != "train")
    scored = audited.filter(pl.col("y_true").is_not_null())
    _check_classes(scored, where)
    expected = known.filter((pl.col("split") != "train") & pl.col("y_true").is_not_null())
    validated = scored.filter(split="val").get_column("y_true").n_unique() == 2
    join = {
        "encoder": baseline, "task": file.task, "joined_by": by, "threshold": "validation" if validated else "none",
        "n_rows": rows.height, "n_missed": rows.height - matched.height, "n_train": matched.height - audited.height,
        "n_unlabelled": audited.height - scored.height, "n_scored": scored.height,
        "n_unscored": expected.join(scored, on="study_id", how="anti").height,
        "n_labels": n_labels, "n_labels_apart": n_apart,
    }  # fmt: skip
    named = {"encoder": baseline, "task": file.task, "probe": GIVEN, "modality": GIVEN, "pooling": GIVEN}
    scores = scored.select(
        *(pl.lit(value).alias(name) for name, value in named.items()),
        pl.lit("none").alias("strategy"),
        "study_id", "patient_id", "split", "y_true", y_score="score",
    )  # fmt: skip
    return BaselineScores(scores, BASELINE_JOINS.frame([join]))


def read_rows(file: PredictionsFile) -> pl.DataFrame:
    """Return the rows of one file for its task.

    Returns
    -------
    Frame of `row` (row number as shown to a user), `study` or else `patient` and `time` as text, `score`, `label` (NULL: unknown)

    Raises
    ------
    PredictionsFileError
        See `baseline_scores`.
    """
    path, where = file.located(), file.path.name
    if not is_table(path):
        raise PredictionsFileError(
            f"predictions are read from CSV or Parquet, not from `{path.suffix or 'a file without a suffix'}`.", where=where,
            fix="A pickle is never opened: it may run code. Write its rows as CSV: patient_id, procedure_time, label, prob.",
        )  # fmt: skip
    if (sha256 := sha256_of(path)) != file.sha256:
        raise PredictionsFileError(
            f"is not the file named in the spec: its sha256 is {sha256}, not {file.sha256}.", where=where,
            fix="Get the right file, or add the baseline again if its predictions changed on purpose.",
        )  # fmt: skip
    try:
        check_text(path)
        longer = rows_of_other_width(path, longer=True)
    except CohortError as error:
        raise PredictionsFileError(error.what, where=where, fix=error.fix) from error
    if longer:
        raise PredictionsFileError(f"{starting_with_rows(longer)}: more cells than the header's.", where=where)
    try:
        header = {trimmed(name).lower() for name in scan_header(path)}
        ids = [_STUDY] if "study_id" in header else [_PATIENT, _TIME]
        wanted = [*ids, _SCORE, _LABEL, _TASK]
        rows = collected(scan_table(path, wanted, rows=True), where=where)
    except CohortError as error:
        raise PredictionsFileError(
            error.what, where=where,
            fix="Give study_id and y_score (and task), or INSPECT's columns: patient_id, procedure_time, label, prob.",
        ) from error  # fmt: skip
    if "task" in header:
        rows = rows.filter(pl.col("task").cast(pl.String) == file.task)
    rows = rows.with_columns(
        *(pl.col(one.name).cast(pl.String) for one in ids),
        label=boolean("label"),
        score=pl.col("score").cast(pl.Float64, strict=False),
    ).drop("task")
    if rows.is_empty():
        raise PredictionsFileError(f"has no rows for the task {file.task}.", where=where)
    bad = rows.filter(pl.col("score").is_null() | ~pl.col("score").is_finite())
    if bad.height:
        raise PredictionsFileError(f"{_rows(bad)}: the score is not a number.", where=where)
    names = [one.name for one in ids]
    blank = rows.filter(pl.any_horizontal(pl.col(name).is_null() for name in names))
    if blank.height:
        raise PredictionsFileError(f"{_rows(blank)}: no id.", where=where)
    _refuse_repeats(rows.filter(pl.struct(names).is_duplicated()), where)
    return rows


def _joined(rows: pl.DataFrame, studies: pl.DataFrame, task: str, where: str) -> tuple[pl.DataFrame, str]:
    """Return the rows with the `study_id` found by the best join (NULL if not found), and the name of that join."""
    if "study" in rows.columns:
        ways: Mapping[str, pl.DataFrame] = {_BY_STUDY: _by_study(rows, studies)}
    else:
        ways = _by_release(rows, studies, task)
    hits = {name: len(found) - found.get_column("study_id").null_count() for name, found in ways.items()}
    best = max(hits, key=lambda name: hits[name])
    if best == _BY_STUDY and not hits[best]:
        raise PredictionsFileError(
            f"none of its {rows.height} studies is among the cohort's {studies.height} studies.", where=where,
            fix="Write the ids exactly as in the cohort's study_id.",
        )  # fmt: skip
    if best != _BY_STUDY and hits[best] <= FOUND_FROM * rows.height:
        counts = ", ".join(f"{n} by {name}" for name, n in hits.items())
        raise PredictionsFileError(
            f"too few of its {rows.height} rows are studies of this cohort ({counts}; more than {FOUND_FROM:.0%} are "
            "required).",
            where=where, fix="Check that it belongs to this release, or give study_id and y_score if its ids differ.",
        )  # fmt: skip
    return ways[best], best


def _by_study(rows: pl.DataFrame, studies: pl.DataFrame) -> pl.DataFrame:
    """Join by the id as written; for rows not found, ignore the ``.0`` that a float column appends on either side."""
    there = studies.select("study_id", study="study_id")
    found = rows.join(there, on="study", how="left", maintain_order="left")
    bare = there.select(id_text("study"), plain="study_id").filter(pl.col("study").is_unique())
    looked_up = found.with_columns(id_text("study")).join(bare, on="study", how="left", maintain_order="left")
    return looked_up.with_columns(pl.coalesce("study_id", "plain").alias("study_id")).drop("plain")


def _by_release(rows: pl.DataFrame, studies: pl.DataFrame, task: str) -> dict[str, pl.DataFrame]:
    """Join rows by the image's name, by patient and time, and for PE by patient and a time one day early."""
    images = studies.drop_nulls("image_path").select(
        "study_id", image=pl.col("image_path").str.split("/").list.last().str.replace(r"(?i)\.nii(\.gz)?$", "")
    )
    ways = {_BY_IMAGE: _looked_up(rows.with_columns(image=volume_name("patient")), images, ["image"])}
    if "time" in studies.columns:
        timed = studies.drop_nulls("time").select("study_id", id_text("patient_id"), at=_second(pl.col("time")))
        keyed = rows.with_columns(patient_id=id_text("patient"), at=_second(moment("time")))
        ways[_BY_TIME] = _looked_up(keyed, timed, ["patient_id", "at"])
        if task == DIAGNOSIS_TASK:
            later = keyed.with_columns(pl.col("at") + pl.duration(days=1))
            ways[_BY_DAY_BEFORE] = _looked_up(later, timed, ["patient_id", "at"])
    return ways


def _looked_up(rows: pl.DataFrame, keys: pl.DataFrame, on: Sequence[str]) -> pl.DataFrame:
    """Join rows to the study of their key; a key that several studies share finds none."""
    single = keys.filter(pl.struct(on).is_unique())
    return rows.join(single, on=list(on), how="left", maintain_order="left").drop("patient_id", strict=False)


def _second(time: pl.Expr) -> pl.Expr:
    return time.cast(pl.Datetime("us")).dt.truncate("1s")


def _compared_labels(matched: pl.DataFrame, where: str) -> tuple[int, int]:
    """Return the number of labels known in both sources, and the number that differ."""
    both = matched.filter(pl.col("label").is_not_null() & pl.col("y_true").is_not_null())
    apart = both.filter(pl.col("label") != pl.col("y_true"))
    if apart.height > APART_UPTO * both.height:
        raise PredictionsFileError(
            f"{apart.height} of {both.height} labels differ from this cohort's: it may belong to another task or "
            "release.",
            where=where, fix="Name the right task with --task, or remove the label column if the labels are known to "
                             "differ.",
        )  # fmt: skip
    return both.height, apart.height


def _check_classes(scored: pl.DataFrame, where: str) -> None:
    test = scored.filter(split="test").get_column("y_true")
    if test.n_unique() < 2:
        raise PredictionsFileError(
            f"it scores {int(test.sum())} positives and {int((~test).sum())} negatives in the test split; both are "
            "needed.",
            where=where,
        )
    if scored.get_column("score").n_unique() == 1:
        raise PredictionsFileError("every study has the same score.", where=where)


def _refuse_repeats(repeated: pl.DataFrame, where: str) -> None:
    if repeated.height:
        raise PredictionsFileError(f"{_rows(repeated)}: a study is scored more than once.", where=where)


def _rows(frame: pl.DataFrame) -> str:
    return starting_with_rows(frame.get_column("row").to_list())


def tasks_in(path: Path) -> list[str]:
    """Return the tasks named in a file's `task` column, sorted; empty if there is no such column.

    Raises
    ------
    PredictionsFileError
        The table cannot be read.
    """
    if not is_table(path):
        return []
    try:
        if "task" not in {trimmed(name).lower() for name in scan_header(path)}:
            return []
        rows = collected(scan_table(path, [_TASK]), where=path.name)
    except CohortError as error:
        raise PredictionsFileError(error.what, where=path.name) from error
    return rows.get_column("task").cast(pl.String).drop_nulls().unique().sort().to_list()

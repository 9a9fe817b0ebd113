"""Checks and counts of known and censored outcomes, used by every reader after it has read studies and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import SPLITS
from fmaudit_core.tables.cohort import LABEL_FLOW
from fmaudit_core.tabular.errors import CohortError

#: `attribute` and `subgroup` of the rows of `label_flow` for all studies
EVERYBODY: Final = "all"
#: prefix of the steps of `cohort_flow` that count studies with a known outcome
OUTCOME_KNOWN: Final = "outcome known"


def check_classes(studies: pl.DataFrame, labels: pl.DataFrame, tasks: Sequence[str], where: str) -> None:
    """Check that every task has a positive and a negative in every split. Fitting, selection and audit need both.

    Raises
    ------
    CohortError
        The message names each task, split and missing class.
    """
    known = labels.drop_nulls("label").join(studies.select("study_id", "split"), on="study_id")
    counts = {
        (task, split): (positive, negative)
        for task, split, positive, negative in known.group_by("task", "split")
        .agg(positive=pl.col("label").sum(), negative=(~pl.col("label")).sum())
        .iter_rows()
    }
    lacking = []
    for task in tasks:
        for split in SPLITS:
            positive, negative = counts.get((task, split), (0, 0))
            if not positive or not negative:
                lack = " and ".join(name for name, n in (("positive", positive), ("negative", negative)) if not n)
                lacking.append(f"task {task} has no {lack} in {split}")
    if lacking:
        raise CohortError(
            "; ".join(lacking) + ".", where=where, fix="Remove the task from `tasks:`, or change the splits."
        )


def flow_of(steps: Sequence[tuple[str, pl.DataFrame]], labels: pl.DataFrame, tasks: Sequence[str]) -> pl.DataFrame:
    """Count studies and patients after each step, then those of the last step with a known outcome, for each task.

    Parameters
    ----------
    steps : sequence of (step, frame with `study_id` and `patient_id`)
    labels : frame of `LABELS`

    Returns
    -------
    frame of `COHORT_FLOW`
    """
    kept = steps[-1][1]
    counted = list(steps)
    for task in tasks:
        known = labels.filter((pl.col("task") == task) & pl.col("label").is_not_null())
        counted.append((f"{OUTCOME_KNOWN}: {task}", kept.join(known, on="study_id", how="semi")))
    return pl.DataFrame(
        [(step, frame.height, frame.get_column("patient_id").drop_nulls().n_unique()) for step, frame in counted],
        schema={"step": pl.String, "n_studies": pl.Int64, "n_patients": pl.Int64},
        orient="row",
    )


def label_flow(studies: pl.DataFrame, labels: pl.DataFrame, attributes: Sequence[str]) -> pl.DataFrame:
    """Count the studies of each subgroup with a known and with a censored outcome, per task and split.

    Censoring differs between subgroups. Patients who die early are censored for outcomes that require survival, so some subgroups
    lose more studies than others.

    Returns
    -------
    frame of `LABEL_FLOW`, sorted; `attribute` and `subgroup` are `all` in the rows for all studies
    """
    joined = labels.join(studies.select("study_id", "patient_id", "split", *attributes), on="study_id")
    label = pl.col("label")
    frames = []
    for attribute in (None, *attributes):
        level = pl.lit(EVERYBODY) if attribute is None else pl.col(attribute)
        rows = joined.group_by("task", pl.col("split").cast(pl.String), level.alias("subgroup")).agg(
            n_studies=pl.len(),
            n_patients=pl.col("patient_id").n_unique(),
            n_positive=label.sum(),
            n_negative=(~label).sum(),
            n_censored=label.null_count(),
        )
        frames.append(rows.with_columns(attribute=pl.lit(attribute or EVERYBODY)))
    return (
        pl.concat(frames)
        .select(pl.col(name).cast(dtype) for name, dtype in LABEL_FLOW.schema.items())
        .sort("task", "split", "attribute", "subgroup")
    )

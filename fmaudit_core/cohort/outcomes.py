"""Which outcomes are known, and of whom: what every reader checks and counts once studies and labels stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import SPLITS
from fmaudit_core.tables.cohort import LABEL_FLOW
from fmaudit_core.tabular.errors import CohortError

#: a row of `label_flow` that is about all studies carries this in `attribute` and `subgroup`
EVERYBODY: Final = "all"
#: a step of `cohort_flow` that tells of whom an outcome is known
OUTCOME_KNOWN: Final = "outcome known"


def check_classes(studies: pl.DataFrame, labels: pl.DataFrame, tasks: Sequence[str], where: str) -> None:
    """Every task needs a positive and a negative in every split, else nothing can be fitted, chosen or audited.

    Raises
    ------
    CohortError
        Naming each task, split and class that lacks.
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
            "; ".join(lacking) + ".", where=where, fix="Leave the task out under `tasks:`, or give other splits."
        )


def flow_of(steps: Sequence[tuple[str, pl.DataFrame]], labels: pl.DataFrame, tasks: Sequence[str]) -> pl.DataFrame:
    """Studies and patients left after each step, then of the last step those whose outcome is known, task by task.

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
    """How many studies of each subgroup have a known outcome and how many are censored, per task and split.

    Censoring is not even: who dies early is censored for what death prevents, so a subgroup may lose more studies than another.

    Returns
    -------
    frame of `LABEL_FLOW`, sorted; `attribute` and `subgroup` are `all` where every study counts
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

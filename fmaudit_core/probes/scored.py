"""Score sets that were fitted elsewhere, as rows of `probe_predictions`: whatever the model, whatever it read."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl


def score_sets(
    tables: Sequence[pl.DataFrame], studies: pl.DataFrame, labels: pl.DataFrame, *, task: str
) -> pl.DataFrame:
    """Scores of one task from tables of fits, with the labels of validation and test.

    Parameters
    ----------
    tables : frames with `encoder, task, probe, modality, pooling, study_id, y_score`
        A row per score set and study; studies whose label is unknown are left out.

    Returns
    -------
    Frame of `encoder, task, probe, modality, pooling, strategy, study_id, patient_id, split, y_true, y_score`
    """
    known = (
        labels.filter((pl.col("task") == task) & pl.col("label").is_not_null())
        .select("study_id", y_true="label")
        .join(studies.filter(pl.col("split") != "train").select("study_id", "patient_id", "split"), on="study_id")
    )
    named = ("encoder", "task", "probe", "modality", "pooling")
    schema = {
        **dict.fromkeys((*named, "strategy", "study_id", "patient_id", "split"), pl.String),
        "y_true": pl.Boolean,
        "y_score": pl.Float64,
    }
    parts = [
        table.filter(pl.col("task") == task)
        .join(known, on="study_id")
        .select(*named, pl.lit("none").alias("strategy"), "study_id", "patient_id", "split", "y_true", "y_score")
        for table in tables
    ]
    return pl.concat([pl.DataFrame(schema=schema), *parts]).sort(*named, "study_id")

"""The primary score set of an encoder: the logistic probe on CT in the primary pooling. All others are secondary."""

from __future__ import annotations

from typing import Final

import polars as pl

from fmaudit_core.encoders.pooling import GIVEN

#: the probe and the modality of the primary findings
PRIMARY_PROBE: Final = "logistic"
PRIMARY_MODALITY: Final = "ct"


def is_logistic_on_ct() -> pl.Expr:
    """Return an expression: whether a score set comes from logistic regression on CT alone."""
    return (pl.col("probe") == PRIMARY_PROBE) & (pl.col("modality") == PRIMARY_MODALITY)


def is_primary_probe() -> pl.Expr:
    """Return an expression: whether a score set comes from the primary probe, or from a baseline, which has only one."""
    return is_logistic_on_ct() | (pl.col("probe") == GIVEN)


def of_primary_probe(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the primary probe in every pooling: logistic regression on CT alone, or a baseline's own."""
    return frame.filter(is_primary_probe())


def of_primary_pooling(frame: pl.DataFrame, primary: str) -> pl.DataFrame:
    """Return each encoder's primary rows; for an encoder without a logistic probe on CT, the rows of all its probes.

    Predictions made elsewhere may name any probe, or none. An encoder of whole volumes, or one whose embeddings were computed
    elsewhere, has a single pooling of its own. Score sets other than the logistic probe on CT are never primary if that probe
    exists.
    """
    of_probe = is_logistic_on_ct()
    frame = frame.filter(of_probe | ~of_probe.any().over("encoder"))
    is_primary = pl.col("pooling") == primary
    return frame.filter(is_primary | ~is_primary.any().over("encoder"))


def of_primary_score_set(frame: pl.DataFrame, primary: str) -> pl.DataFrame:
    """Return each encoder's primary score set in an audit: its primary probe, in the primary pooling if available.

    Unlike `of_primary_pooling`, no rows are returned for an encoder that has other probes only.
    """
    return of_primary_pooling(of_primary_probe(frame), primary)

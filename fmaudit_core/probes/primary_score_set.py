"""Which score set speaks for an encoder: that of the logistic probe on CT in its primary pooling. All others are secondary."""

from __future__ import annotations

from typing import Final

import polars as pl

from fmaudit_core.encoders.pooling import GIVEN

#: the probe and the modality that the findings speak of
PRIMARY_PROBE: Final = "logistic"
PRIMARY_MODALITY: Final = "ct"


def is_logistic_on_ct() -> pl.Expr:
    """Whether a score set is of logistic regression on CT alone."""
    return (pl.col("probe") == PRIMARY_PROBE) & (pl.col("modality") == PRIMARY_MODALITY)


def is_primary_probe() -> pl.Expr:
    """Whether a score set is of the probe that the findings speak of, or a baseline's, which has one only."""
    return is_logistic_on_ct() | (pl.col("probe") == GIVEN)


def of_primary_probe(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of the probe that the findings speak of, in every pooling: logistic regression on CT alone; a baseline's own."""
    return frame.filter(is_primary_probe())


def of_primary_pooling(frame: pl.DataFrame, primary: str) -> pl.DataFrame:
    """Rows that speak for each encoder, whatever it is: of an encoder that has no logistic probe on CT, all of its probes.

    Predictions made elsewhere may name any probe, or none. An encoder of whole volumes, or one whose embeddings were computed
    elsewhere, has a single pooling of its own. Whatever else was scored beside the logistic probe on CT speaks for nobody.
    """
    of_probe = is_logistic_on_ct()
    frame = frame.filter(of_probe | ~of_probe.any().over("encoder"))
    is_primary = pl.col("pooling") == primary
    return frame.filter(is_primary | ~is_primary.any().over("encoder"))


def of_primary_score_set(frame: pl.DataFrame, primary: str) -> pl.DataFrame:
    """Rows that speak for each encoder of an audit: of its primary probe, in the primary pooling where it has that.

    Unlike `of_primary_pooling` nothing is left of an encoder that has other probes only.
    """
    return of_primary_pooling(of_primary_probe(frame), primary)

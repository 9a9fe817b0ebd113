"""Which score set speaks for an encoder."""

from __future__ import annotations

import polars as pl

from fmaudit_core.probes.primary_score_set import of_primary_pooling, of_primary_probe, of_primary_score_set

ROWS = [
    ("a", "logistic", "ct", "mean"),
    ("a", "logistic", "ct", "max"),
    ("a", "mlp", "ct", "mean"),
    ("a", "logistic", "ehr", "none"),
    ("a", "gbm", "ehr", "none"),
    ("v", "logistic", "ct", "volume"),
    ("v", "mlp", "ct", "volume"),
    ("given", "given", "given", "given"),
    ("named", "gbm", "ehr", "none"),
]
FRAME = pl.DataFrame(ROWS, schema=["encoder", "probe", "modality", "pooling"], orient="row")


def test_the_primary_probe_is_linear_on_ct_in_every_pooling_and_a_baselines_own():
    assert of_primary_probe(FRAME).rows() == [ROWS[0], ROWS[1], ROWS[5], ROWS[7]]


def test_a_row_speaks_for_its_encoder_whatever_else_was_scored():
    """A model that names another probe speaks for itself where anybody's predictions are assessed, never in an audit."""
    assert of_primary_pooling(FRAME, "mean").rows() == [ROWS[0], ROWS[5], ROWS[7], ROWS[8]]
    assert of_primary_score_set(FRAME, "mean").rows() == [ROWS[0], ROWS[5], ROWS[7]]


def test_the_primary_pooling_is_the_audits():
    assert of_primary_score_set(FRAME, "max").rows() == [ROWS[1], ROWS[5], ROWS[7]]

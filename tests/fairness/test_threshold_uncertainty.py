"""A threshold chosen on few validation patients is uncertain itself; on request the intervals say so."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.thresholds import choose_threshold, threshold_draws, with_thresholds
from tests.fairness.cohorts import predictions

FIXED = FairnessSection(n_permutations=99, n_bootstraps=200, intersection_depth=1)
CARRIED = FIXED.model_copy(update={"threshold_uncertainty": True})


def udr(frame, settings, **kwargs):
    found = assess(frame, attributes=("other",), settings=settings, **kwargs).subgroup_metrics
    return found.filter((pl.col("attribute") == "overall") & (pl.col("metric") == "udr")).row(0, named=True)


def test_it_widens_intervals_and_moves_no_value_and_no_p():
    frame = predictions(600)
    one, two = (assess(frame, attributes=("group", "other"), settings=each) for each in (FIXED, CARRIED))
    assert one.fairness_gaps.select("gap", "p_value").equals(two.fairness_gaps.select("gap", "p_value"))
    rates = pl.col("metric").is_in(["tpr", "fpr", "udr"]) & (pl.col("status") == "tested")
    narrow, wide = (each.subgroup_metrics.filter(rates) for each in (one, two))
    assert narrow.get_column("value").equals(wide.get_column("value"))
    assert (wide.get_column("se") > narrow.get_column("se")).all()
    assert (wide.get_column("ci_high") - wide.get_column("ci_low") > narrow["ci_high"] - narrow["ci_low"]).all()
    ranked = pl.col("metric") == "auroc"
    assert one.subgroup_metrics.filter(ranked).equals(two.subgroup_metrics.filter(ranked))


def test_a_threshold_that_was_given_is_not_uncertain():
    frame = predictions(300)
    assert udr(frame, FIXED, threshold=0.8) == udr(frame, CARRIED, threshold=0.8)


def test_the_same_seed_draws_the_same_thresholds_for_models_on_the_same_studies():
    frame = predictions(300)
    both = pl.concat([frame.with_columns(encoder=pl.lit(name)) for name in ("one", "two")])
    found = assess(both, attributes=("other",), settings=CARRIED).subgroup_metrics
    one, two = (found.filter(pl.col("encoder") == name).drop("encoder") for name in ("one", "two"))
    assert one.equals(two)


@pytest.mark.parametrize("policy", ["fixed_fpr", "fixed_sensitivity", "youden"])
def test_drawn_thresholds_are_those_of_the_policy_on_the_drawn_patients(policy):
    """Integer weights are copies: a draw equals the policy applied to the copied studies."""
    settings = CARRIED.model_copy(update={"threshold_policy": policy, "n_bootstraps": 100})
    frame = predictions(200).with_columns(pl.col("y_score").round(1))
    named = frame.with_columns(
        encoder=pl.lit("m"), task=pl.lit("t"), probe=pl.lit("p"), modality=pl.lit("ct"), pooling=pl.lit("mean"),
        strategy=pl.lit("none"),
    )  # fmt: skip
    (drawn,) = threshold_draws(named, settings).values()
    val = named.filter(pl.col("split") == "val")
    y, score = val["y_true"].to_numpy(), val["y_score"].to_numpy()
    assert set(drawn) <= {*score, np.nextafter(score.max(), np.inf)}
    assert len(np.unique(drawn)) > 1
    chosen = with_thresholds(named, settings)["threshold"][0]
    assert choose_threshold(y, score, settings) == chosen
    assert drawn.min() <= chosen <= drawn.max()
    twice = choose_threshold(np.tile(y, 2), np.tile(score, 2), settings)
    assert twice == chosen


def test_only_with_it_intervals_hold_the_rate_at_the_populations_threshold():
    """90 validation studies: the threshold's own error is a good part of the whole."""
    population = predictions(100_000, studies_per_patient=1.0, seed=999)
    y, score = population["y_true"].to_numpy(), population["y_score"].to_numpy()
    truth = (score[y] < choose_threshold(y, score, FIXED)).mean()
    held = {"fixed": 0, "carried": 0}
    n = 150
    for seed in range(n):
        frame = predictions(600, studies_per_patient=1.0, seed=seed)
        few = frame.filter(pl.col("split") == "val").head(90)
        frame = pl.concat([frame.filter(pl.col("split") == "test"), few])
        for told, settings in (("fixed", FIXED), ("carried", CARRIED)):
            row = udr(frame, settings)
            held[told] += row["ci_low"] <= truth <= row["ci_high"]
    assert 0.91 <= held["carried"] / n <= 0.99
    assert held["fixed"] / n < 0.88

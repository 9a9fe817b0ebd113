"""Aggregations against the mean: DeLong's numbers, patients paired, p adjusted per encoder and task, absence named."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.aggregation import spatial_aggregation
from fmaudit_core.fairness.multiplicity import holm
from fmaudit_core.fairness.paired import paired_auroc
from fmaudit_core.tables.findings import SPATIAL_AGGREGATION
from fmaudit_core.tables.probes import EQUAL_ATTENTION, PROBE_SEEDS

SETTINGS = FairnessSection()
#: score set -> how much of the truth it knows
SETS = {("logistic", "mean"): 0.8, ("logistic", "max"): 0.8, ("abmil", "attention"): 2.0, ("mlp", "mean"): 5.0}


def predictions(encoder="e", n=500, seed=0, task="pe", sets=SETS):
    rng = np.random.default_rng(seed)
    y, patient = rng.random(n) < 0.4, rng.integers(0, n // 2, n)
    common = rng.normal(size=n)
    return pl.concat(
        pl.DataFrame(
            {
                "encoder": encoder, "task": task, "probe": probe, "modality": "ct", "pooling": pooling, "strategy": "none",
                "study_id": [f"s{k}" for k in range(n)], "patient_id": [f"p{k}" for k in patient], "split": "test",
                "y_true": y, "y_score": common + skill * y + 0.5 * rng.normal(size=n), "threshold": 0.5,
            }
        )
        for (probe, pooling), skill in sets.items()
    )  # fmt: skip


def compared(test, *, alike=None, seeds=None, slices=None, equal=None):
    of = (
        {name: {f"s{k}": 90 + k % 21 for k in range(500)} for name in test["encoder"].unique()}
        if slices is None
        else slices
    )
    found = spatial_aggregation(
        test, SETTINGS, n_slices=of, alike=alike or {}, seeds=PROBE_SEEDS.frame() if seeds is None else seeds,
        equal=EQUAL_ATTENTION.frame() if equal is None else equal,
    )  # fmt: skip
    assert found.schema == SPATIAL_AGGREGATION.schema
    return found


def test_the_numbers_are_those_of_the_paired_clustered_delong_test():
    test = predictions()
    rows = compared(test)
    one, mean = test.filter(probe="abmil"), test.filter(probe="logistic", pooling="mean")
    pair = paired_auroc(
        one["y_true"].to_numpy(), one["y_score"].to_numpy(), mean["y_score"].to_numpy(),
        one["patient_id"].rank("dense").to_numpy(),
    )  # fmt: skip
    row = rows.row(by_predicate=pl.col("aggregation") == "attention", named=True)
    assert row["difference"] == pytest.approx(pair.difference)
    assert row["reference_auroc"] == pytest.approx(pair.second)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(pair.interval(0.95))
    assert row["p_value"] == pytest.approx(pair.p_value())
    assert row["n_slices"] == 100


def test_the_mean_is_the_reference_and_other_probes_of_it_are_no_aggregation():
    rows = compared(predictions())
    assert rows["aggregation"].to_list() == ["mean", "max", "median", "attention", "lrcn"]
    assert rows["status"].to_list() == ["reference", "tested", "not_scored", "tested", "not_scored"]
    mean = rows.row(0, named=True)
    assert mean["p_value"] is mean["difference"] is None
    assert mean["auroc"] < 0.85  # not the perceptron's


def test_p_is_adjusted_over_one_encoder_and_task():
    from statsmodels.stats.multitest import multipletests

    rows = compared(pl.concat([predictions(), predictions("f", seed=3), predictions(task="m", seed=4)]))
    for _, cell in rows.drop_nulls("p_value").group_by("encoder", "task"):
        p = cell["p_value"].to_numpy()
        assert cell["p_holm"].to_numpy() == pytest.approx(multipletests(p, method="holm")[1])
        assert cell["q_value"].to_numpy() == pytest.approx(multipletests(p, method="fdr_bh")[1])
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.04])
    assert holm(p)[[0, 2, 3, 4]] == pytest.approx(multipletests(p[[0, 2, 3, 4]], method="holm")[1])
    assert np.isnan(holm(p)[1])


def test_weights_share_the_error_of_holm_s_procedure():
    """By hand: p/w is .01, .03, .10; the smallest times all the weight, then what remains. Equal weights are no weights."""
    p, weights = np.array([0.06, np.nan, 0.01, 0.05]), np.array([2.0, 9.0, 1.0, 0.5])
    assert holm(p, weights)[[0, 2, 3]] == pytest.approx([0.075, 0.035, 0.075])
    assert holm(p, np.full(4, 3.0)) == pytest.approx(holm(p), nan_ok=True)


def test_another_view_of_the_same_weights_is_compared_by_its_mean():
    other = predictions("wide", sets={("logistic", "mean"): 3.0})
    rows = compared(pl.concat([predictions(), other]), alike={"e": ["wide"], "wide": ["e"]})
    window = rows.filter(comparison="window", encoder="e").row(0, named=True)
    back = rows.filter(comparison="window", encoder="wide").row(0, named=True)
    assert window["view_of"] == "wide"
    assert window["difference"] > 0.1
    assert window["p_value"] < 1e-4
    assert back["difference"] == pytest.approx(-window["difference"])


def test_no_slices_and_too_few_are_named():
    assert compared(predictions(), slices={})["status"].to_list() == ["no_slices"]
    few = compared(predictions().filter(pl.col("study_id").is_in([f"s{k}" for k in range(15)])))
    assert set(few["status"]) == {"suppressed", "not_scored"}
    assert few.select("n", "auroc", "difference", "n_slices").null_count().row(0) == (5,) * 4


def test_what_single_seeds_come_to_stands_beside_their_mean():
    seeds = pl.DataFrame(
        {"encoder": ["e"] * 4, "task": ["pe"] * 4, "probe": ["abmil"] * 4, "test_auroc": [0.7, 0.72, 0.8, None],
         "chosen": [True, True, False, False]}
    )  # fmt: skip
    row = compared(predictions(), seeds=pl.concat([PROBE_SEEDS.frame(), seeds], how="diagonal"))
    attended = row.row(by_predicate=pl.col("aggregation") == "attention", named=True)
    assert (attended["seeds"], attended["seed_mean"]) == (2, pytest.approx(0.71))
    assert attended["seed_sd"] == pytest.approx(np.std([0.7, 0.72], ddof=1))


def test_what_attention_gains_over_equal_weights_is_told_apart():
    """Of a network no better than its start, all of the gain over the mean lies elsewhere."""
    test = predictions()
    start = test.filter(probe="abmil").select(EQUAL_ATTENTION.schema.names())
    rows = compared(test, equal=start.with_columns(y_score=pl.col("y_score") + 1e-9 * pl.int_range(pl.len())))
    row = rows.row(by_predicate=pl.col("aggregation") == "attention", named=True)
    assert row["difference"] > 0.1
    assert row["equal_difference"] == pytest.approx(0, abs=1e-6)
    mean = test.filter(probe="logistic", pooling="mean").select(EQUAL_ATTENTION.schema.names())
    row = compared(test, equal=mean).row(by_predicate=pl.col("aggregation") == "attention", named=True)
    assert (row["equal_difference"], row["equal_p"]) == pytest.approx((row["difference"], row["p_value"]))
    assert rows.filter(pl.col("aggregation") != "attention")["equal_difference"].null_count() == rows.height - 1

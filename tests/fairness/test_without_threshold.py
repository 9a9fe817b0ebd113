"""Models without an operating threshold, and baselines: what can be told of them is told, the rest has a name."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.comparisons import model_comparisons
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.findings import findings
from fmaudit_core.fairness.predictions import evaluated
from tests.fairness.cohorts import predictions

FEW = FairnessSection(n_permutations=199)
ATTRIBUTES = ("group", "other")


@pytest.fixture(scope="module")
def frame():
    """An encoder with validation studies, and a baseline that was scored on test alone."""
    encoder = predictions(2400, seed=4).with_columns(encoder=pl.lit("encoder"), threshold=pl.lit(0.7))
    noise = np.random.default_rng(1).normal(0, 0.8, encoder.height)
    baseline = encoder.with_columns(
        encoder=pl.lit("baseline"), y_score=pl.col("y_score") + noise, threshold=pl.lit(None, pl.Float64)
    )
    return pl.concat([encoder, baseline.filter(split="test")])


@pytest.fixture(scope="module")
def found(frame):
    return assess(frame, attributes=ATTRIBUTES, settings=FEW, unvalidated=True)


def test_auroc_is_told_and_rates_have_no_number_and_no_count(frame, found):
    rows = found.subgroup_metrics.filter(encoder="baseline")
    auroc = rows.filter(metric="auroc")
    assert set(auroc["status"]) == {"tested"}
    for row in auroc.iter_rows(named=True):
        of = frame.filter(encoder="baseline")
        of = of if row["attribute"] == "overall" else of.filter(pl.col(row["attribute"]) == row["subgroup"])
        assert row["value"] == pytest.approx(roc_auc_score(of["y_true"], of["y_score"]), abs=1e-12)
    rates = rows.filter(pl.col("metric") != "auroc")
    assert set(rates["status"]) == {"no_threshold"}
    numbers = ["n", "n_pos", "n_neg", "value", "ci_low", "ci_high", "se", "mde", "threshold", "p_rest"]
    assert rates.select(numbers).null_count().row(0) == (rates.height,) * len(numbers)


def test_gaps_and_intersections_are_those_of_auroc_alone(found):
    gaps = found.fairness_gaps.filter(encoder="baseline")
    assert gaps.filter(metric="auroc")["gap"].null_count() == 0
    rates = gaps.filter(pl.col("metric") != "auroc")
    assert rates.select("gap", "p_value", "q_statistic").null_count().row(0) == (rates.height,) * 3
    assert set(rates["verdict"]) == {"insufficient_evidence"}
    crossed = found.intersections.filter(encoder="baseline")
    assert crossed.filter(metric="auroc")["rank"].null_count() < crossed.filter(metric="auroc").height
    assert crossed.filter(pl.col("metric") != "auroc")["rank"].drop_nulls().is_empty()


def test_the_other_model_is_told_as_if_it_were_alone(frame, found):
    alone = assess(frame.filter(encoder="encoder"), attributes=ATTRIBUTES, settings=FEW)
    for name in ("subgroup_metrics", "fairness_gaps", "intersections"):
        own = getattr(found, name).filter(encoder="encoder")
        numbers = [one for one in own.columns if one not in ("q_value", "p_adjusted", "verdict")]
        assert own.select(numbers).equals(getattr(alone, name).select(numbers)), name


def test_the_sweep_needs_no_threshold(found):
    assert set(found.threshold_sweep.filter(encoder="baseline")["attribute"]) == {"overall", *ATTRIBUTES}


def test_the_finding_says_why_there_is_none(frame, found):
    said = findings(
        pl.DataFrame(), found.fairness_gaps, found.subgroup_metrics, attributes=ATTRIBUTES, settings=FEW, titles={}
    )
    row = said.filter(encoder="baseline", attribute="group", metric="udr").row(0, named=True)
    assert "Its predictions hold no validation studies, so there is no operating threshold" in row["sentence"]
    assert not row["confirmatory"]


def test_unless_asked_for_a_missing_threshold_is_an_error(frame):
    with pytest.raises(FairnessError, match="no threshold can be chosen"):
        assess(frame, attributes=ATTRIBUTES, settings=FEW)
    bare = frame.drop("threshold").filter(encoder="baseline")
    with pytest.raises(FairnessError, match="no threshold can be chosen"):
        assess(bare, attributes=ATTRIBUTES, settings=FEW, unvalidated=True)


def test_the_model_and_the_task_that_get_no_threshold_are_named(frame):
    bare = frame.drop("threshold").filter(encoder="encoder").with_columns(task=pl.lit("pe"))
    rare = bare.with_columns(task=pl.lit("rare"), y_true=pl.col("y_true") & (pl.col("split") != "val"))
    with pytest.raises(FairnessError, match=r"^encoder x rare: no threshold can be chosen: .* leave the task out"):
        assess(pl.concat([bare, rare]), attributes=ATTRIBUTES, settings=FEW)


def test_in_a_pair_with_a_baseline_the_other_model_comes_first(frame):
    test = evaluated(frame, ATTRIBUTES, FEW, unvalidated=True).test
    rows = model_comparisons(test, ATTRIBUTES, FEW, baselines=("baseline",))
    assert rows.select("encoder", "other_encoder").unique().rows() == [("encoder", "baseline")]
    turned = model_comparisons(test, ATTRIBUTES, FEW)
    assert turned.select("encoder", "other_encoder").unique().rows() == [("baseline", "encoder")]
    on = ["attribute", "subgroup"]
    both = rows.filter(metric="auroc").join(turned.filter(metric="auroc"), on=on, suffix="_turned")
    assert both.height == 1 + 4 + 2
    assert np.allclose(both["difference"], -both["difference_turned"])
    assert np.allclose(both["p_value"], both["p_value_turned"])
    rates = rows.filter(pl.col("metric") != "auroc")
    assert set(rates["status"]) == {"no_threshold"}
    assert rates.select("n", "value", "difference", "verdict").null_count().row(0) == (rates.height,) * 4


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.0, "not_worse"), (1.2, "better"), (-1.2, "worse")], ids=["alike", "ahead", "behind"]
)
def test_each_subgroup_has_a_verdict_that_the_plant_deserves(gain, verdict):
    """The baseline is the encoder's score with the positives moved: more noise would cost AUROC in every subgroup."""
    own = predictions(4000, seed=9).with_columns(encoder=pl.lit("encoder"), threshold=pl.lit(0.7))
    moved = (
        own["y_score"].to_numpy()
        - gain * own["y_true"].to_numpy()
        + np.random.default_rng(2).normal(0, 0.02, own.height)
    )
    frame = pl.concat([own, own.with_columns(encoder=pl.lit("baseline"), y_score=pl.Series(moved))])
    test = evaluated(frame, ATTRIBUTES, FEW).test
    rows = model_comparisons(test, ATTRIBUTES, FEW, baselines=("baseline",)).filter(metric="auroc")
    assert set(rows["verdict"]) == {verdict}
    assert (rows["difference"] > 0).all() if gain > 0 else True


def test_too_few_to_tell_is_said_so():
    own = predictions(260, seed=3).with_columns(encoder=pl.lit("encoder"), threshold=pl.lit(0.7))
    noise = np.random.default_rng(8).normal(0, 1.0, own.height)
    other = own.with_columns(encoder=pl.lit("baseline"), y_score=pl.Series(noise) + pl.col("y_true"))
    test = evaluated(pl.concat([own, other]), ("group",), FEW).test
    rows = model_comparisons(test, ("group",), FEW, baselines=("baseline",)).filter(metric="auroc", attribute="group")
    untested = rows.filter(pl.col("status") != "tested")
    assert set(rows.filter(status="tested")["verdict"]) <= {"cannot_tell", "better"}
    assert untested["verdict"].null_count() == untested.height > 0

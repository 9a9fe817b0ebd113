"""Calibration per subgroup: slope, intercept and error against statsmodels and against what was planted."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.calibration import calibration
from tests.fairness.cohorts import predictions

FEW = FairnessSection(n_permutations=99)


def outcomes(n, seed, studies=1):
    """Probabilities and outcomes that follow them, by patient."""
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(-1, 1.2, n))
    return rng.random(n) < p, p, np.arange(n) // studies


def test_coefficients_and_clustered_errors_equal_statsmodels():
    y, p, patient = outcomes(800, 1, studies=3)
    score = expit(0.7 * logit(p) + 0.4)
    found = calibration(y, score, patient)
    groups = {"groups": patient, "use_correction": False}
    x = sm.add_constant(logit(score))
    both = sm.GLM(y, x, family=sm.families.Binomial()).fit(cov_type="cluster", cov_kwds=groups)
    ones = np.ones(len(y))
    large = sm.GLM(y, ones, family=sm.families.Binomial(), offset=logit(score)).fit(cov_type="cluster", cov_kwds=groups)
    k = len(np.unique(patient))
    small = np.sqrt(k / (k - 1))
    assert found.slope == pytest.approx(both.params[1], rel=1e-6)
    assert found.slope_se == pytest.approx(both.bse[1] * small, rel=1e-5)
    assert found.intercept == pytest.approx(large.params[0], rel=1e-6)
    assert found.intercept_se == pytest.approx(large.bse[0] * small, rel=1e-5)


def test_right_probabilities_are_called_right():
    found = [calibration(*outcomes(400, seed)) for seed in range(200)]
    for value, se, right in (("slope", "slope_se", 1.0), ("intercept", "intercept_se", 0.0)):
        covered = [abs(getattr(one, value) - right) <= 1.96 * getattr(one, se) for one in found]
        assert 0.90 <= np.mean(covered) <= 0.985
    errors, chance = [one.ece for one in found], [one.ece_by_chance for one in found]
    assert np.mean(errors) == pytest.approx(np.mean(chance), rel=0.1)


def test_what_is_planted_is_found():
    y, p, patient = outcomes(20_000, 3)
    too_extreme = calibration(y, expit(2 * logit(p)), patient)
    assert too_extreme.slope == pytest.approx(0.5, abs=0.05)
    too_low = calibration(y, expit(logit(p) - 1), patient)
    assert too_low.intercept == pytest.approx(1.0, abs=0.05)
    assert too_low.ece > 5 * too_low.ece_by_chance


def test_separated_classes_have_no_slope():
    y = np.arange(100) >= 50
    found = calibration(y, np.where(y, 0.9, 0.1), np.arange(100))
    assert found.slope is None
    assert found.ece == pytest.approx(0.08)  # one of five bins holds both classes


def as_probability(frame):
    return frame.with_columns(y_score=1 / (1 + (-pl.col("y_score") + 2).exp()))


def test_every_shown_subgroup_is_calibrated_and_no_small_one():
    frame = as_probability(predictions(900, shares=(0.55, 0.3, 0.12, 0.03), seed=2))
    found = assess(frame, attributes=["group"], settings=FEW).subgroup_calibration
    shown = found.filter(pl.col("status").is_in(["tested", "interval_only"]))
    assert shown.get_column("slope").null_count() == 0
    assert (shown.get_column("slope_low") < shown.get_column("slope")).all()
    hidden = found.filter(~pl.col("status").is_in(["tested", "interval_only"]))
    assert hidden.height
    assert hidden.select("n", "slope", "ece").null_count().row(0) == (hidden.height,) * 3


def test_scores_that_are_no_probabilities_are_said_to_be_none():
    found = assess(predictions(800, seed=2), attributes=["group"], settings=FEW).subgroup_calibration
    assert set(found.get_column("status")) == {"not_probability"}


def test_auroc_across_subgroups_is_that_of_positives_and_negatives_taken_from_each():
    frame = predictions(1_500, shift={"b": 1.0}, seed=5)
    found = assess(frame, attributes=["group"], settings=FEW).cross_group_auroc
    test = frame.filter(pl.col("split") == "test")
    positives = test.filter((pl.col("group") == "a") & pl.col("y_true")).get_column("y_score").to_numpy()
    negatives = test.filter((pl.col("group") == "b") & ~pl.col("y_true")).get_column("y_score").to_numpy()
    row = found.filter(positives_of="a", negatives_of="b").row(0, named=True)
    assert row["value"] == pytest.approx((positives[:, None] > negatives).mean(), abs=1e-12)
    assert row["ci_low"] < row["value"] < row["ci_high"]
    within = found.filter(positives_of="b", negatives_of="b").row(0, named=True)
    metrics = assess(frame, attributes=["group"], settings=FEW).subgroup_metrics
    of_b = metrics.filter(attribute="group", subgroup="b", metric="auroc").row(0, named=True)
    assert within["value"] == pytest.approx(of_b["value"], abs=1e-12)
    assert within["ci_low"] == pytest.approx(of_b["ci_low"], abs=1e-12)
    # the positives of b were lowered: they rank below the negatives of others more often than anybody's
    of_positives = found.filter(negatives_of="a").sort("value")
    assert of_positives.get_column("positives_of")[0] == "b"

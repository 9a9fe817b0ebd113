"""Calibration per subgroup: slope, intercept and error against statsmodels and against what was planted."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, logit
from statsmodels.stats.meta_analysis import combine_effects

from benchmarks.bench_calibration_tests import SCENARIOS, rejected
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.calibration import calibration
from fmaudit_core.fairness.calibration_fit import fit_slope
from fmaudit_core.fairness.calibration_tests import homogeneity
from tests.fairness.cohorts import predictions

FEW = FairnessSection(n_permutations=99)


def outcomes(n, seed, studies=1):
    """Probabilities and outcomes that follow them, by patient."""
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(-1, 1.2, n))
    return rng.random(n) < p, p, np.arange(n) // studies


def peers(y, log_odds, patient):
    """Slope and intercept with their errors by statsmodels, clustered, with its correction; on standardised scores."""
    scale = log_odds.std()
    clustered = {"cov_type": "cluster", "cov_kwds": {"groups": patient}, "maxiter": 1_000, "tol": 1e-14}
    x = sm.add_constant((log_odds - log_odds.mean()) / scale)
    both = sm.GLM(y, x, family=sm.families.Binomial()).fit(**clustered)
    large = sm.GLM(y, np.ones(len(y)), family=sm.families.Binomial(), offset=log_odds).fit(**clustered)
    return both.params[1] / scale, both.bse[1] / scale, large.params[0], large.bse[0]


_Z = np.random.default_rng(5).normal(size=900)
#: log odds of the score, and of the outcome
HARD = {
    "well behaved": (0.7 * _Z + 0.4, _Z),
    "tiny spread": (0.2 + 1e-6 * _Z, _Z),
    "probabilities at 0 and 1": (logit(np.clip(expit(14 * _Z), 1e-6, 1 - 1e-6)), _Z),
    "nearly all at the clip": (np.where(np.abs(_Z) > 0.2, 13.8 * np.sign(_Z), _Z), 0.3 * _Z),
    "rare outcome": (_Z - 1, 0.5 * _Z - 5),
    "frequent outcome": (_Z, _Z + 5),
    "far off": (_Z + 12, _Z - 3),
    "inverted": (-2 * _Z, _Z),
    "nearly separated": (_Z, 8 * _Z),
    "high scores with no positive": (3 * _Z + 4, -1.5 - 0.1 * _Z),
}


@pytest.mark.parametrize("case", HARD)
def test_coefficients_and_clustered_errors_equal_statsmodels(case):
    log_odds, of_outcome = HARD[case]
    rng = np.random.default_rng(1)
    patient = np.arange(900) // 3
    y = rng.random(900) < expit(of_outcome)
    found = calibration(y, expit(log_odds), patient)
    slope, slope_se, intercept, intercept_se = peers(y, logit(np.clip(expit(log_odds), 1e-6, 1 - 1e-6)), patient)
    assert found.slope == pytest.approx(slope, rel=1e-6)
    assert found.slope_se == pytest.approx(slope_se, rel=1e-5)
    assert found.intercept == pytest.approx(intercept, rel=1e-6, abs=1e-6)
    assert found.intercept_se == pytest.approx(intercept_se, rel=1e-5)


@st.composite
def outcomes_of_few_scores(draw):
    n = draw(st.integers(4, 40))
    y = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    y[0], y[1] = True, False
    scale = draw(st.sampled_from([1e-6, 1e-2, 1.0, 13.0]))
    return y, scale * np.array(
        draw(st.lists(st.sampled_from([-1.0, -0.3, 0.0, 1e-9, 0.2, 1.0]), min_size=n, max_size=n))
    )


@given(outcomes_of_few_scores())
def test_there_is_a_slope_exactly_where_no_cut_separates_the_classes(case):
    """Albert & Anderson 1984, by trying every cut; and what is found is a maximum: both score equations hold."""
    y, log_odds = case
    cuts = np.unique(log_odds)
    separated = any(
        (y[log_odds > cut] == up).all() and (y[log_odds < cut] != up).all() for cut in cuts for up in (True, False)
    ) or any(
        (y[log_odds >= cut] == up).all() and (y[log_odds < cut] != up).all() for cut in cuts for up in (True, False)
    )
    found = fit_slope(y, log_odds, np.arange(len(y)))
    assert (found is None) == separated
    if found is not None:
        spread = np.ptp(log_odds)
        at = brentq(lambda a: (y - expit(a + found.value * log_odds)).sum(), -1e4 - 1e3 * spread, 1e4 + 1e3 * spread)
        off = y - expit(at + found.value * log_odds)
        assert abs((log_odds * off).sum()) <= 1e-6 * spread * len(y)


@pytest.mark.parametrize("gap", [1e-2, 1e-6, 1e-10, 1e-14])
def test_one_pair_of_studies_away_from_separation_there_still_is_a_slope(gap):
    """The maximum solves one equation by symmetry: the score of the slope, with the intercept at 0."""
    x = np.concatenate([np.linspace(-5, -1, 50), [-gap, gap], np.linspace(1, 5, 50)])
    y = np.concatenate([np.zeros(50, bool), [True, False], np.ones(50, bool)])
    slope = brentq(lambda b: float((x * np.where(y, expit(-b * x), -expit(b * x))).sum()), 0, 100, xtol=1e-13)
    assert fit_slope(y, x, np.arange(102)).value == pytest.approx(slope, rel=1e-8)


def test_an_error_far_out_keeps_its_digits():
    """The lowest of 600 scores is positive, all others are told apart: by 60-digit arithmetic; statsmodels is far from it."""
    z = np.random.default_rng(0).normal(size=600)
    y = z > 0
    y[z.argmin()] = True
    found = fit_slope(y, z, np.arange(600) // 3)
    assert found.value == pytest.approx(9.842111317441262, rel=1e-9)
    assert found.se == pytest.approx(5.005073775813723, rel=1e-9)


def test_one_patient_alone_has_no_error():
    y, p, _ = outcomes(60, 2)
    found = calibration(y, p, np.zeros(60, dtype=int))
    assert found.slope is not None
    assert found.slope_se is None


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
    assert found.intercept == pytest.approx(0, abs=1e-9)
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


def test_homogeneity_is_cochrans_q():
    values, errors = [0.9, 1.1, 0.6], [0.1, 0.2, 0.15]
    peer = combine_effects(np.array(values), np.array(errors) ** 2)
    q, p = homogeneity(values, errors)
    assert q == pytest.approx(peer.q, rel=1e-9)
    assert p == pytest.approx(peer.test_homogeneity().pvalue, rel=1e-9)


@pytest.mark.parametrize("name", list(SCENARIOS)[:2])
def test_subgroups_calibrated_alike_are_called_different_in_one_of_twenty(name):
    n = 250
    high = 0.06 + 3 * (0.05 * 0.95 / n) ** 0.5
    assert {
        told: share for told, share in rejected(*SCENARIOS[name], n_draws=n).items() if not 0.01 <= share <= high
    } == {}


def test_a_subgroup_whose_scores_are_too_extreme_is_found_in_the_table():
    rng = np.random.default_rng(8)
    n = 3_000
    p = expit(rng.normal(-0.5, 1.2, n))
    group = rng.choice(["a", "b", "c"], n, p=[0.45, 0.45, 0.1])
    frame = pl.DataFrame(
        {
            "study_id": [f"s{at}" for at in range(n)],
            "patient_id": [f"p{at // 2}" for at in range(n)],
            "split": np.where(np.arange(n) // 2 % 3 == 0, "val", "test"),
            "y_true": rng.random(n) < p,
            "y_score": np.where(group == "b", expit(2 * logit(p)), p),
            "group": group,
            "few": np.where(np.arange(n) // 2 % 30 == 1, "x", "y"),
        }
    )
    found = assess(frame, attributes=["group", "few"], settings=FEW).calibration_tests
    assert found.select("attribute", "parameter").rows() == [
        (attribute, parameter) for attribute in ("few", "group") for parameter in ("intercept", "slope")
    ]
    by = {(row["attribute"], row["parameter"]): row for row in found.iter_rows(named=True)}
    slope = by["group", "slope"]
    assert (slope["status"], slope["n_subgroups"]) == ("tested", 3)
    assert slope["p_value"] < slope["q_value"] < 0.001
    few = by["few", "slope"]  # of which under 50 patients are sick
    assert (few["status"], few["n_subgroups"], few["p_value"]) == ("too_few_subgroups", 1, None)
    ranks = assess(frame.with_columns(pl.col("y_score") * 10), attributes=["group"], settings=FEW).calibration_tests
    assert set(ranks.get_column("status")) == {"not_probability"}

"""The engine is as sure as it says: short versions of benchmarks/bench_fairness_calibration.py, and published values."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.bench_fairness_calibration import (
    coverage_of,
    family_of,
    gaps_of,
    levels_of,
    simulated,
    spread_coverage,
)
from benchmarks.calibration_scenarios import FAMILIES, NULLS, POWERS
from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.multiplicity import step_down
from fmaudit_core.fairness.rates import rate

N_DRAWS = 200
N_PERMUTATIONS = 199
#: as unlikely as four standard errors of a normal value, on both sides together
SURPRISE = 6.3e-5


def bounds(share, n=N_DRAWS):
    """Return the fewest and the most of n draws that are no surprise, as shares."""
    low, high = binom.interval(1 - SURPRISE, n, share)
    return low / n, high / n


def null(start):
    return next(one for one in NULLS if one.name.startswith(start))


@pytest.mark.parametrize("scenario", NULLS, ids=lambda one: one.name)
def test_null_scenarios_have_the_same_population_values_in_every_subgroup(scenario):
    """In a cohort six times as large each subgroup lies within four standard errors of the truth."""
    cohort = replace(scenario.enlarged(6), test_from=2).drawn(np.random.default_rng(0))
    truth = scenario.truth()
    for level, studies in levels_of(cohort).items():
        y, score, patient = studies.y_true, studies.y_score, studies.patient
        found = {
            "auroc": auroc(y, score, patient),
            "udr": rate(score[y] < studies.threshold, patient[y]),
            "fpr": rate(score[~y] >= studies.threshold, patient[~y]),
        }
        for metric in scenario.metrics:
            assert found[metric].value == pytest.approx(truth[metric], abs=4 * found[metric].se), (level, metric)


@pytest.mark.parametrize(
    "name",
    ["scores shifted", "ICC .95 small group", "1 study small, 3 large", "60/500/2,600 patients, ICC", "age bands, two"],
)
def test_without_a_disparity_tests_reject_as_often_as_they_say(name):
    scenario = null(name)
    low, high = bounds(0.05)
    for metric, numbers in simulated(partial(gaps_of, scenario, N_PERMUTATIONS), N_DRAWS).items():
        q, _, others, _ = (numbers[:, :4] <= 0.05).mean(axis=0)
        assert low <= q <= high, metric
        assert low <= others <= high, metric
        gap, null_gap = numbers[:, 4:].mean(axis=0)  # the null's expected gap is the gap to expect
        error = numbers[:, 4].std() / N_DRAWS**0.5
        assert null_gap == pytest.approx(gap, abs=4 * error + 0.04 * gap), metric


def test_a_family_of_encoders_and_attributes_rejects_as_often_as_it_says():
    least = simulated(partial(family_of, FAMILIES[1], 99), 100)
    for metric, numbers in least.items():
        assert (numbers <= 0.05).mean() <= bounds(0.05, 100)[1], metric


def test_a_planted_disparity_is_found_as_often_as_the_prototype_found_it():
    power = POWERS[0]
    for metric, numbers in simulated(partial(gaps_of, power.scenario, N_PERMUTATIONS), 100).items():
        q, _, others, _ = (numbers[:, :4] <= 0.05).mean(axis=0)
        for found, design in zip((q, others), power.design[metric], strict=False):
            assert found >= bounds(design - 0.05, 100)[0], metric


@pytest.mark.parametrize("name", ["calibrated", "prevalence 8-40", "3 studies/patient", "60/500/2,600 patients, ICC"])
def test_intervals_hold_the_truth_as_often_as_they_say(name):
    low, high = bounds(0.95)
    for metric, hits in simulated(partial(coverage_of, null(name)), N_DRAWS).items():
        for level, share in enumerate(hits.mean(axis=0)):
            assert low <= share <= high, (metric, level)


@pytest.mark.parametrize("between", [0.03, 0.1])
def test_the_interval_of_the_corrected_spread_holds_the_truth(between):
    assert spread_coverage(400, between) >= 0.92


def test_delongs_interval_is_the_published_one():
    """Ratings of 109 CT images, Hanley & McNeil 1982, table 1; area, error and interval as Stata's manual prints them."""
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    y = np.repeat([False, True], [sum(normal), sum(abnormal)])
    rating = np.concatenate([np.repeat(np.arange(1, 6), normal), np.repeat(np.arange(1, 6), abnormal)]).astype(float)
    found = auroc(y, rating)
    # without clusters of one study, whose formula carries a term between the classes of one part in n
    wins = (rating[y][:, None] > rating[~y]) + 0.5 * (rating[y][:, None] == rating[~y])
    se = np.sqrt(wins.mean(1).var(ddof=1) / y.sum() + wins.mean(0).var(ddof=1) / (~y).sum())
    assert found.value == pytest.approx(0.8932, abs=5e-5)
    assert found.se == pytest.approx(0.0307, abs=5e-5)
    assert found.se == pytest.approx(se, rel=1e-3)
    assert found.value - 1.959964 * found.se == pytest.approx(0.83295, abs=5e-5)
    assert found.value + 1.959964 * found.se == pytest.approx(0.95339, abs=5e-5)


def test_step_down_by_its_definition():
    """Westfall & Young's algorithm, one hypothesis and one deal after the other."""
    rng = np.random.default_rng(1)
    null = np.round(rng.normal(size=(199, 4)), 1)  # with ties
    observed = np.array([2.1, 0.3, 1.9, -0.5])
    n, k = null.shape
    share = np.array([[(null[:, j] >= null[b, j]).mean() for j in range(k)] for b in range(n)])
    p = np.array([(1 + (null[:, j] >= observed[j]).sum()) / (n + 1) for j in range(k)])
    order, adjusted, before = np.argsort(p, kind="stable"), np.empty(k), 0.0
    for at, j in enumerate(order):
        least = share[:, order[at:]].min(axis=1)
        before = max(before, (1 + (least <= p[j]).sum()) / (n + 1), p[j])
        adjusted[j] = before
    raw, ours = step_down(observed, null)
    assert raw == pytest.approx(p, abs=1e-12)
    assert ours == pytest.approx(adjusted, abs=1e-12)

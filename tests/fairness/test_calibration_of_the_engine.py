"""The engine is as sure as it says: short versions of benchmarks/bench_fairness_calibration.py, and published values."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.bench_fairness_calibration import UNEVEN, coverage, spread_coverage, type_one
from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.multiplicity import step_down


def bounds(share: float, n: int) -> tuple[float, float]:
    """Where a share of n trials lies in all but one of 15,000 cases."""
    half = 4 * np.sqrt(share * (1 - share) / n)
    return share - half, share + half


@pytest.mark.parametrize("studies", [1.2, 3.0, UNEVEN])
def test_without_a_disparity_tests_reject_as_often_as_they_say(studies):
    n = 200
    rejected = type_one(n, studies, n_permutations=199)
    low, high = bounds(0.05, n)
    family = rejected.pop("max-T, family of 6")
    assert family <= high
    # a subgroup's test against the rest is one of five in a cohort: its share varies less
    assert {told: share for told, share in rejected.items() if not low <= share <= high} == {}


@pytest.mark.parametrize("studies", [1.2, 3.0])
def test_intervals_hold_the_truth_as_often_as_they_say(studies):
    for told, share in coverage(200, studies).items():
        assert 0.92 <= share <= 0.975, told


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

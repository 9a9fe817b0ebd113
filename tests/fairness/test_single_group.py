"""One group of studies: AUROC, rates and their intervals, against peers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.intervals import clopper_pearson, difference_interval, wilson
from fmaudit_core.fairness.rates import rate


@st.composite
def labels_and_scores(draw):
    n = draw(st.integers(4, 60))
    y = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    y[0], y[1] = True, False
    return y, np.array(draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=n, max_size=n)))


@given(labels_and_scores())
def test_auroc_is_the_share_of_pairs_ranked_right_and_a_tie_is_half_right(case):
    y_true, y_score = case
    difference = y_score[y_true][:, None] - y_score[~y_true][None, :]
    share = ((difference > 0) + 0.5 * (difference == 0)).mean()
    assert auroc(y_true, y_score).value == pytest.approx(share, abs=1e-12)
    assert auroc(y_true, y_score).value == pytest.approx(roc_auc_score(y_true, y_score), abs=1e-12)


def test_delongs_variance_by_its_definition():
    """DeLong 1988 written out: covariance of the structural components, pair by pair."""
    rng = np.random.default_rng(0)
    y = rng.random(80) < 0.4
    score = np.round(rng.normal(size=80) + y, 1)
    psi = np.array([[1.0 if p > n else 0.5 if p == n else 0.0 for n in score[~y]] for p in score[y]])
    variance = psi.mean(1).var(ddof=1) / y.sum() + psi.mean(0).var(ddof=1) / (~y).sum()
    # without patients a study is its own cluster; Obuchowski's factor for the classes' covariance is then over zero terms
    assert auroc(y, score).se == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_copies_of_a_patients_studies_tell_nothing_new():
    rng = np.random.default_rng(1)
    y, patient = rng.random(150) < 0.4, np.arange(150)
    score = rng.normal(size=150) + y
    alone = auroc(y, score, patient)
    copied = auroc(np.tile(y, 3), np.tile(score, 3), np.tile(patient, 3))
    assert copied.value == pytest.approx(alone.value)
    assert copied.se == pytest.approx(alone.se, rel=1e-9)
    called = score[y] > 0.5
    one, three = rate(called, patient[y]), rate(np.tile(called, 3), np.tile(patient[y], 3))
    assert three.n_effective == pytest.approx(one.n, rel=0.02)


def test_a_missing_class_has_no_auroc_and_a_perfect_one_a_wide_interval():
    assert auroc(np.ones(5, bool), np.arange(5.0)).value is None
    assert auroc(np.ones(5, bool), np.arange(5.0)).interval(0.95) is None
    low, high = auroc(np.array([0, 0, 0, 1, 1, 1], bool), np.arange(6.0)).interval(0.95)
    assert low < 0.5
    assert high == 1.0


@pytest.mark.parametrize(("k", "n"), [(0, 30), (3, 30), (15, 30), (30, 30), (1, 400)])
def test_wilson_and_the_exact_interval_equal_statsmodels(k, n):
    z = float(norm.ppf(0.975))
    assert wilson(k / n, n, z) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)
    assert clopper_pearson(k / n, n, 0.95) == pytest.approx(proportion_confint(k, n, method="beta"), abs=1e-9)


def test_newcombes_example():
    """Newcombe 1998, method 10, table II (a): 56/70 against 48/80."""
    z = float(norm.ppf(0.975))
    first, second = wilson(56 / 70, 70, z), wilson(48 / 80, 80, z)
    assert difference_interval(56 / 70, first, 48 / 80, second) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_an_empty_class_has_no_rate():
    assert rate(np.empty(0, bool), np.empty(0, int)).value is None

"""One group of studies: AUROC, rates and their intervals, against peers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm, t
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


def test_without_clusters_the_interval_of_a_rate_is_wilsons():
    low, high = rate(np.arange(20) < 10, np.arange(20)).interval(0.95)
    assert (round(low, 3), round(high, 3)) == (0.299, 0.701)
    for k, n in [(0, 25), (7, 31), (120, 400)]:
        peers = proportion_confint(k, n, method="wilson")
        assert rate(np.arange(n) < k, np.arange(n)).interval(0.95) == pytest.approx(peers, abs=1e-12)
    assert rate(np.arange(19) < 4, np.arange(19)).interval(0.95) == pytest.approx(
        proportion_confint(4, 19, method="beta"), abs=1e-9
    )


@st.composite
def clustered_calls(draw):
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=30))
    called = draw(st.lists(st.booleans(), min_size=sum(sizes), max_size=sum(sizes)))
    return np.array(called), np.repeat(np.arange(len(sizes)), sizes)


@given(clustered_calls())
def test_the_design_effect_is_that_of_its_definition(case):
    called, patient = case
    found = rate(called, patient)
    m = np.bincount(patient)
    a = np.bincount(patient, called)
    n, k, p = m.sum(), len(m), called.mean()
    full = (m**2).sum() / n
    plain = full
    if 0 < p < 1 and k > 1:
        plain = max(1.0, k / (k - 1) * (n - 1) / n * ((a - p * m) ** 2).sum() / (n * p * (1 - p)))
    e = min((a > 0).sum(), (a < m).sum())
    expected = 1.0 if m.max() == 1 else (e * plain + max(full, plain)) / (e + 1)
    assert found.design_effect == pytest.approx(expected, rel=1e-12)
    assert found.design_effect >= 1
    assert (found.n_patients, found.kish_size) == (k, pytest.approx(n**2 / (m**2).sum()))


@given(clustered_calls())
def test_the_interval_of_the_opposite_rate_is_the_mirror_image(case):
    found = rate(*case)
    low, high = found.interval(0.9)
    assert 0 <= low <= found.value <= high <= 1
    assert found.complement().interval(0.9) == pytest.approx((1 - high, 1 - low), abs=1e-7)


def test_one_patient_says_nothing_about_a_rate_and_few_say_little():
    assert rate(np.ones(10, bool), np.zeros(10, int)).interval(0.95) == (0.0, 1.0)
    widths = []
    for patients in (3, 9, 30, 90):  # a third of them called, in all of their studies
        patient = np.arange(90) % patients
        low, high = rate(patient % 3 == 0, patient).interval(0.95)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


def test_an_auroc_from_few_patients_is_wider_by_students_t():
    rng = np.random.default_rng(4)
    y, patient = np.arange(160) < 40, np.arange(160) // 2
    score = rng.normal(size=160) + y
    found = auroc(y, score, patient)
    assert (found.k_pos, found.k_neg) == (20, 60)
    # Hanley and McNeil's formula (2), one study of each patient and class, the larger term for both classes
    a = found.value
    expected = (a * (1 - a) + (20 - 1 + 60 - 1) * (2 * a**2 / (1 + a) - a**2)) / (20 * 60)
    assert expected > found.se**2
    half = t.ppf(0.975, 19) * np.sqrt((20 * found.se**2 + expected) / 21) / (a * (1 - a))
    centre = logit(a)
    assert found.interval(0.95) == pytest.approx((expit(centre - half), expit(centre + half)), abs=1e-12)


def test_a_perfect_ranking_is_worth_as_many_observations_as_patients_with_the_rarer_class():
    y, patient = np.arange(90) < 30, np.concatenate([np.arange(30) // 3, 100 + np.arange(60)])
    perfect = auroc(y, y.astype(float), patient)
    assert (perfect.value, perfect.se) == (1.0, 0.0)
    assert perfect.interval(0.95) == pytest.approx(proportion_confint(10, 10, method="wilson"), abs=1e-12)
    tied = auroc(y, np.zeros(90), patient)
    assert tied.interval(0.95) == pytest.approx(proportion_confint(5, 10, method="wilson"), abs=1e-12)

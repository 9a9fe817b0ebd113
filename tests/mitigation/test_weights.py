"""Weights and resamples against AIF360 and their definitions; thresholds against fairlearn."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator, ClassifierMixin

from fmaudit_core.config import FairnessSection
from fmaudit_core.mitigation.group_thresholds import equal_opportunity
from fmaudit_core.mitigation.last_layer import balanced_subsets
from fmaudit_core.mitigation.reweighting import resampling, reweighing


def drawn(n=800, seed=0):
    rng = np.random.default_rng(seed)
    group = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    y = (rng.random(n) < np.array([0.1, 0.3, 0.5])[group]).astype(float)
    return y, group, rng


def test_weights_equal_aif360s():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # AIF360 tells at import which of its optional parts are missing
        from aif360.algorithms.preprocessing import Reweighing
        from aif360.datasets import BinaryLabelDataset

        y, group, _ = drawn()
        group = np.minimum(group, 1)
        frame = pd.DataFrame({"group": group.astype(float), "y": y})
        data = BinaryLabelDataset(df=frame, label_names=["y"], protected_attribute_names=["group"])
        theirs = Reweighing([{"group": 0.0}], [{"group": 1.0}]).fit_transform(data).instance_weights
    assert reweighing(y, group) == pytest.approx(theirs, abs=1e-12)


def test_under_the_weights_outcome_and_subgroup_are_independent():
    y, group, _ = drawn()
    y[:50] = np.nan
    group[50:90] = -1
    weight = reweighing(y, group)
    assert np.all(weight[:50] == 0)
    assert np.all(weight[50:90] == 1)
    aimed = (group >= 0) & ~np.isnan(y)
    rates = [np.average(y[aimed & (group == g)], weights=weight[aimed & (group == g)]) for g in range(3)]
    assert rates == pytest.approx([y[aimed].mean()] * 3, abs=1e-12)
    for g in range(3):
        assert weight[aimed & (group == g)].sum() == pytest.approx((aimed & (group == g)).sum())


def test_resamples_are_seeded_and_make_subgroups_equal_in_size_and_prevalence():
    y, group, _ = drawn()
    count = resampling(y, group, seed=1)
    assert np.array_equal(count, resampling(y, group, seed=1))
    assert not np.array_equal(count, resampling(y, group, seed=2))
    sizes = [count[group == g].sum() for g in range(3)]
    assert np.ptp(sizes) == 0
    assert sizes[0] == pytest.approx(len(y) / 3, abs=1)
    for g in range(3):
        assert np.average(y[group == g], weights=count[group == g]) == pytest.approx(y.mean(), abs=2e-3)


def test_balanced_subsets_draw_every_cell_alike_and_without_replacement():
    y, group, _ = drawn()
    group[:30] = -1
    subsets = balanced_subsets(y, group, seed=0)
    assert set(np.unique(subsets)) == {0.0, 1.0}
    assert subsets[:30].sum() == 0
    cells = [(group == g) & (y == outcome) for g in range(3) for outcome in (0, 1)]
    counts = np.stack([subsets[cell].sum(axis=0) for cell in cells])
    assert np.all(counts == min(cell.sum() for cell in cells))


class Scores(ClassifierMixin, BaseEstimator):
    """A fitted model that gives its one feature as the probability."""

    classes_ = np.array([0, 1])

    def fit(self, x, y):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, x):
        score = np.asarray(x)[:, 0]
        return np.stack([1 - score, score], axis=1)


def rates(called, y, group):
    tpr = np.array([np.average(called[(group == g) & y]) for g in range(3)])
    fpr = np.array([np.average(called[(group == g) & ~y]) for g in range(3)])
    return tpr, fpr


def test_group_thresholds_equal_fairlearns_for_equal_opportunity():
    rng = np.random.default_rng(0)
    n = 12_000
    group = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    y = rng.random(n) < np.array([0.3, 0.2, 0.4])[group]
    score = 1 / (1 + np.exp(-(rng.normal(size=n) + y * np.array([1.8, 1.4, 1.6])[group] - 0.4 * group)))
    theirs = ThresholdOptimizer(
        estimator=Scores(), constraints="true_positive_rate_parity", objective="balanced_accuracy_score",
        prefit=True, predict_method="predict_proba", grid_size=2_000,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit(score[:, None], y.astype(int), sensitive_features=group)
        chance = theirs._pmf_predict(score[:, None], sensitive_features=group)[:, 1]
    chosen = equal_opportunity(y, score, group, FairnessSection(threshold_policy="youden"))
    called = score >= np.array([chosen[int(g)] for g in group])
    tpr, fpr = rates(called, y, group)
    their_tpr, their_fpr = rates(chance, y, group)
    assert np.ptp(tpr) < 0.005
    assert tpr == pytest.approx(their_tpr, abs=0.02)
    assert fpr == pytest.approx(their_fpr, abs=0.02)
    ours, fairlearns = (float(np.mean([of[y].mean(), 1 - of[~y].mean()])) for of in (called.astype(float), chance))
    assert ours == pytest.approx(fairlearns, abs=0.003)


@pytest.mark.parametrize("policy", ["fixed_fpr", "fixed_sensitivity"])
def test_the_policy_holds_over_all_and_the_tpr_is_one(policy):
    rng = np.random.default_rng(1)
    group = rng.choice([-1, 0, 1], 6_000, p=[0.05, 0.6, 0.35])
    y = rng.random(6_000) < 0.3
    score = rng.normal(size=6_000) + 1.5 * y - 0.8 * (group == 1)
    settings = FairnessSection(threshold_policy=policy)
    chosen = equal_opportunity(y, score, group, settings)
    called = score >= np.array([chosen[int(g)] for g in group])
    tpr = [called[y & (group == g)].mean() for g in (0, 1)]
    assert np.ptp(tpr) < 0.005
    assert chosen[1] < chosen[0]
    if policy == "fixed_fpr":
        assert 0.19 < called[~y].mean() <= 0.2
    else:
        assert min(tpr) >= 0.8 - 1e-9
        assert max(tpr) < 0.81

"""LEACE: nothing linear is left, and the change is the one of the paper's authors; GroupDRO: the optimum of a general solver."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fmaudit_core.mitigation.last_layer import DRO_TOLERANCE, group_dro
from fmaudit_core.mitigation.leace import Covariance
from fmaudit_core.mitigation.linear_heads import LinearHeads


def planted(n=4_000, d=16, seed=0):
    rng = np.random.default_rng(seed)
    group = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    mixing = rng.normal(size=(d, d))
    x = rng.normal(size=(n, d))
    x[:, :3] += 1.5 * (group[:, None] == np.arange(3))
    return (x @ mixing).astype(np.float32), group


def test_no_linear_probe_is_above_chance_afterwards_on_patients_it_never_saw():
    x, group = planted()
    erased = Covariance(x[:2_000]).eraser(group[:2_000])(x)
    for features, top in ((x, 1.0), (erased, 0.54)):
        probe = LogisticRegression(max_iter=500).fit(features[2_000:3_000], group[2_000:3_000])
        auroc = roc_auc_score(group[3_000:], probe.predict_proba(features[3_000:]), multi_class="ovr", average="macro")
        assert auroc <= top
        assert (features is erased) or auroc > 0.75


def test_on_what_it_was_fitted_no_covariance_is_left():
    x, group = planted()
    known = group.copy()
    known[:200] = -1  # studies without a record tell nothing
    erased = Covariance(x).eraser(known)(x)[200:].astype(np.float64)
    indicator = (group[200:, None] == np.arange(3)) - np.mean(group[200:, None] == np.arange(3), axis=0)
    assert np.abs(erased.T @ indicator / len(erased)).max() < 1e-4


def test_the_eraser_equals_its_authors():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import compiles by a way that torch has deprecated
        from concept_erasure import LeaceEraser

    x, group = planted()
    theirs = LeaceEraser.fit(
        torch.from_numpy(x).double(), torch.nn.functional.one_hot(torch.from_numpy(group)).double(),
        shrinkage=False, svd_tol=1e-6, constrain_cov_trace=False,
    )(torch.from_numpy(x).double()).numpy()  # fmt: skip
    ours = Covariance(x).eraser(group)(x)
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(x).max()


def test_with_fewer_studies_than_features_heads_equal_scikit_learns():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 300)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=120) > 0).astype(float)
    weight = rng.integers(0, 4, 120).astype(float)
    heads = LinearHeads(x)
    w, b = heads.fit(y[:, None], weight[:, None], np.array([0.02]))
    standard = (x - x.mean(0)) / x.std(0)
    theirs = LogisticRegression(C=0.02, tol=1e-10, max_iter=5_000).fit(standard, y, sample_weight=weight)
    assert w[0] * x.std(0) == pytest.approx(theirs.coef_[0], abs=1e-4)
    assert x @ w[0] + b[0] == pytest.approx(theirs.decision_function(standard), abs=1e-3)


def test_group_dro_reaches_the_minimum_of_the_worst_loss():
    rng = np.random.default_rng(0)
    n, d, c = 1_500, 5, 1.0
    x = rng.normal(size=(n, d)).astype(np.float32)
    group = rng.choice(2, n, p=[0.85, 0.15])
    y = (np.where(group == 1, x[:, 1], x[:, 0]) * 2 + rng.logistic(size=n) > 1).astype(float)
    heads = LinearHeads(x)
    cells = [(group == g) & (y == outcome) for g in (0, 1) for outcome in (0.0, 1.0)]
    standard = (x - x.mean(0)) / x.std(0)

    def losses(v):
        z = standard @ v[:-1] + v[-1]
        each = np.logaddexp(0, z) - y * z
        return np.array([each[cell].mean() for cell in cells])

    def bound(v):
        return v[-1] - losses(v[:-1])

    found = minimize(
        lambda v: v[-1] + v[:-2] @ v[:-2] / (2 * c * n), np.append(np.zeros(d + 1), 1.0),
        constraints={"type": "ineq", "fun": bound}, method="SLSQP", options={"maxiter": 500, "ftol": 1e-10},
    )  # fmt: skip
    assert found.success
    w, b, short = group_dro(heads, x, y[:, None], group[:, None], np.array([c]))
    v = np.append(w[0] * x.std(0), b[0] + x.mean(0) @ w[0])
    reached = losses(v).max() + v[:-1] @ v[:-1] / (2 * c * n)
    assert found.fun - 1e-4 <= reached <= found.fun + 0.006
    assert reached - found.fun - 1e-4 <= short[0] <= 2 * DRO_TOLERANCE
    plain, intercept = heads.fit(y[:, None], np.ones((n, 1)), np.array([c]))
    before = losses(np.append(plain[0] * x.std(0), intercept[0] + x.mean(0) @ plain[0])).max()
    assert reached < before - 0.1


def test_where_it_was_fitted_a_linear_probe_has_nothing_to_learn_however_wide_the_embedding():
    """What a probe fitted there reads of other patients is nothing; one fitted on them reads less of a residue, the more studies
    told the eraser."""
    x, group = planted(8_000, 128)
    residue = []
    for n in (500, 4_000):
        erased = Covariance(x[:n]).eraser(group[:n])(x)
        there = LogisticRegression(C=0.01, max_iter=500).fit(erased[:n], group[:n])
        auroc = roc_auc_score(group[4_000:], there.predict_proba(erased[4_000:]), multi_class="ovr")
        assert np.abs(there.coef_).max() < 1e-3 or abs(auroc - 0.5) < 0.03
        fresh = LogisticRegression(C=0.01, max_iter=500).fit(erased[4_000:6_000], group[4_000:6_000])
        residue.append(roc_auc_score(group[6_000:], fresh.predict_proba(erased[6_000:]), multi_class="ovr"))
    assert residue[1] < 0.56 < residue[0]

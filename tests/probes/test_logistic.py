"""The batched solver against scikit-learn's newton-cholesky, and what it promises of its columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from fmaudit_core.probes import logistic, solver
from fmaudit_core.probes.errors import ProbeError
from fmaudit_core.probes.logistic import fit_logistic

GRID = (1e-4, 1e-2, 1.0, 100.0)


def embeddings(n=400, d=40, seed=0):
    """Correlated, shifted and scaled features, as embeddings are: few strong directions and noise."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, 5)) @ rng.normal(size=(5, d)) * 3
    x = (factors + rng.normal(size=(n, d))) * rng.uniform(0.01, 5, d) + rng.normal(size=d) * 10
    return x.astype(np.float32)


def labels(x, seed=1, rate=0.3):
    rng = np.random.default_rng(seed)
    standard = (x - x.mean(0)) / x.std(0)
    margin = standard @ rng.normal(size=x.shape[1]) * 0.3
    return (margin + rng.logistic(size=len(x)) > np.quantile(margin, 1 - rate)).astype(float)


def reference(x, y, c, weights=None):
    """Coefficients and intercept on raw features by newton-cholesky at a tight tolerance."""
    mean, scale = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    known = ~np.isnan(y)
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    model.fit(((x - mean) / scale)[known], y[known], sample_weight=None if weights is None else weights[known])
    raw = model.coef_[0] / scale
    return raw, model.intercept_[0] - mean @ raw


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize("shape", [(400, 40), (60, 120), (2000, 8)])
def test_coefficients_equal_newton_cholesky(shape):
    x = embeddings(*shape)
    censored = labels(x, seed=2)
    censored[::7] = np.nan
    targets = {"a": labels(x), "b": censored, "rare": labels(x, seed=3, rate=0.06)}
    fits = fit_logistic(x, targets, c_grid=GRID)
    for t, (task, y) in enumerate(targets.items()):
        for i, c in enumerate(GRID):
            coefficients, intercept = reference(x, y, c)
            assert relative(fits.coefficients[t, 0, i], coefficients) < 1e-4, (task, c)
            logits = x @ fits.coefficients[t, 0, i] + fits.intercepts[t, 0, i]
            assert relative(logits, x @ coefficients + intercept) < 1e-4, (task, c)


def test_weight_vectors_equal_sample_weights():
    x = embeddings()
    y, weights = labels(x), np.random.default_rng(5).uniform(0, 3, len(x))
    fits = fit_logistic(x, {"a": y}, c_grid=(1e-2, 1.0), weights={"none": np.ones(len(x)), "w": weights})
    for i, c in enumerate((1e-2, 1.0)):
        assert relative(fits.coefficients[0, 1, i], reference(x, y, c, weights)[0]) < 1e-4
        assert relative(fits.coefficients[0, 0, i], reference(x, y, c)[0]) < 1e-4


@pytest.mark.parametrize("shape", [(80, 120), (150, 600)])
def test_separable_labels_converge_too(shape):
    x = embeddings(*shape)
    y = (x[:, 0] > np.median(x[:, 0])).astype(float)
    fits = fit_logistic(x, {"a": y}, c_grid=(100.0,))
    assert relative(fits.coefficients[0, 0, 0], reference(x, y, 100.0)[0]) < 1e-4


def newton(x, y, c):
    """Standardised coefficients by damped Newton with dense float64 Hessians: slow, and nothing shared with the solver."""
    z = (x.astype(np.float64) - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64)
    z = np.column_stack([z, np.ones(len(z))])
    penalty = np.append(np.full(z.shape[1] - 1, 1 / c), 0.0)
    u = np.zeros(z.shape[1])

    def loss(at):
        return np.logaddexp(0, z @ at).sum() - y @ (z @ at) + penalty @ at**2 / 2

    for _ in range(200):
        p = expit(z @ u)
        step = np.linalg.solve((z.T * (p * (1 - p))) @ z + np.diag(penalty), z.T @ (p - y) + penalty * u)
        length = 1.0
        while loss(u - length * step) > loss(u) * (1 + 1e-13):
            length /= 2
        u -= length * step
        if np.linalg.norm(step) < 1e-10 * np.linalg.norm(u):
            return u[:-1]
    raise AssertionError("the reference did not converge")


@pytest.mark.parametrize("shape", [(1000, 60), (250, 120)])
@pytest.mark.parametrize("noise", [0.5, 1e-2, 1e-3])
@pytest.mark.parametrize("sharpness", [1.0, 0.05], ids=["plain", "nearly separable"])
def test_few_strong_directions_and_nearly_separable_labels_at_every_c(shape, noise, sharpness):
    n, d = shape
    rng = np.random.default_rng(7)
    x = (rng.normal(size=(n, 8)) @ rng.normal(size=(8, d)) + noise * rng.normal(size=(n, d))).astype(np.float32)
    margin = (x - x.mean(0)) / x.std(0) @ rng.normal(size=d) * 20 / np.sqrt(d) + sharpness * rng.logistic(size=n)
    y = (margin > np.quantile(margin, 0.7)).astype(float)
    grid = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
    fits = fit_logistic(x, {"a": y}, c_grid=grid)
    for i, c in enumerate(grid):
        got = fits.coefficients[0, 0, i] * x.std(0, dtype=np.float64)
        assert relative(got, newton(x, y, c)) < 1e-4, c


def test_a_constant_feature_counts_for_nothing():
    x = embeddings()
    with_constant = np.concatenate([x, np.full((len(x), 1), 7.5, np.float32)], axis=1)
    plain, more = (fit_logistic(one, {"a": labels(x)}, c_grid=(1.0,)) for one in (x, with_constant))
    assert more.coefficients[0, 0, 0, -1] == 0
    assert np.allclose(more.score(with_constant, "a", 1.0), plain.score(x, "a", 1.0), atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_studies_and_a_doubled_weight_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    x = embeddings(120, 10, seed)
    y = labels(x, seed)
    order = rng.permutation(len(x))
    one = fit_logistic(x, {"a": y}, c_grid=(1.0,))
    turned = fit_logistic(x[order], {"a": y[order]}, c_grid=(1.0,))
    assert np.allclose(one.score(x, "a", 1.0), turned.score(x, "a", 1.0), atol=1e-5)
    doubled = fit_logistic(np.concatenate([x, x]), {"a": np.concatenate([y, y])}, c_grid=(0.5,))
    weighted = fit_logistic(x, {"a": y}, c_grid=(0.5,), weights={"none": np.full(len(x), 2.0)})
    assert np.allclose(doubled.score(x, "a", 0.5), weighted.score(x, "a", 0.5), atol=1e-5)


def test_the_same_twice():
    x = embeddings()
    one, two = (fit_logistic(x, {"a": labels(x)}, c_grid=GRID) for _ in range(2))
    assert np.array_equal(one.coefficients, two.coefficients)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda x, y: (np.where(np.arange(len(x))[:, None] == 3, np.nan, x), y), "NaN or infinite"),
        (lambda x, y: (x, np.ones_like(y)), "have only one class"),
        (lambda x, y: (x, np.full_like(y, np.nan)), "have only one class"),
        (lambda x, y: (x, y + 1), "must be 0, 1 or NaN"),
    ],
)
def test_what_cannot_be_fitted_is_told(spoil, said):
    x = embeddings()
    x, y = spoil(x, labels(x))
    with pytest.raises(ProbeError, match=said):
        fit_logistic(x.astype(np.float32), {"a": y}, c_grid=(1.0,))


def test_no_training_study_is_told():
    with pytest.raises(ProbeError, match="no training study"):
        fit_logistic(np.empty((0, 4), np.float32), {"a": np.empty(0)}, c_grid=(1.0,))


def test_weights_that_leave_one_class_are_told():
    x = embeddings()
    y = labels(x)
    with pytest.raises(ProbeError, match="with the weights w only one class remains"):
        fit_logistic(x, {"a": y}, c_grid=(1.0,), weights={"w": 1 - y})


def test_scores_are_the_expit_of_decisions_whatever_the_block(monkeypatch):
    x = embeddings()
    fits = fit_logistic(x, {"a": labels(x)}, c_grid=(1.0,))
    whole = fits.score(x, "a", 1.0)
    monkeypatch.setattr(logistic, "_CHUNK", 7)
    assert np.allclose(whole, expit(fits.decision(x, "a", 1.0)), rtol=1e-12)


def test_an_embedding_that_is_not_finite_is_not_scored():
    x = embeddings()
    fits = fit_logistic(x, {"a": labels(x)}, c_grid=(1.0,))
    x[5, 2] = np.inf
    with pytest.raises(ProbeError, match="NaN or infinite"):
        fits.score(x, "a", 1.0)


def test_a_column_that_does_not_converge_is_named(monkeypatch):
    monkeypatch.setattr(solver, "_MAX_LBFGS", 1)
    monkeypatch.setattr(solver, "_MAX_NEWTON", 1)
    x = embeddings()
    with pytest.raises(ProbeError, match=r"probe for a at C=0\.01 did not converge"):
        fit_logistic(x, {"a": labels(x)}, c_grid=(0.01, 1.0))


def test_emphasis_is_a_feature_that_was_multiplied():
    x = embeddings(300, 12)
    emphasis = np.linspace(0.3, 3.0, 12)
    fits = fit_logistic(x, {"a": labels(x)}, c_grid=(0.1,), emphasis=emphasis)
    standard = (x - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64) * emphasis
    model = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-12).fit(standard, labels(x))
    assert relative(fits.decision(x, "a", 0.1), model.decision_function(standard)) < 1e-4


def test_features_that_never_vary_leave_the_intercept_alone():
    y = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    for d in (3, 12):  # more studies than features, and fewer
        fits = fit_logistic(np.full((6, d), 7.0, dtype=np.float32), {"a": y}, c_grid=[1.0])
        assert not fits.coefficients.any()
        assert np.allclose(fits.intercepts, np.log(2.0))

"""Random effects against the published BCG example, statsmodels, and the likelihood itself; a short simulation of pooling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.meta_analysis import combine_effects

from benchmarks.bench_pooling import Setting, simulated
from fmaudit_core.fairness.random_effects import hartung_knapp, random_effects, restricted_likelihood

#: vaccinated with and without tuberculosis, not vaccinated with and without: Colditz et al. 1994, JAMA 271:698
BCG = np.array(
    [
        (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
        (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232), (17, 1699, 65, 1600),
        (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
    ],
    dtype=float,
)  # fmt: skip


def log_risk_ratios():
    a, b, c, d = BCG.T
    return np.log(a / (a + b) / (c / (c + d))), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)


def test_the_bcg_trials_give_the_published_values():
    """The readme of metafor (Viechtbauer 2010, J Stat Softw 36(3)) prints these for `rma(yi, vi, test="knha")`."""
    found = random_effects(*log_risk_ratios())
    assert found.tau2 == pytest.approx(0.3132, abs=5e-5)
    assert found.i2 == pytest.approx(0.9222, abs=5e-5)
    assert found.q == pytest.approx(152.2330, abs=5e-5)
    assert found.mean == pytest.approx(-0.7145, abs=5e-5)
    assert found.se == pytest.approx(0.1808, abs=5e-5)
    assert found.mean / found.se == pytest.approx(-3.9522, abs=5e-4)
    assert (found.low, found.high) == pytest.approx((-1.1084, -0.3206), abs=5e-5)
    assert found.p == pytest.approx(0.0019, abs=5e-5)
    predicted = np.exp([found.predicted_low, found.predicted_high])
    assert predicted == pytest.approx([0.14, 1.76], abs=5e-3)


sites = st.integers(2, 12).flatmap(
    lambda k: st.tuples(
        st.lists(st.floats(-1, 1), min_size=k, max_size=k), st.lists(st.floats(1e-3, 0.5), min_size=k, max_size=k)
    )
)


@pytest.mark.parametrize("method", ["chi2", "iterated"])
def test_mean_and_standard_error_equal_those_of_statsmodels_at_its_own_variance_between_sites(method):
    """DerSimonian and Laird (`chi2`), and Paule and Mandel (`iterated`)."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        k = int(rng.integers(4, 12))
        y, v = rng.normal(0, 2, k), rng.uniform(1e-3, 0.1, k)  # the peer fails where it finds no variance between sites
        peer = combine_effects(y, v, method_re=method, use_t=True)
        assert peer.tau2 > 0
        mean, se = hartung_knapp(y, v, peer.tau2)
        assert mean == pytest.approx(peer.mean_effect_re, abs=1e-9)
        assert se == pytest.approx(peer.sd_eff_w_re_hksj, abs=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=10), st.floats(1e-3, 0.5))
@settings(max_examples=50, deadline=None)
def test_with_equal_variances_reml_is_the_estimate_of_paule_and_mandel(values, v):
    y = np.array(values)
    peer = max(float(np.var(y, ddof=1)) - v, 0.0)
    assert restricted_likelihood(y, np.full(len(y), v)) == pytest.approx(peer, abs=1e-9)


@given(sites)
@settings(max_examples=30, deadline=None)
def test_no_other_variance_between_sites_is_more_likely(drawn):
    y, v = map(np.array, drawn)

    def likelihood(tau2):
        s = v + tau2
        mean = (y / s).sum() / (1 / s).sum()
        return -0.5 * (np.log(s).sum() + math.log((1 / s).sum()) + ((y - mean) ** 2 / s).sum())

    best = likelihood(restricted_likelihood(y, v))
    assert all(likelihood(one) <= best + 1e-9 for one in [0.0, *np.geomspace(1e-5, 10, 200)])


def test_equal_rounded_estimates_are_not_certain():
    found = random_effects([0.03, 0.03, 0.03], [0.01, 0.02, 0.03], resolution=0.01)
    assert found.tau2 == 0
    assert found.se == pytest.approx(0.01 / 6)
    assert found.low < 0.03 < found.high


def test_one_site_or_no_variance_is_refused():
    with pytest.raises(ValueError, match="two sites or more"):
        random_effects([0.1], [0.1])
    with pytest.raises(ValueError, match="variance above 0"):
        random_effects([0.1, 0.2], [0.1, 0.0])


@pytest.mark.parametrize(("n_sites", "tau"), [(3, 0.05), (10, 0.10)])
def test_pooled_sites_keep_their_error_rates_and_pooled_rows_do_not(n_sites, tau):
    """The short form of `benchmarks/bench_pooling.py`: 600 draws, two Monte-Carlo standard errors of room."""
    found = simulated(Setting(n_sites, tau), 600)
    assert 0.035 - 2 * 0.0075 <= found.type_one <= 0.085 + 2 * 0.011
    assert found.coverage >= 0.92 - 2 * 0.011
    assert found.naive > 0.15
    assert found.fixed > 0.15
    assert abs(found.bias) < 0.01

"""The paired test of a reduction: against naive counting, under the null, and with power where something was reduced."""

from __future__ import annotations

import numpy as np
import pytest

from fmaudit_core.fairness.gaps import exceedance
from fmaudit_core.fairness.rates import rate
from fmaudit_core.fairness.spread import corrected_sd
from fmaudit_core.mitigation.swap_test import GAP, VARIANCE, Calls, p_of_difference, redrawn, reduction, swapped

SHARES = np.array([0.45, 0.3, 0.17, 0.08])


def calls(seed, *, before=0.0, after=0.0, n_patients=1_800, runs=1, noise=1.0, encoder=0):
    """Calls of positives in four subgroups before and after; `before` and `after` lower the scores of the third."""
    rng = np.random.default_rng(seed)
    of_patient = rng.choice(4, n_patients, p=SHARES)
    patient = np.repeat(np.arange(n_patients), 1 + rng.poisson(0.2, n_patients))
    patient = patient[rng.random(len(patient)) < 0.3]
    group = of_patient[patient]
    common = 1.2 + 0.5 * rng.normal(size=n_patients)[patient] + 0.7 * rng.normal(size=len(patient))

    rng = np.random.default_rng([seed, encoder])

    def called(shift, spread):
        return common - shift * (group == 2) + 0.5 * spread * rng.normal(size=len(patient)) >= 0.6

    first = called(before, 1.0)
    return patient, group, first, np.stack([called(after, noise) for _ in range(runs)])


def spread(patient, group, called):
    """Gap and corrected variance by the functions of the fairness room."""
    found = [rate(called[group == g], patient[group == g]) for g in range(4)]
    values = [1 - one.value for one in found]
    variance = np.var(values, ddof=1) - np.mean([one.se**2 for one in found])
    return max(values) - min(values), variance, corrected_sd(values, [one.se for one in found])


def test_what_is_observed_equals_the_fairness_rooms_gap_and_corrected_spread():
    patient, group, first, second = calls(0, before=0.8, after=0.2, runs=3)
    found = reduction(Calls.of(patient, group, first, second))
    gap, variance, sd = spread(patient, group, first)
    assert (found.gap_before, found.variance_before) == pytest.approx((gap, variance), abs=1e-12)
    assert sd**2 == pytest.approx(max(found.variance_before, 0.0), abs=1e-12)
    after = [spread(patient, group, one) for one in second]
    assert found.gap_by_run == pytest.approx([one[0] for one in after], abs=1e-12)
    assert found.variance_after == pytest.approx(np.mean([one[1] for one in after]), abs=1e-12)


def test_a_subgroup_that_is_missed_or_called_whole_counts_as_in_the_fairness_room():
    patient, group, first, second = calls(1)
    first, second = first | (group == 0), second & (group != 3)
    found = reduction(Calls.of(patient, group, first, second))
    assert found.variance_before == pytest.approx(spread(patient, group, first)[1], abs=1e-12)
    assert found.variance_after == pytest.approx(spread(patient, group, second[0])[1], abs=1e-12)


def test_swaps_exchange_whole_patients_and_are_those_of_a_naive_loop():
    """Every null reduction is one that some assignment of swaps to patients gives; with few patients all can be listed."""
    patient = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    group = np.array([0, 1, 0, 0, 1, 1, 1, 0])
    first = np.array([1, 0, 1, 1, 0, 0, 1, 0], dtype=bool)
    second = np.array([0, 1, 1, 0, 1, 0, 1, 1], dtype=bool)
    possible = set()
    for bits in range(2**7):
        swap = (bits >> patient) & 1 == 1
        one, two = np.where(swap, second, first), np.where(swap, first, second)
        r = [max(v) - min(v) for v in ([of[group == g].mean() for g in (0, 1)] for of in (one, two))]
        possible.add(round(r[0] - r[1], 9))
    null = swapped(Calls.of(patient, group, first, second[None]), 4_000, seed=0, named="t")[:, GAP]
    assert set(np.round(null, 9)) == possible
    assert abs(null.mean()) < 0.03  # symmetric about 0


def test_swaps_and_draws_are_seeded_and_shared_by_strategies_on_the_same_patients():
    patient, group, first, second = calls(2)
    one = Calls.of(patient, group, first, second)
    again = Calls.of(patient, group, first, second)
    assert np.array_equal(swapped(one, 200, seed=1, named="t"), swapped(again, 200, seed=1, named="t"))
    assert not np.array_equal(swapped(one, 200, seed=1, named="t"), swapped(one, 200, seed=1, named="u"))
    assert np.array_equal(swapped(one, 50, seed=1, named="t"), swapped(one, 200, seed=1, named="t")[:50])
    three = Calls.of(patient, group, first, np.repeat(second, 3, axis=0))
    assert swapped(three, 200, seed=1, named="t") == pytest.approx(swapped(one, 200, seed=1, named="t"), abs=1e-12)
    assert redrawn(three, 200, seed=1, named="t") == pytest.approx(redrawn(one, 200, seed=1, named="t"), abs=1e-12)


def test_the_order_of_studies_does_not_matter():
    patient, group, first, second = calls(3)
    order = np.random.default_rng(0).permutation(len(patient))
    one = Calls.of(patient, group, first, second)
    two = Calls.of(patient[order], group[order], first[order], second[:, order])
    assert np.array_equal(swapped(one, 99, seed=0, named="t"), swapped(two, 99, seed=0, named="t"))


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_under_no_disparity_the_test_rejects_as_often_as_it_says(noise):
    """A short version of benchmarks/bench_mitigation.py; with twice the noise the strategy harms everybody alike."""
    p = []
    for seed in range(400):
        one = Calls.of(*calls(seed, noise=noise))
        found, null = reduction(one), swapped(one, 499, seed=seed, named="t")
        p.append((exceedance(null[:, GAP], found.gap), exceedance(null[:, VARIANCE], found.variance)))
    share = np.mean(np.array(p) <= 0.05, axis=0)
    # 400 trials: three standard errors of 0.05
    assert np.all(np.abs(share - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 400)), share


def test_a_reduction_is_found_and_its_interval_covers_the_truth():
    truth = reduction(Calls.of(*calls(99, before=0.9, after=0.2, n_patients=400_000)))
    covered, found = [], []
    for seed in range(150):
        one = Calls.of(*calls(seed, before=0.9, after=0.2))
        seen = reduction(one)
        found.append(exceedance(swapped(one, 499, seed=seed, named="t")[:, GAP], seen.gap) <= 0.05)
        low, high = np.quantile(redrawn(one, 599, seed=seed, named="t")[:, VARIANCE], [0.025, 0.975])
        covered.append(low <= truth.variance <= high)
    assert np.mean(found) > 0.8
    assert np.mean(covered) > 0.89


def test_the_interaction_test_holds_its_level_where_both_encoders_reduce_alike():
    """Two encoders on the same patients, the same reduction in both: significant here and not there would prove nothing."""
    p = []
    for seed in range(200):
        apart, drawn = 0.0, 0.0
        for sign, encoder in ((1, 0), (-1, 1)):
            one = Calls.of(*calls(seed, before=0.8, after=0.3, encoder=encoder))
            apart += sign * reduction(one).variance
            drawn = drawn + sign * redrawn(one, 299, seed=seed, named="t")[:, VARIANCE]
        p.append(p_of_difference(drawn, apart))
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)

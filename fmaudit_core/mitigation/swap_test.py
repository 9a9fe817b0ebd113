"""Paired tests of gap reductions: strategy labels swapped per patient, and bootstrap samples of patients, in compiled code.

Before and after are predictions for the same studies, so only patients whose predictions differ can change a statistic under a
swap, and every statistic is a sum over them. All swaps and samples are functions of (seed, row, patient): strategies, seeds and
encoders on the same patients share them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.seeding import mixed, seed_of

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: columns of results: reduction of max - min, and of the corrected between-subgroup variance
GAP, VARIANCE = 0, 1


@dataclass(frozen=True)
class Calls:
    """Predicted positives among positives, by patient and subgroup, for the unmitigated probe and for s runs of a strategy.

    Parameters
    ----------
    patient : (e,) int, ascending
    group : (e,) int, 0..g-1
    studies : (e,) float64, number of positives
    before : (e,) float64, number of them predicted positive
    after : (s, e) float64
    n_patients : int, number of patients to resample: those with a positive
    """

    patient: IntArray
    group: IntArray
    studies: Float64Array
    before: Float64Array
    after: Float64Array
    n_patients: int

    @classmethod
    def of(cls, patient: IntArray, group: IntArray, before: BoolArray, after: BoolArray) -> Calls:
        """Count predicted positives.

        Parameters
        ----------
        patient, group : (n,) int, of the positives of tested subgroups, subgroups as 0..g-1
        before : (n,) bool
        after : (s, n) bool
        """
        pairs, entry = np.unique(np.stack([patient, group], axis=1), axis=0, return_inverse=True)
        entry = entry.ravel()
        size = len(pairs)
        return cls(
            patient=pairs[:, 0].astype(np.int64),
            group=pairs[:, 1].astype(np.int64),
            studies=np.bincount(entry, minlength=size).astype(np.float64),
            before=np.bincount(entry, before.astype(np.float64), size).astype(np.float64),
            after=np.stack([np.bincount(entry, one.astype(np.float64), size) for one in after]),
            n_patients=len(np.unique(pairs[:, 0])),
        )

    @property
    def n_groups(self) -> int:
        """Return the number of compared subgroups."""
        return int(self.group.max()) + 1


@dataclass(frozen=True)
class Reduction:
    """The decrease of max - min and of the corrected variance, before minus after, as a mean over runs.

    Parameters
    ----------
    gap_before, gap_after : float, the latter the mean over runs
    variance_before, variance_after : float, between-subgroup variance minus the sampling variance; may be negative
    gap_by_run, variance_by_run : (s,) float64, after
    """

    gap_before: float
    gap_after: float
    variance_before: float
    variance_after: float
    gap_by_run: Float64Array
    variance_by_run: Float64Array

    @property
    def gap(self) -> float:
        """Return the reduction of the gap."""
        return self.gap_before - self.gap_after

    @property
    def variance(self) -> float:
        """Return the reduction of the corrected variance."""
        return self.variance_before - self.variance_after


def reduction(calls: Calls) -> Reduction:
    """Return the observed reduction."""
    all_calls = np.concatenate([calls.before[None], calls.after])
    found = np.empty((len(all_calls), 2))
    _spreads(calls.group, calls.studies, all_calls, calls.n_groups, found)
    (gap, variance), after = found[0], found[1:]
    return Reduction(
        float(gap), float(after[:, 0].mean()), float(variance), float(after[:, 1].mean()), after[:, 0], after[:, 1]
    )


def swapped(calls: Calls, n_swaps: int, *, seed: int, named: str) -> Float64Array:
    """Return reductions under the null hypothesis that before and after are exchangeable within a patient.

    Parameters
    ----------
    named : str
        Name of the set of patients; together with the seed it determines the swaps.

    Returns
    -------
    (n_swaps, 2) float64, columns `GAP` and `VARIANCE`
    """
    out = np.zeros((n_swaps, 2))
    _swap(
        np.uint64(seed_of(seed, named)),
        calls.patient,
        calls.group,
        calls.studies,
        calls.before,
        calls.after,
        calls.n_groups,
        out,
    )
    return out


def redrawn(calls: Calls, n_draws: int, *, seed: int, named: str) -> Float64Array:
    """Return reductions for patients drawn with replacement, before and after together.

    Returns
    -------
    (n_draws, 2) float64, columns `GAP` and `VARIANCE`
    """
    out = np.zeros((n_draws, 2))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(calls.patient) != 0]))
    ends = np.append(starts[1:], len(calls.patient))
    _draw(
        np.uint64(seed_of(seed, named)),
        starts,
        ends,
        calls.group,
        calls.studies,
        calls.before,
        calls.after,
        calls.n_groups,
        out,
    )
    return out


def p_of_difference(drawn: Float64Array, observed: float) -> float:
    """Return the two-sided p of a difference by the bootstrap shifted to the null: ``(1 + #{|T* - T| >= |T|}) / (B + 1)``."""
    return float((1 + np.count_nonzero(np.abs(drawn - observed) >= abs(observed) - 1e-12)) / (len(drawn) + 1))


@numba.njit(inline="always")
def _spread(n, sizes, patients, sums):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return max - min of rates over subgroups, and their variance minus the sampling variance (Lum, Zhang & Bower 2022).

    The sampling variance is the mean squared standard error. Standard errors are those of `fairness/rates.py`: patients are
    clusters, the design effect is shrunk towards full agreement, and a rate of 0 or 1 has the standard error of a rate half a
    study away.

    Parameters
    ----------
    n, sizes, patients : (g,) studies, sum of squared studies per patient, patients
    sums : (5, g)
        Sums over patients with c predicted positives of m studies: c, c^2, c m, any predicted positive, any predicted negative.
    """
    low, high, total, square, noise, count = np.inf, -np.inf, 0.0, 0.0, 0.0, 0
    for g in range(len(n)):
        if n[g] <= 0:
            continue
        rate = sums[0, g] / n[g]
        low, high = min(low, rate), max(high, rate)
        total += rate
        square += rate * rate
        count += 1
        floor = 0.5 / n[g]
        p = min(max(rate, floor), 1 - floor)
        effect = 1.0
        if sizes[g] != n[g]:
            full = plain = sizes[g] / n[g]
            if 0 < rate < 1 and patients[g] > 1:
                off = sums[1, g] - 2 * rate * sums[2, g] + rate * rate * sizes[g]
                corrected = patients[g] / (patients[g] - 1) * (n[g] - 1) / n[g]
                plain = max(1.0, corrected * off / (n[g] * rate * (1 - rate)))
            informative = min(sums[3, g], sums[4, g])
            effect = (informative * plain + max(full, plain)) / (informative + 1)
        noise += p * (1 - p) / n[g] * effect
    if count < 2:
        return 0.0, 0.0
    between = (square - total * total / count) / (count - 1)
    return high - low, between - noise / count


@numba.njit(inline="always")
def _add(sums, g, c, m, weight):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add a patient's c predicted positives of m studies, times `weight`."""
    sums[0, g] += weight * c
    sums[1, g] += weight * c * c
    sums[2, g] += weight * c * m
    sums[3, g] += weight * (c > 0)
    sums[4, g] += weight * (c < m)


@numba.njit(cache=True)
def _spreads(group, studies, calls, n_groups, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Compute the spread of each row of predictions."""
    for row in range(len(calls)):
        fixed, sums = np.zeros((3, n_groups)), np.zeros((5, n_groups))
        for e in range(len(group)):
            g, m = group[e], studies[e]
            fixed[0, g] += m
            fixed[1, g] += m * m
            fixed[2, g] += 1.0
            _add(sums, g, calls[row, e], m, 1.0)
        out[row, 0], out[row, 1] = _spread(fixed[0], fixed[1], fixed[2], sums)


@numba.njit(parallel=True, cache=True)
def _swap(seed, patient, group, studies, before, after, n_groups, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    n_runs = len(after)
    fixed = np.zeros((3, n_groups))
    for e in range(len(group)):
        fixed[0, group[e]] += studies[e]
        fixed[1, group[e]] += studies[e] * studies[e]
        fixed[2, group[e]] += 1.0
    start = np.zeros((n_runs, 2, 5, n_groups))
    differ = np.empty((n_runs, len(group)), dtype=np.int64)
    n_differ = np.zeros(n_runs, dtype=np.int64)
    for run in range(n_runs):
        for e in range(len(group)):
            for side in range(2):
                c = before[e] if side == 0 else after[run, e]
                _add(start[run, side], group[e], c, studies[e], 1.0)
            if before[e] != after[run, e]:
                differ[run, n_differ[run]] = e
                n_differ[run] += 1
    for b in numba.prange(len(out)):
        row = mixed(seed + np.uint64(b) * np.uint64(0xD1342543DE82EF95))
        gap, variance = 0.0, 0.0
        for run in range(n_runs):
            first, second = start[run, 0].copy(), start[run, 1].copy()
            for i in range(n_differ[run]):
                e = differ[run, i]
                if mixed(row + np.uint64(patient[e] + 1) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(63):
                    g, c0, c1, m = group[e], before[e], after[run, e], studies[e]
                    _add(first, g, c1, m, 1.0)
                    _add(first, g, c0, m, -1.0)
                    _add(second, g, c0, m, 1.0)
                    _add(second, g, c1, m, -1.0)
            gap0, variance0 = _spread(fixed[0], fixed[1], fixed[2], first)
            gap1, variance1 = _spread(fixed[0], fixed[1], fixed[2], second)
            gap += gap0 - gap1
            variance += variance0 - variance1
        out[b, 0], out[b, 1] = gap / n_runs, variance / n_runs


@numba.njit(parallel=True, cache=True)
def _draw(seed, starts, ends, group, studies, before, after, n_groups, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    n_patients, n_runs = len(starts), len(after)
    for b in numba.prange(len(out)):
        row = mixed(seed + np.uint64(b) * np.uint64(0xD1342543DE82EF95))
        weight = np.zeros(n_patients)
        for i in range(n_patients):
            z = mixed(row + np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15))
            weight[np.int64(((z >> np.uint64(32)) * np.uint64(n_patients)) >> np.uint64(32))] += 1.0
        fixed = np.zeros((3, n_groups))
        sums = np.zeros((n_runs + 1, 5, n_groups))
        for i in range(n_patients):
            if weight[i] == 0:
                continue
            for e in range(starts[i], ends[i]):
                g, m = group[e], studies[e]
                fixed[0, g] += weight[i] * m
                fixed[1, g] += weight[i] * m * m
                fixed[2, g] += weight[i]
                for run in range(n_runs + 1):
                    c = before[e] if run == 0 else after[run - 1, e]
                    _add(sums[run], g, c, m, weight[i])
        gap0, variance0 = _spread(fixed[0], fixed[1], fixed[2], sums[0])
        for run in range(1, n_runs + 1):
            gap1, variance1 = _spread(fixed[0], fixed[1], fixed[2], sums[run])
            out[b, 0] += (gap0 - gap1) / n_runs
            out[b, 1] += (variance0 - variance1) / n_runs

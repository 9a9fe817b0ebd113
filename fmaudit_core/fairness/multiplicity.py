"""Multiple testing: family-wise error of the declared family, false discovery rate of the whole grid."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numba
import numpy as np
import numpy.typing as npt
import scipy

Float64Array = npt.NDArray[np.float64]

#: statistics that differ only by rounding count as equal: relative, because summation order varies, and absolute near 0
RELATIVE_DUST: Final = 1e-9
DUST: Final = 1e-12


def step_down_max_t(observed: Sequence[float] | Float64Array, null: Float64Array) -> Float64Array:
    """Return the family-wise adjusted p of several statistics by Westfall & Young's step-down procedure.

    Parameters
    ----------
    observed : k statistics, larger is more extreme
    null : (B, k) float, the same statistics under permutation; each row is computed from one permutation

    Returns
    -------
    (k,) float64, monotone in the order of the statistics

    Notes
    -----
    Statistics of different attributes have different nulls (Q over two or over six subgroups). Each is first turned into
    its own permutation p-value, for observed and permuted data alike. The maximum is taken over 1 - p (the balanced form).

    References
    ----------
    Westfall & Young 1993, algorithm 2.8; Ge, Dudoit & Speed 2003.
    """
    return step_down(observed, null)[1]


def step_down(observed: Sequence[float] | Float64Array, null: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the raw permutation p of each statistic and its `step_down_max_t`, both (k,) float64."""
    k, n = len(observed), len(null)
    if k == 0:
        return np.empty(0), np.empty(0)
    as_extreme, of_null = exceedances(np.asarray(observed, dtype=np.float64), null)
    raw = (1 + as_extreme) / (n + 1)
    order = np.argsort(as_extreme, kind="stable")
    # smallest count among this hypothesis and all less extreme ones, for every permutation
    least = np.minimum.accumulate(of_null[order[::-1]], axis=0)[::-1]
    # a permutation's count is out of n, the observed p out of n + 1
    most = (1 + as_extreme[order]) * n // (n + 1)
    adjusted = (1 + np.count_nonzero(least <= most[:, None], axis=1)) / (n + 1)
    out = np.empty(k)
    out[order] = np.maximum.accumulate(adjusted)
    return raw, np.maximum(out, raw)


def exceedances(observed: Float64Array, null: Float64Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Count the null values of each statistic that are at least as large as the observed value, and as each null value.

    Values that differ only by rounding count as equal.

    Parameters
    ----------
    observed : (k,) float64
    null : (B, k) float64

    Returns
    -------
    (k,) int64 and (k, B) int32
    """
    n, k = null.shape
    across = np.ascontiguousarray(null.T)
    order = np.empty((k, n), dtype=np.int64)

    def sort(j: int) -> None:
        order[j] = np.argsort(across[j])

    with ThreadPoolExecutor(numba.get_num_threads()) as threads:  # sorting releases the GIL
        list(threads.map(sort, range(k)))
    as_extreme, of_null = np.empty(k, dtype=np.int64), np.empty((k, n), dtype=np.int32)
    _exceedances(across, order, observed, as_extreme, of_null)
    return as_extreme, of_null


@numba.njit(parallel=True, cache=True)
def _exceedances(null, order, observed, as_extreme, of_null):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Count in one ascending pass over the null values of each statistic. A value close to the previous one shares its count."""
    k, n = null.shape
    for j in numba.prange(k):
        first, above = 0, 0
        least = observed[j] - RELATIVE_DUST * abs(observed[j]) - DUST
        for place in range(n):
            at = order[j, place]
            lower = null[j, order[j, place - 1]] if place else 0.0
            if place and null[j, at] > lower + RELATIVE_DUST * abs(lower) + DUST:
                first = place
            of_null[j, at] = n - first
            above += null[j, at] >= least
        as_extreme[j] = above


def holm(p: Float64Array, weights: Float64Array | None = None) -> Float64Array:
    """Return Holm's (1979) family-wise adjusted p, valid under any dependence. NaN stays NaN and is not counted.

    Parameters
    ----------
    p : (k,) float64
    weights : (k,) float64, above 0; equal if None
        How the error is shared between the hypotheses (Holm 1979, section 4). They must not depend on the data that p is of.
    """
    of = np.ones(len(p)) if weights is None else weights
    out = np.full(len(p), np.nan)
    at = np.flatnonzero(~np.isnan(p))
    order = at[np.argsort(p[at] / of[at], kind="stable")]
    remaining = np.cumsum(of[order][::-1])[::-1]
    out[order] = np.minimum(np.maximum.accumulate(p[order] / of[order] * remaining), 1.0)
    return out


def benjamini_hochberg(p: Float64Array) -> Float64Array:
    """q-values of Benjamini & Hochberg (1995); NaN stays NaN and counts for nothing."""
    out, known = np.full(len(p), np.nan), ~np.isnan(p)
    if known.any():
        out[known] = scipy.stats.false_discovery_control(p[known])
    return out

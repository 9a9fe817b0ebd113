"""Many tests at once: the family-wise error of the declared family, the false discovery rate of the whole grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

#: statistics that differ by rounding only are equal
DUST: Final = 1e-12


def step_down_max_t(observed: Sequence[float] | Float64Array, null: Float64Array) -> Float64Array:
    """Family-wise adjusted p of several statistics by Westfall & Young's step-down procedure.

    Parameters
    ----------
    observed : k statistics, larger is more extreme
    null : (B, k) float, the same statistics under each permutation, row b by one and the same deal

    Returns
    -------
    (k,) float64, monotone in the order of the statistics

    Notes
    -----
    Statistics of different attributes have different nulls (Q over two or over six subgroups). Each is first turned into
    its own permutation p-value, observed and dealt alike, and the maximum is taken over 1 - p: the balanced form.

    References
    ----------
    Westfall & Young 1993, algorithm 2.8; Ge, Dudoit & Speed 2003.
    """
    k, n = len(observed), len(null)
    if k == 0:
        return np.empty(0)
    as_extreme, of_null = exceedances(np.asarray(observed), null)
    raw = (1 + as_extreme) / (n + 1)
    order = np.argsort(as_extreme, kind="stable")
    # the least count among this hypothesis and all less extreme ones, for every deal
    least = np.minimum.accumulate(of_null[order[::-1]], axis=0)[::-1]
    # a deal's own count is out of n, the observed one's p out of n + 1
    adjusted = (1 + (least * (n + 1) <= (1 + as_extreme[order])[:, None] * n).sum(axis=1)) / (n + 1)
    out = np.empty(k)
    out[order] = np.maximum.accumulate(adjusted)
    return np.maximum(out, raw)


def exceedances(observed: Float64Array, null: Float64Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many of a statistic's null values are at least as large: as the observed one, and as each null value itself.

    Values that differ by rounding only are equal.

    Parameters
    ----------
    observed : (k,) float64
    null : (B, k) float64

    Returns
    -------
    (k,) and (k, B) int64
    """
    n, k = null.shape
    across = np.ascontiguousarray(null.T)
    order = np.argsort(across, axis=1)
    ranked = np.take_along_axis(across, order, axis=1)
    apart = np.empty((k, n), dtype=bool)
    apart[:, :1] = True
    np.greater(ranked[:, 1:], ranked[:, :-1] + DUST, out=apart[:, 1:])
    first = np.maximum.accumulate(np.where(apart, np.arange(n), 0), axis=1)
    of_null = np.empty((k, n), dtype=np.int64)
    np.put_along_axis(of_null, order, n - first, axis=1)
    as_extreme = np.array([n - np.searchsorted(row, one - DUST) for row, one in zip(ranked, observed, strict=True)])
    return as_extreme.astype(np.int64), of_null


def benjamini_hochberg(p: Float64Array) -> Float64Array:
    """q-values of Benjamini & Hochberg (1995); NaN stays NaN and counts for nothing."""
    out = np.full(len(p), np.nan)
    at = np.flatnonzero(~np.isnan(p))
    if len(at) == 0:
        return out
    order = at[np.argsort(p[at], kind="stable")]
    scaled = p[order] * len(at) / np.arange(1, len(at) + 1)
    out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out

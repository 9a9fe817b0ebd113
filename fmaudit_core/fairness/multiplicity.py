"""Many tests at once: the family-wise error of the declared family, the false discovery rate of the whole grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]


def step_down_max_t(observed: Sequence[float], null: Float64Array) -> Float64Array:
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
    raw = np.empty(k)
    dealt = np.empty((n, k))
    for j in range(k):
        ranked = np.sort(null[:, j])
        raw[j] = (1 + n - np.searchsorted(ranked, observed[j] - 1e-12, side="left")) / (n + 1)
        dealt[:, j] = (n - np.searchsorted(ranked, null[:, j] - 1e-12, side="left")) / n
    order = np.argsort(raw, kind="stable")
    # the least p among this hypothesis and all less extreme ones, for every deal
    least = np.minimum.accumulate(dealt[:, order[::-1]], axis=1)[:, ::-1]
    adjusted = (1 + (least <= raw[order]).sum(axis=0)) / (n + 1)
    out = np.empty(k)
    out[order] = np.maximum.accumulate(adjusted)
    return np.maximum(out, raw)


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

"""Sums over the units of each subgroup of quantities that do not depend on the labels, such as studies or studies called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.labellings import LANES, Labellings, by_labelling

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: units that can be counted in 8 bits
FEW: Final = 255


@dataclass(frozen=True)
class Kinds:
    """Units grouped by kind, with the contribution of one unit of each kind to each of several sums.

    Parameters
    ----------
    units : (u,) int64, units in order of kind; units that contribute nothing are left out
    ends : (t,) int64, end of each kind in `units`
    weights : (t, w) float64, contributions
    """

    units: IntArray
    ends: IntArray
    weights: Float64Array

    @classmethod
    def of(cls, columns: Sequence[IntArray], weights: Float64Array) -> Kinds:
        """Group units by (k,) integer `columns`, on which their (k, w) `weights` depend."""
        adding = np.flatnonzero(weights.any(axis=1))
        key = np.zeros(len(adding), dtype=np.int64)
        for column in columns:
            key = key * (int(column.max(initial=0)) + 1) + column[adding]
        _, kind = np.unique(key, return_inverse=True)
        order = np.argsort(kind, kind="stable")
        ends = np.cumsum(np.bincount(kind))
        firsts = adding[order[ends - 1]] if len(ends) else adding
        return cls(adding[order].astype(np.int64), ends.astype(np.int64), weights[firsts])

    def summed(self, labellings: Labellings, n_groups: int) -> Float64Array:
        """Return the sums by subgroup of every labelling, (w, B, n_groups)."""
        lanes = labellings.lanes
        out = np.zeros((len(lanes), self.weights.shape[1], n_groups, LANES))
        _sum_kinds(self.units, self.ends, self.weights, lanes, out)
        return by_labelling(out.transpose(1, 0, 2, 3), labellings.size)


@numba.njit(parallel=True, cache=True)
def _sum_kinds(units, ends, weights, lanes, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    n_groups, n_sums = out.shape[2], out.shape[1]
    for block in numba.prange(len(lanes)):
        labels = lanes[block]
        start = 0
        for kind in range(len(ends)):
            counted = np.zeros((n_groups, LANES), dtype=np.int32)
            for first in range(start, ends[kind], FEW):
                few = np.zeros((n_groups, LANES), dtype=np.uint8)
                for place in range(first, min(first + FEW, ends[kind])):
                    tally(labels[units[place]], few)
                for group in range(n_groups):
                    for lane in range(LANES):
                        counted[group, lane] += np.int32(few[group, lane])
            start = ends[kind]
            for w in range(n_sums):
                weight = weights[kind, w]
                if weight != 0.0:
                    for group in range(n_groups):
                        for lane in range(LANES):
                            out[block, w, group, lane] += weight * counted[group, lane]


@numba.njit(cache=True)
def tally(labels, few):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Count one unit under its label in every labelling. `few` is (n_groups, LANES) uint8 and holds at most `FEW` units."""
    for group in range(len(few)):
        own_label = labels.dtype.type(group)
        for lane in range(LANES):
            few[group, lane] = np.uint8(few[group, lane] + np.uint8(labels[lane] == own_label))

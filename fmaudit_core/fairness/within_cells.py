"""Permutation of subgroup labels between patients with the same covariates, for adjusted differences of rates.

Among patients whose studies have the same covariates, the labels of the subgroup are exchangeable if nothing but the covariates
goes with the gap. Such permutations leave the fitted propensity as it is, because they leave the sums that it is fitted to.
(Labels permuted within fifths of the propensity reject 9 % of true nulls at 5 %, because patients in a fifth still differ.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.gaps import exceedance
from fmaudit_core.fairness.propensity import Propensity
from fmaudit_core.fairness.seeding import seed_of

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

N_PERMUTATIONS: Final = 199


@dataclass(frozen=True)
class WithinCells:
    """Permuted labels of units: the studies of one class of a patient, on one side.

    Parameters
    ----------
    fitted : Propensity
    unit : (n,) int64, unit of each study
    members : (B + 1, k) bool, the labels of the units, as they are first
    """

    fitted: Propensity
    unit: IntArray
    members: BoolArray

    @classmethod
    def of(cls, fitted: Propensity, covariates: IntArray, patient: IntArray, seed: int) -> WithinCells | None:
        """Permute the labels; None if no two patients with the same covariates are on different sides.

        Parameters
        ----------
        covariates : (n, c) int64, levels
        patient : (n,) int64, patient codes
        """
        # a patient on both sides (an age band) is one unit on each
        unit = np.unique(2 * patient + fitted.member, return_inverse=True)[1].ravel()
        cells = np.unique(covariates, axis=0, return_inverse=True)[1].ravel()
        counts = np.zeros((int(unit.max()) + 1, int(cells.max()) + 1), dtype=np.int64)
        np.add.at(counts, (unit, cells), 1)
        pattern = np.unique(counts, axis=0, return_inverse=True)[1].ravel()
        label = np.zeros(len(counts), dtype=bool)
        label[unit] = fitted.member
        members = np.bincount(pattern, label)
        mixed = np.flatnonzero((members > 0) & (members < np.bincount(pattern)))
        if not len(mixed):
            return None
        rng = np.random.default_rng(seed_of(seed, "within_cells"))
        permuted = np.tile(label, (N_PERMUTATIONS + 1, 1))
        for one in mixed:
            alike = np.flatnonzero(pattern == one)
            permuted[1:, alike] = rng.permuted(permuted[1:, alike], axis=1)
        return cls(fitted, unit, permuted)

    def p_value(self, event: BoolArray) -> float:
        """Return the permutation p of the adjusted difference in a rate, studentised in every permutation.

        Parameters
        ----------
        event : (n,) bool
        """
        statistic = _statistics(self.members, self._sums(event.astype(np.float64)), self.fitted.covariance)
        return exceedance(statistic[1:], float(statistic[0]))

    def _sums(self, y: Float64Array) -> Float64Array:
        """Return sums over the studies of each unit, (k, 4 + 4 p): of the weights on both sides and their products with y, of the
        design, of the design times the probability, and of the design times the weights' derivative and its product with y.
        """
        e, inside, x = self.fitted.probability, self.fitted.inside, self.fitted.design
        first, slope = (1 - e) * inside, (e * (1 - e))[:, None] * x
        columns = np.column_stack([first, first * y, e, e * y, x, e[:, None] * x, slope, slope * y[:, None]])
        out = np.zeros((self.members.shape[1], columns.shape[1]))
        np.add.at(out, self.unit, columns)
        return out


@numba.njit(cache=True)
def _statistics(members, sums, covariance):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return the difference over its standard error for labels (b, k), as `Weights.mean` has it, from sums by unit."""
    n, k = members.shape
    p = len(covariance)
    x, of_e, slope, slope_y = 4, 4 + p, 4 + 2 * p, 4 + 3 * p
    out = np.zeros(n)
    for row in range(n):
        totals, events = np.zeros(2), np.zeros(2)
        slopes, slopes_y = np.zeros((2, p)), np.zeros((2, p))
        for u in range(k):
            side = 0 if members[row, u] else 1
            totals[side] += sums[u, 2 * side]
            events[side] += sums[u, 2 * side + 1]
            for j in range(p):
                slopes[side, j] += sums[u, slope + j]
                slopes_y[side, j] += sums[u, slope_y + j]
        if totals[0] <= 0 or totals[1] <= 0:
            continue
        means = events / totals
        turn = np.zeros(p)
        for side in range(2):
            turn -= covariance @ ((slopes_y[side] - means[side] * slopes[side]) / totals[side])
        variance = 0.0
        for u in range(k):
            side = 0 if members[row, u] else 1
            influence = (sums[u, 2 * side + 1] - means[side] * sums[u, 2 * side]) / totals[side]
            if side == 1:
                influence = -influence
            for j in range(p):
                influence -= turn[j] * sums[u, of_e + j]
                if side == 0:
                    influence += turn[j] * sums[u, x + j]
            variance += influence * influence
        if variance > 1e-18:
            out[row] = abs(means[0] - means[1]) / np.sqrt(variance)
    return out

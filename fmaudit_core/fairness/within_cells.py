"""Permutation of subgroup labels between patients with the same covariates, for adjusted differences of rates.

Among patients whose studies have the same covariates, the labels of the subgroup are exchangeable if nothing but the covariates
goes with the gap. Such permutations leave the fitted propensity as it is, because they leave the sums that it is fitted to.
(Labels permuted within fifths of the propensity reject 9 % of true nulls at 5 %, because patients in a fifth still differ.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.gaps import exceedance
from fmaudit_core.fairness.propensity import Propensity
from fmaudit_core.fairness.seeding import seed_of

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

N_PERMUTATIONS: Final = 499


@dataclass(frozen=True)
class WithinCells:
    """Permuted labels of the n studies of one class.

    Parameters
    ----------
    fitted : Propensity
    patient : (n,) int64, patient codes from 0
    members : (B + 1, n) bool, the labels as they are first
    """

    fitted: Propensity
    patient: IntArray
    members: BoolArray

    @classmethod
    def of(cls, fitted: Propensity, covariates: IntArray, patient: IntArray, seed: int) -> WithinCells | None:
        """Permute the labels; None if no two patients with the same covariates are on different sides.

        Parameters
        ----------
        covariates : (n, c) int64, levels
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
        if not ((members > 0) & (members < np.bincount(pattern))).any():
            return None
        rng = np.random.default_rng(seed_of(seed, "within_cells"))
        sorted_units = np.argsort(pattern, kind="stable")
        keys = pattern[sorted_units] + rng.random((N_PERMUTATIONS, len(counts)))
        permuted = np.empty((N_PERMUTATIONS + 1, len(counts)), dtype=bool)
        permuted[0] = label
        permuted[1:, sorted_units] = label[sorted_units][np.argsort(keys, axis=1)]
        return cls(fitted, patient, permuted[:, unit])

    def p_value(self, event: BoolArray) -> float:
        """Return the permutation p of the adjusted difference in a rate, studentised in every permutation.

        Parameters
        ----------
        event : (n,) bool
        """
        e, x = self.fitted.probability, self.fitted.design
        inside = self.fitted.inside.astype(np.float64)
        a = self.members.astype(np.float64)
        y = event.astype(np.float64)
        first, rest = a * ((1 - e) * inside), (1 - a) * e
        totals = np.maximum(first.sum(axis=1), 1e-12), np.maximum(rest.sum(axis=1), 1e-12)
        means = [(w @ y / total)[:, None] for w, total in zip((first, rest), totals, strict=True)]
        off_first = a * (y - means[0]) / totals[0][:, None]
        off_rest = (1 - a) * (y - means[1]) / totals[1][:, None]
        influence = (1 - e) * inside * off_first - e * off_rest
        of_propensity = (-e * (1 - e) * (off_first + off_rest)) @ x @ self.fitted.covariance
        influence += inside * (a - e) * (of_propensity @ x.T)
        order = np.argsort(self.patient, kind="stable")
        starts = np.flatnonzero(np.diff(self.patient[order], prepend=-1))
        by_patient = np.add.reduceat(influence[:, order], starts, axis=1)
        variance = (by_patient**2).sum(axis=1)
        difference = np.abs(means[0] - means[1])[:, 0]
        statistic = np.divide(difference, np.sqrt(variance), out=np.zeros_like(difference), where=variance > 1e-18)
        return exceedance(statistic[1:], float(statistic[0]))

"""Units of permutation: patients within one subgroup, with their numbers of studies by class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.kinds import Kinds
from fmaudit_core.fairness.labellings import Labellings, Labels, labels

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """Units of the permutation test.

    A unit is a patient within one subgroup. A patient whose subgroup changes between studies (an age band) is one unit in each
    subgroup, and each unit is permuted separately.

    Parameters
    ----------
    of_study : (n,) int64, unit of each study, 0..k-1
    group : (k,) subgroup of each unit, 0..n_groups-1
    positives, negatives : (k,) int64, studies of each class
    n_groups : int
    """

    of_study: IntArray
    group: Labels
    positives: IntArray
    negatives: IntArray
    n_groups: int

    @classmethod
    def of(
        cls, group: npt.NDArray[np.integer], patient: npt.NDArray[np.integer], positive: npt.NDArray[np.bool_]
    ) -> Units:
        """Find the units of n studies.

        Parameters
        ----------
        group : (n,) int, subgroup code of each study, 0..n_groups-1
        patient : (n,) int, patient code of each study
        positive : (n,) bool
        """
        n_groups = int(group.max(initial=0)) + 1
        _, codes = np.unique(patient, return_inverse=True)
        keys, of_study = np.unique(codes.astype(np.int64) * n_groups + group, return_inverse=True)
        n_studies, positives = np.bincount(of_study), np.bincount(of_study, positive).astype(np.int64)
        return cls(
            of_study.astype(np.int64), labels(keys % n_groups, n_groups), positives, n_studies - positives, n_groups
        )

    @property
    def rarer(self) -> npt.NDArray[np.bool_]:
        """Return whether each unit has a study of the rarer class, the class that fewer units have: (k,) bool."""
        positive, negative = self.positives > 0, self.negatives > 0
        return positive if positive.sum() <= negative.sum() else negative

    @property
    def several(self) -> npt.NDArray[np.bool_]:
        """Return whether each unit has more than one study: (k,) bool."""
        return self.positives + self.negatives > 1

    def sizes(self, labellings: Labellings, n_groups: int) -> ClassSizes:
        """Count studies and patients of every subgroup of labellings, each label below `n_groups`."""
        one = self._kinds.summed(labellings, n_groups)
        return ClassSizes((one[0], one[1]), (one[2], one[3]), (one[4], one[5]), (one[6], one[7]), one[8])

    @cached_property
    def _kinds(self) -> Kinds:
        m, n, several = self.positives, self.negatives, self.several
        columns = [m, n, m > 0, n > 0, m * m, n * n, m * several, n * several, np.ones_like(m)]
        return Kinds.of([m, n], np.stack(columns, axis=1).astype(np.float64))


@dataclass(frozen=True)
class ClassSizes:
    """Class sizes by subgroup, which depend only on labels. Each is (B, n_groups) float64, in pairs (positives, negatives).

    Parameters
    ----------
    studies, patients, squares : studies, units with at least one, sum of squared numbers of studies per unit
    clustered : studies of units with more than one study
    units : number of units
    """

    studies: tuple[Float64Array, Float64Array]
    patients: tuple[Float64Array, Float64Array]
    squares: tuple[Float64Array, Float64Array]
    clustered: tuple[Float64Array, Float64Array]
    units: Float64Array

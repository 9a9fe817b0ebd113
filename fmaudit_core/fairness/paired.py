"""Comparison of two models on the same studies: difference, interval, p, and non-inferiority.

For one model see `auroc.py` and `rates.py`, for a table of all pairs `comparisons.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from fmaudit_core.fairness.auroc import structural_components
from fmaudit_core.fairness.by_patient import ByPatient
from fmaudit_core.fairness.intervals import normal_quantile
from fmaudit_core.fairness.multiplicity import DUST

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Paired:
    """A metric of two models on the same studies.

    Parameters
    ----------
    first, second : float
    se : float, standard error of `first - second`, clustered by patient; None if it cannot be estimated
    n_patients : int, patients compared; for AUROC the patients of the smaller class

    Notes
    -----
    If every patient favours the same model equally (all found by one, all missed by the other), the standard error is 0 and not
    informative. Then patients are counted: p is from the sign test, and the interval is Clopper & Pearson's (1934) for a share of
    all patients.
    """

    first: float
    second: float
    se: float | None
    n_patients: int

    @property
    def difference(self) -> float:
        """Return the first value minus the second."""
        return self.first - self.second

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Return the Wald interval of the difference, within [-1, 1]; None if no study distinguishes the models."""
        if self._is_unanimous:
            ends = self.difference, self.difference * ((1 - confidence) / 2) ** (1 / self.n_patients)
            return min(ends), max(ends)
        if self._spread is None:
            return None
        half = normal_quantile(confidence) * self._spread
        return max(-1.0, self.difference - half), min(1.0, self.difference + half)

    def p_value(self) -> float | None:
        """Return the two-sided p for no difference."""
        if self._is_unanimous:
            return min(1.0, 2 * 0.5**self.n_patients)
        if self._spread is None:
            return None
        return float(2 * ndtr(-abs(self.difference) / self._spread))

    def p_non_inferior(self, margin: float, *, higher_is_better: bool) -> float | None:
        """Return the one-sided p for the null that the first is worse than the second by the margin or more."""
        ahead = self.difference if higher_is_better else -self.difference
        if self._is_unanimous:
            return float(0.5**self.n_patients) if ahead > -margin else 1.0
        if self._spread is None:
            return None
        return float(ndtr(-(ahead + margin) / self._spread))

    @property
    def _spread(self) -> float | None:
        """Return the standard error, or None if it is not informative."""
        return self.se if self.se is not None and self.se > DUST else None

    @property
    def _is_unanimous(self) -> bool:
        return self.se is not None and self._spread is None and abs(self.difference) > DUST


def paired_auroc(
    y_true: BoolArray, first: Float64Array, second: Float64Array, patient: npt.NDArray[np.integer] | None = None
) -> Paired | None:
    """Compute the difference of two AUROCs on the same studies.

    Parameters
    ----------
    y_true : (n,) bool
    first, second : (n,) float, scores of the two models in the same order
    patient : (n,) int codes, optional
        If not given, every study counts as a separate patient, which is DeLong's test.

    Returns
    -------
    Paired, None if a class is missing

    References
    ----------
    DeLong, DeLong & Clarke-Pearson 1988; Obuchowski 1997, Biometrics 53:567.
    """
    if not y_true.any() or y_true.all():
        return None
    return paired_components(
        y_true, structural_components(y_true, first), structural_components(y_true, second), patient
    )


def paired_components(
    y_true: BoolArray, one: Float64Array, two: Float64Array, patient: npt.NDArray[np.integer] | None = None
) -> Paired:
    """Compute `paired_auroc` from the structural components of both models."""
    return paired(*(ByPatient.of_components(y_true, each, patient) for each in (one, two)))


def paired(one: ByPatient, two: ByPatient) -> Paired:
    """Compare the same metric of two models on the same studies.

    References
    ----------
    Of rates: Durkalski et al. 2003 (clustered McNemar test); with one study per patient, McNemar's test with unpooled variance.
    """
    return Paired(one.value, two.value, one.minus(two).se, one.n_patients)

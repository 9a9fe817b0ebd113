"""Standard errors with patients as clusters, from the sum of each patient's residuals.

AUROC: DeLong, DeLong & Clarke-Pearson 1988; Obuchowski 1997, Biometrics 53:567. Rates: Durkalski et al. 2003.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.cluster_sizes import n_patients, patient_codes, patients_by_class

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ByPatient:
    """A metric of one model, or the difference of two on the same studies, with the residuals of each patient.

    Parameters
    ----------
    value : float
    residuals : (parts, patients) float64, each patient's sum of (study - mean), by class
    weights : (parts, parts) float64
        The variance is the sum of ``weights * (residuals @ residuals.T)``. NaN with fewer than two patients of a class.
    n_patients : int, patients compared; for AUROC the patients of the smaller class
    """

    value: float
    residuals: Float64Array
    weights: Float64Array
    n_patients: int

    @property
    def se(self) -> float | None:
        """Return the standard error; None with fewer than two patients of a class."""
        variance = float((self.weights * (self.residuals @ self.residuals.T)).sum())
        return None if np.isnan(variance) else max(variance, 0.0) ** 0.5

    def minus(self, other: ByPatient) -> ByPatient:
        """Return the difference from the same metric of another model on the same studies."""
        return ByPatient(self.value - other.value, self.residuals - other.residuals, self.weights, self.n_patients)

    @classmethod
    def of_components(
        cls, y_true: BoolArray, components: Float64Array, patient: npt.NDArray[np.integer] | None = None
    ) -> ByPatient:
        """Compute the AUROC from the structural components, (n,) float64 of `auroc.structural_components`.

        Parameters
        ----------
        patient : (n,) int codes, optional
            If not given, every study counts as a separate patient, which gives DeLong's variance.
        """
        codes = np.arange(len(y_true)) if patient is None else patient_codes(patient)
        value = float(components[y_true].mean())
        highest = int(codes.max()) + 1
        residuals = [np.bincount(codes[of], components[of] - value, highest) for of in (y_true, ~y_true)]
        m, n = int(y_true.sum()), int((~y_true).sum())
        k_pos, k_neg = patients_by_class(y_true, codes)
        crossed = _corrected(n_patients(codes)) / (m * n)
        weights = [[_corrected(k_pos) / m**2, crossed], [crossed, _corrected(k_neg) / n**2]]
        return cls(value, np.stack(residuals), np.array(weights), min(k_pos, k_neg))

    @classmethod
    def of_calls(cls, called: BoolArray, patient: npt.NDArray[np.integer]) -> ByPatient:
        """Compute the share of studies that are called, from (n,) studies of one class, n at least 1."""
        codes, share = patient_codes(patient), float(called.mean())
        k = n_patients(codes)
        weights = np.array([[_corrected(k) / len(called) ** 2]])
        residuals: Float64Array = np.bincount(codes, called - share).astype(np.float64)
        return cls(share, residuals[None], weights, k)


def _corrected(k: int) -> float:
    return k / (k - 1) if k > 1 else np.nan

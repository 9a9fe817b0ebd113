"""Rates of a subgroup at every threshold, with a simultaneous confidence band."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.cluster_sizes import cluster_sizes, patient_codes

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sweep:
    """TPR and FPR of one subgroup at each of its distinct scores, ascending. Bands are given as half-widths.

    Parameters
    ----------
    threshold, tpr, fpr : (k,) float64
    tpr_half_width, fpr_half_width : float
    """

    threshold: Float64Array
    tpr: Float64Array
    fpr: Float64Array
    tpr_half_width: float
    fpr_half_width: float


def sweep(
    y_true: npt.NDArray[np.bool_], y_score: Float64Array, patient: npt.NDArray[np.integer], confidence: float
) -> Sweep:
    """Compute TPR and FPR at every threshold for one subgroup that has positives and negatives.

    References
    ----------
    Massart 1990 (constant of the Dvoretzky-Kiefer-Wolfowitz inequality), with the effective number of studies under
    clustering by patient.
    """
    threshold = np.unique(y_score)
    positive, negative = np.sort(y_score[y_true]), np.sort(y_score[~y_true])
    tpr = 1 - np.searchsorted(positive, threshold, side="left") / len(positive)
    fpr = 1 - np.searchsorted(negative, threshold, side="left") / len(negative)
    halves = [_half_width(patient[of], confidence) for of in (y_true, ~y_true)]
    return Sweep(threshold, tpr, fpr, *halves)


def _half_width(patient: npt.NDArray[np.integer], confidence: float) -> float:
    sizes = cluster_sizes(patient_codes(patient))
    effective = sizes.sum() ** 2 / (sizes @ sizes)
    return math.sqrt(math.log(2 / (1 - confidence)) / (2 * effective))

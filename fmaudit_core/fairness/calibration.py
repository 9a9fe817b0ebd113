"""Calibration of a model's probabilities in a subgroup: slope, intercept and error.

A TPR gap with the opposite FPR gap at every threshold indicates shifted scores. Calibration per subgroup shows the shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from fmaudit_core.fairness.calibration_fit import fit_intercept, fit_slope
from fmaudit_core.fairness.intervals import normal_quantile

Float64Array = npt.NDArray[np.float64]

#: probabilities are kept this far from 0 and 1, whose log odds are infinite
_EDGE: Final = 1e-6
_STUDIES_PER_BIN: Final = 20
_MOST_BINS: Final = 10


@dataclass(frozen=True)
class Calibration:
    """Calibration of one group of studies.

    Parameters
    ----------
    slope, slope_se : of the outcome's log odds on the score's; 1 is ideal, below 1 the scores are too extreme
    intercept, intercept_se : calibration in the large, with the slope fixed at 1; 0 is ideal, above 0 risk is underestimated.
        The slope is None if the scores separate the classes. A standard error is None if there is only one patient.
    ece : mean distance between predicted and observed rate over bins of equal size
    ece_by_chance : expected `ece` of a perfectly calibrated model in the same bins; it is above 0 in finite samples
    """

    slope: float | None
    slope_se: float | None
    intercept: float
    intercept_se: float | None
    ece: float
    ece_by_chance: float


def is_probability(score: Float64Array) -> bool:
    """Return whether scores can be probabilities. Decision values and ranks cannot be calibrated."""
    return bool(len(score)) and bool(score.min() >= 0.0) and bool(score.max() <= 1.0)


def calibration(y_true: npt.NDArray[np.bool_], score: Float64Array, patient: npt.NDArray[np.integer]) -> Calibration:
    """Compute the calibration of one group that has positives and negatives.

    Parameters
    ----------
    y_true : (n,) bool
    score : (n,) float in [0, 1]; values closer than 1e-6 to 0 or 1 are moved to that distance
    patient : (n,) int codes; standard errors are robust to clustering by patient

    References
    ----------
    Cox 1958 (slope, intercept); Van Calster et al. 2019, BMC Medicine 17:230; Liang & Zeger 1986 (clustered errors).
    """
    log_odds = logit(np.clip(score, _EDGE, 1 - _EDGE))
    slope, intercept = fit_slope(y_true, log_odds, patient), fit_intercept(y_true, log_odds, patient)
    ece, by_chance = _error(y_true.astype(np.float64), score)
    value, se = (None, None) if slope is None else (slope.value, slope.se)
    return Calibration(value, se, intercept.value, intercept.se, ece, by_chance)


def wald(value: float | None, se: float | None, confidence: float) -> tuple[float, float] | tuple[None, None]:
    """Return the Wald interval of a coefficient."""
    if value is None or se is None:
        return None, None
    half = normal_quantile(confidence) * se
    return value - half, value + half


def _error(y: Float64Array, score: Float64Array) -> tuple[float, float]:
    """Return the expected calibration error in bins of equal size, and its expectation under perfect calibration."""
    n = len(y)
    bins = np.array_split(np.argsort(score, kind="stable"), max(1, min(_MOST_BINS, n // _STUDIES_PER_BIN)))
    found = chance = 0.0
    for one in bins:
        found += len(one) / n * abs(float(y[one].mean() - score[one].mean()))
        # mean of |normal| with the binomial's variance
        spread = np.sqrt(float((score[one] * (1 - score[one])).sum())) / len(one)
        chance += len(one) / n * float(spread) * float(np.sqrt(2 / np.pi))
    return found, chance

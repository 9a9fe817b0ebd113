"""How far a model's probabilities can be believed in a subgroup: calibration slope, intercept and error.

A gap in TPR with the opposite gap in FPR at every threshold is a shift of scores; calibration per subgroup shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from fmaudit_core.fairness.clusters import cluster_sizes, patient_codes
from fmaudit_core.fairness.intervals import normal_quantile

Float64Array = npt.NDArray[np.float64]

#: probabilities are kept this far from 0 and 1, whose log odds are infinite
_EDGE: Final = 1e-6
_STUDIES_PER_BIN: Final = 20
_MOST_BINS: Final = 10
_MAX_NEWTON: Final = 50


@dataclass(frozen=True)
class Calibration:
    """Calibration of one group of studies.

    Parameters
    ----------
    slope, slope_se : of the outcome's log odds on the score's; 1 is right, below it scores are too extreme
    intercept, intercept_se : calibration in the large, with the slope held at 1; 0 is right, above it risk is underestimated.
        All four None where they do not exist: the score separates the classes.
    ece : mean distance of predicted and observed rate over bins of equal size
    ece_by_chance : what a perfectly calibrated model would show in the same bins: the error is never 0 in few studies
    """

    slope: float | None
    slope_se: float | None
    intercept: float | None
    intercept_se: float | None
    ece: float
    ece_by_chance: float


def is_probability(score: Float64Array) -> bool:
    """Whether scores can be probabilities at all: decision values and ranks cannot be calibrated."""
    return bool(len(score)) and bool(score.min() >= 0.0) and bool(score.max() <= 1.0)


def calibration(y_true: npt.NDArray[np.bool_], score: Float64Array, patient: npt.NDArray[np.integer]) -> Calibration:
    """Calibrate one group that has positives and negatives.

    Parameters
    ----------
    y_true : (n,) bool
    score : (n,) float in [0, 1]
    patient : (n,) int codes: standard errors are robust to clustering in patients

    References
    ----------
    Cox 1958 (slope, intercept); Van Calster et al. 2019, BMC Medicine 17:230; Liang & Zeger 1986 (clustered errors).
    """
    y, odds = y_true.astype(np.float64), logit(np.clip(score, _EDGE, 1 - _EDGE))
    ones = np.ones_like(odds)
    both = _fitted(np.column_stack([ones, odds]), y, np.zeros_like(odds), patient)
    large = _fitted(ones[:, None], y, odds, patient)
    ece, by_chance = _error(y, score)
    slope, slope_se = (None, None) if both is None else (float(both[0][1]), float(both[1][1]))
    intercept, intercept_se = (None, None) if large is None else (float(large[0][0]), float(large[1][0]))
    return Calibration(slope, slope_se, intercept, intercept_se, ece, by_chance)


def wald(value: float | None, se: float | None, confidence: float) -> tuple[float, float] | tuple[None, None]:
    """Interval of a coefficient."""
    if value is None or se is None:
        return None, None
    half = normal_quantile(confidence) * se
    return value - half, value + half


def _fitted(
    x: Float64Array, y: Float64Array, offset: Float64Array, patient: npt.NDArray[np.integer]
) -> tuple[Float64Array, Float64Array] | None:
    """Coefficients of a logistic regression by Newton's method and their clustered errors; None where there are none."""
    w = np.zeros(x.shape[1])
    for _ in range(_MAX_NEWTON):
        p = expit(offset + x @ w)
        hessian = (x * (p * (1 - p))[:, None]).T @ x
        if np.linalg.cond(hessian) > 1e12:
            return None
        step = np.linalg.solve(hessian, x.T @ (y - p))
        w = w + np.clip(step, -4, 4)
        if np.abs(step).max() < 1e-10:
            break
    else:
        return None
    codes = patient_codes(patient)
    k = len(cluster_sizes(codes))
    scores = np.stack([np.bincount(codes, column * (y - p)) for column in x.T], axis=1)
    bread = np.linalg.inv(hessian)
    covariance = k / max(k - 1, 1) * bread @ (scores.T @ scores) @ bread
    return w, np.sqrt(np.diag(covariance))


def _error(y: Float64Array, score: Float64Array) -> tuple[float, float]:
    """Expected calibration error in bins of equal size, and the same expected of perfect calibration."""
    n = len(y)
    bins = np.array_split(np.argsort(score, kind="stable"), max(1, min(_MOST_BINS, n // _STUDIES_PER_BIN)))
    found = chance = 0.0
    for one in bins:
        found += len(one) / n * abs(float(y[one].mean() - score[one].mean()))
        # mean of |normal| with the binomial's variance
        spread = np.sqrt(float((score[one] * (1 - score[one])).sum())) / len(one)
        chance += len(one) / n * float(spread) * float(np.sqrt(2 / np.pi))
    return found, chance

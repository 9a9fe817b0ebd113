"""Maximum-likelihood fit of calibration slope and intercept, with errors clustered by patient. See `calibration.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit

from fmaudit_core.fairness.cluster_sizes import cluster_sizes, patient_codes

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: change of any study's log odds, relative to the largest, at which a fit has converged
_CONVERGED: Final = 1e-11
#: most steps; damped steps on a concave likelihood need a few dozen even one study away from separation
_MAX_STEPS: Final = 1_000
#: share of the increase predicted by the slope that a step must reach (Armijo)
_ENOUGH: Final = 1e-4
_MAX_HALVINGS: Final = 60


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of a logistic regression.

    Parameters
    ----------
    value : float
    se : float, clustered by patient; None if there is one patient only
    """

    value: float
    se: float | None


def is_separated(y: BoolArray, x: Float64Array) -> bool:
    """Return whether a cut of `x` separates the classes, completely or except for ties at the cut.

    The likelihood of a logistic regression on an intercept and `x` has no maximum if and only if the classes are separated
    (Albert & Anderson 1984, Biometrika 71:1). A constant `x` counts as separated, because its slope is not identified.
    """
    positive, negative = x[y], x[~y]
    return bool(positive.min() >= negative.max() or positive.max() <= negative.min())


def fit_slope(y: BoolArray, log_odds: Float64Array, patient: npt.NDArray[np.integer]) -> Coefficient | None:
    """Fit the slope of a logistic regression of the outcome on an intercept and a score's log odds.

    Parameters
    ----------
    y : (n,) bool, with both classes
    log_odds : (n,) float64, of probabilities bounded away from 0 and 1
    patient : (n,) int codes

    Returns
    -------
    Coefficient, None if the scores separate the classes

    Notes
    -----
    Newton's method halves the step until the likelihood rises enough. It converges from any start if there is a maximum. The
    covariate is centred at its weighted mean in every step, so that the two coefficients are solved for separately.

    The error is the sandwich estimate over patients (Liang & Zeger 1986), times k / (k - 1) (n - 1) / (n - 2) with k patients,
    as for statsmodels' ``cov_type="cluster"``. If a study lies far on the wrong side of otherwise separated classes, the error
    of statsmodels loses precision; this one agrees with 60-digit arithmetic.
    """
    if is_separated(y, log_odds):
        return None
    scale = float(log_odds.std())
    x = (log_odds - log_odds.mean()) / scale
    signs = np.where(y, 1.0, -1.0)
    eta, slope = np.full(len(y), float(np.log(y.mean() / (1 - y.mean())))), 0.0
    reached = _log_likelihood(signs, eta)
    for _ in range(_MAX_STEPS):
        residual, weight = _residual_and_weight(signs, eta)
        total = weight.sum()
        centred = x - weight @ x / total
        by_slope = float(centred @ residual / (weight @ centred**2))
        direction = residual.sum() / total + by_slope * centred
        promised = float(direction @ residual)
        step, reached = _step(signs, eta, direction, reached, promised)
        eta, slope = eta + step * direction, slope + step * by_slope
        if float(np.abs(step * direction).max()) <= _CONVERGED * (1 + float(np.abs(eta).max())):
            break
    residual, weight = _residual_and_weight(signs, eta)
    centred = x - weight @ x / weight.sum()
    se = _clustered_error(centred * residual / (weight @ centred**2), patient, 2)
    return Coefficient(slope / scale, None if se is None else se / scale)


def fit_intercept(y: BoolArray, log_odds: Float64Array, patient: npt.NDArray[np.integer]) -> Coefficient:
    """Fit the intercept of a logistic regression of the outcome with a score's log odds as offset. It always exists.

    Parameters
    ----------
    y : (n,) bool, with both classes
    log_odds : (n,) float64, of probabilities bounded away from 0 and 1
    patient : (n,) int codes

    Notes
    -----
    The intercept is the root of the score function, which decreases everywhere. The root lies between the solutions for all
    offsets equal to the largest and equal to the smallest offset. The error is as in `fit_slope`; the small-sample correction
    of one coefficient is k / (k - 1).
    """
    signs = np.where(y, 1.0, -1.0)

    def score(intercept: float) -> float:
        return float(_residual_and_weight(signs, log_odds + intercept)[0].sum())

    overall = float(np.log(y.mean() / (1 - y.mean())))
    # slightly wider than needed, so that the root stays inside despite rounding
    intercept = float(brentq(score, overall - log_odds.max() - 1, overall - log_odds.min() + 1, xtol=1e-13))
    residual, weight = _residual_and_weight(signs, log_odds + intercept)
    return Coefficient(intercept, _clustered_error(residual / weight.sum(), patient, 1))


def _step(
    signs: Float64Array, eta: Float64Array, direction: Float64Array, reached: float, promised: float
) -> tuple[float, float]:
    """Return the largest step of 1, 1/2, 1/4, ... that raises the log-likelihood enough, up to rounding, and the value reached.

    If no step does, the maximum is reached to machine precision, and the step is 0.
    """
    rounding = 1e-13 * (1 + abs(reached))
    for halvings in range(_MAX_HALVINGS):
        step = 0.5**halvings
        found = _log_likelihood(signs, eta + step * direction)
        if found >= reached + _ENOUGH * step * promised - rounding:
            return step, found
    return 0.0, reached


def _log_likelihood(signs: Float64Array, eta: Float64Array) -> float:
    return -float(np.logaddexp(0.0, -signs * eta).sum())


def _residual_and_weight(signs: Float64Array, eta: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return outcome minus probability, and the variance of the outcome, both (n,) and without cancellation."""
    wrong = expit(-signs * eta)
    return signs * wrong, wrong * expit(signs * eta)


def _clustered_error(influence: Float64Array, patient: npt.NDArray[np.integer], n_coefficients: int) -> float | None:
    """Return the sandwich error of a coefficient from each study's (n,) influence on it."""
    codes = patient_codes(patient)
    k, n = len(cluster_sizes(codes)), len(influence)
    if k < 2:
        return None
    by_patient = np.bincount(codes, influence)
    correction = k / (k - 1) * (n - 1) / max(n - n_coefficients, 1)
    return float(np.sqrt(correction * (by_patient @ by_patient)))

"""Excess misses of a region: its UDR less the UDR that its own recalibrated scores predict.

Regions differ in how severe disease is, so their UDR differs even if the model is right about every study. Scores contain the
severity: among studies with calibrated scores p, a share sum(p u) / sum(p) of the disease is expected to be missed, if u
marks scores below the threshold. The intercept is recalibrated in the region itself, so that another prevalence is no excess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, stdtr

from fmaudit_core.fairness.calibration_fit import fit_intercept, fit_slope
from fmaudit_core.fairness.cluster_sizes import n_patients
from fmaudit_core.fairness.intervals import t_quantile
from fmaudit_core.fairness.standardised import covariance

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: probabilities are kept this far from 0 and 1, whose log odds are infinite
_EDGE: Final = 1e-6


@dataclass(frozen=True)
class Scored:
    """Studies with a known outcome.

    Parameters
    ----------
    y_true : (n,) bool
    log_odds : (n,) float64, of scores whose slope was recalibrated on validation
    uncalled : (n,) bool, whether the score is below the threshold
    patient : (n,) int64, codes from 0
    """

    y_true: BoolArray
    log_odds: Float64Array
    uncalled: BoolArray
    patient: IntArray

    def only(self, inside: BoolArray | IntArray) -> Scored:
        """Return the studies selected by `inside`, (n,) bool or row numbers."""
        return Scored(self.y_true[inside], self.log_odds[inside], self.uncalled[inside], self.patient[inside])

    @property
    def probability(self) -> Float64Array:
        """Return recalibrated probabilities: as many cases as there are, (n,) float64."""
        shift = fit_intercept(self.y_true, self.log_odds, self.patient).value
        out: Float64Array = expit(self.log_odds + shift)
        return out

    @property
    def n_patients(self) -> int:
        """Return the number of patients with the outcome."""
        return n_patients(self.patient[self.y_true])


def log_odds_of(score: Float64Array) -> Float64Array:
    """Return the log odds of scores in [0, 1]; scores closer than 1e-6 to an end are moved to that distance."""
    out: Float64Array = logit(np.clip(score, _EDGE, 1 - _EDGE))
    return out


def recalibration_slope(y_true: BoolArray, score: Float64Array, patient: IntArray) -> float:
    """Return the calibration slope of validation scores; 1 if the scores separate the classes, or rank them in reverse."""
    fitted = fit_slope(y_true, log_odds_of(score), patient)
    return 1.0 if fitted is None or fitted.value <= 0 else fitted.value


@dataclass(frozen=True)
class Excess:
    """Observed and expected UDR of some studies.

    Parameters
    ----------
    influence : (n,) float64, of every study on the difference of the two
    """

    udr: float
    expected: float
    influence: Float64Array

    @property
    def value(self) -> float:
        """Return the excess."""
        return self.udr - self.expected


def excess_misses(studies: Scored) -> Excess:
    """Return the excess misses of studies with both outcomes; the influence includes the recalibration."""
    y, u, p = studies.y_true.astype(np.float64), studies.uncalled.astype(np.float64), studies.probability
    udr, expected = float(y @ u / y.sum()), float(p @ u / p.sum())
    curve = p * (1 - p)
    of_shift = curve @ (u - expected) / p.sum()
    influence = y * (u - udr) / y.sum() - p * (u - expected) / p.sum() - of_shift * (y - p) / curve.sum()
    return Excess(udr, expected, influence)


def miss_residuals(studies: Scored) -> Float64Array:
    """Return by study how much its outcome contradicts its score, (n,) float64; the mean is above 0 where scores miss disease.

    It is the score statistic of a smaller calibration slope: cases with low scores and non-cases with high ones. The log odds are
    centred at the mean that makes another prevalence no residual, to first order. For the search it is more powerful than misses
    at the threshold, which ignore how far a score lies from it.
    """
    p = studies.probability
    curve = p * (1 - p)
    centre = curve @ studies.log_odds / curve.sum()
    out: Float64Array = (studies.y_true - p) * (centre - studies.log_odds)
    return out


@dataclass(frozen=True)
class Difference:
    """Excess misses of a region less those of the rest, clustered by patient."""

    region: Excess
    rest: Excess
    se: float
    degrees: int

    @property
    def value(self) -> float:
        """Return the difference."""
        return self.region.value - self.rest.value

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the interval of the difference by Student's t."""
        half = t_quantile(confidence, self.degrees) * self.se
        return self.value - half, self.value + half

    def p_value(self) -> float:
        """Return the one-sided p for a region with no more excess misses than the rest."""
        return float(stdtr(self.degrees, -self.value / self.se)) if self.se > 0 else 1.0


def compare_with_rest(studies: Scored, region: BoolArray) -> Difference:
    """Compare a region, (n,) bool, with the other studies; both have both outcomes."""
    sides = [studies.only(region), studies.only(~region)]
    of_region, of_rest = (excess_misses(side) for side in sides)
    influence = np.zeros(len(region))
    influence[region], influence[~region] = of_region.influence, -of_rest.influence
    by_patient = np.bincount(studies.patient, influence).astype(np.float64)
    se = float(np.sqrt(covariance(by_patient, by_patient, n_patients(studies.patient))))
    return Difference(of_region, of_rest, se, min(side.n_patients for side in sides) - 1)


def standard_error(studies: Scored, share: float) -> float:
    """Return the standard error that `compare_with_rest` would have for a region with a share of the studies like the others."""
    by_patient = np.bincount(studies.patient, excess_misses(studies).influence).astype(np.float64)
    whole = covariance(by_patient, by_patient, n_patients(studies.patient))
    return float(np.sqrt(whole * (1 / share + 1 / (1 - share))))

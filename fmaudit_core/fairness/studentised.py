"""Scales on which a subgroup's metric is nearly normal, and statistics that compare subgroups on them.

AUROC is compared on the logit scale, rates on the arcsine scale. For each metric, t is the estimate on its scale and v its
variance there. v is infinite if the metric cannot be estimated, which gives it zero weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

Float64Array = npt.NDArray[np.float64]

#: a variance of AUROC below this counts as 0: every pair is ranked correctly, or all are tied
NO_VARIANCE: Final = 1e-12


@dataclass(frozen=True)
class Scaled:
    """A metric of several subgroups on its scale, for one or many labellings.

    Parameters
    ----------
    t, v : (..., g) float64
    """

    t: Float64Array
    v: Float64Array

    @property
    def weight(self) -> Float64Array:
        """Return the precision of each subgroup, 0 if it cannot be estimated."""
        return 1.0 / self.v

    @property
    def centre(self) -> Float64Array:
        """Return the precision-weighted mean over subgroups, (...)."""
        return _ratio((self.weight * self.t).sum(axis=-1), self.weight.sum(axis=-1))

    @property
    def homogeneity(self) -> Float64Array:
        """Return Cochran's Q, the sum of w (t - centre)^2 over subgroups, (...); asymptotically chi-squared with g - 1."""
        off = self.t - self.centre[..., None]
        q: Float64Array = (self.weight * off * off).sum(axis=-1)
        return q

    def others(self) -> tuple[Float64Array, Float64Array]:
        """Return the precision-weighted mean of all other subgroups, and its precision: both (..., g)."""
        weighted = self.weight * self.t
        precision = np.maximum(self.weight.sum(axis=-1, keepdims=True) - self.weight, 0.0)
        return _ratio(weighted.sum(axis=-1, keepdims=True) - weighted, precision), precision

    def against_others(self) -> Float64Array:
        """Return z = (t - mean of the others) / sqrt(v + variance of that mean), (..., g); 0 if either side is missing."""
        mean, precision = self.others()
        known = (precision > 0) & np.isfinite(self.v)
        spread = np.sqrt(np.where(known, self.v, 1.0) + _ratio(np.ones_like(precision), precision))
        z: Float64Array = np.where(known, (self.t - mean) / spread, 0.0)
        return z


def scaled_auroc(auroc: Float64Array, variance: Float64Array, fewest: Float64Array) -> Scaled:
    """Return AUROC on the logit scale.

    Parameters
    ----------
    auroc, variance : (...) float64
    fewest : (...) float64
        Patients of the rarer class. Below 2 the AUROC cannot be estimated. If the variance is 0, this number serves as the
        sample size, and the AUROC is moved away from 0 and 1 by half an observation.
    """
    known = (fewest >= 2) & np.isfinite(auroc)
    size = np.where(known, fewest, 2.0)
    flat = variance < NO_VARIANCE
    theta = np.where(known, auroc, 0.5)
    theta = np.where(flat, np.clip(theta, 0.5 / size, 1 - 0.5 / size), theta)
    spread = theta * (1 - theta)
    v = np.where(flat, 1 / (size * spread), variance / (spread * spread))
    return Scaled(logit(theta), np.where(known, v, np.inf))


def scaled_rate(rate: Float64Array, n_effective: Float64Array, patients: Float64Array) -> Scaled:
    """Return a rate on the arcsine scale (Anscombe 1948, Biometrika 35:246).

    Parameters
    ----------
    rate, n_effective : (...) float64
        Share of studies, and the number of equally informative independent studies.
    patients : (...) float64
        Patients with a study of the class; below 2 the rate cannot be estimated.
    """
    known = (patients >= 2) & np.isfinite(rate)
    n, p = np.where(known, n_effective, 1.0), np.where(known, rate, 0.5)
    return Scaled(arcsine(p, n), np.where(known, 1 / (4 * n + 2), np.inf))


def arcsine(rate: Float64Array, n_effective: Float64Array) -> Float64Array:
    """Return rates on the arcsine scale; see `scaled_rate`."""
    out: Float64Array = np.arcsin(np.sqrt((rate * n_effective + 0.375) / (n_effective + 0.75)))
    return out


def back(metric: str, t: Float64Array) -> Float64Array:
    """Transform values from the scale of a metric back to the metric."""
    if metric == "auroc":
        return np.asarray(expit(t))
    return np.asarray(np.sin(np.clip(t, 0.0, np.pi / 2)) ** 2)


def design_effect(
    studies: Float64Array,
    patients: Float64Array,
    squares: Float64Array,
    residuals: Float64Array,
    rate: Float64Array,
    with_event: Float64Array,
    with_none: Float64Array,
) -> Float64Array:
    """Return the factor by which clustering by patient inflates the variance of a rate: (...) float64, at least 1.

    The observed inflation (Rao & Scott 1992) is shrunk towards the inflation for identical studies within a patient, because few
    patients with an event carry little information about the correlation of their studies.

    Parameters
    ----------
    studies, patients, squares : of the class: studies, patients, sum of squared numbers of studies per patient
    residuals : sum over patients of (events - rate x studies)^2
    with_event, with_none : patients with an event, patients with a non-event
    """
    full = squares / np.maximum(studies, 1.0)
    inside = (rate > 0) & (rate < 1) & (patients > 1)
    scale = studies * np.where(inside, rate * (1 - rate), 1.0)
    correction = patients / np.maximum(patients - 1, 1.0) * (studies - 1) / np.maximum(studies, 1.0)
    plain = np.where(inside, np.maximum(1.0, correction * residuals / np.maximum(scale, 1e-300)), full)
    events = np.minimum(with_event, with_none)
    shrunk = (events * plain + np.maximum(full, plain)) / (events + 1)
    effect: Float64Array = np.where(studies == patients, 1.0, shrunk)
    return effect


def _ratio(part: Float64Array, whole: Float64Array) -> Float64Array:
    out: Float64Array = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return out

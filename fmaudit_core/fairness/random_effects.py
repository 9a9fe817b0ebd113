"""Random-effects meta-analysis of one number per site: REML, the interval of Hartung and Knapp, heterogeneity, prediction.

Contrasts of a site: `site_contrasts.py`. The weights are 1 / (v + tau2); v is given, so that the caller can use a variance
that does not depend on the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import stdtr

from fmaudit_core.fairness.intervals import t_quantile

Float64Array = npt.NDArray[np.float64]

#: estimates are rounded to this, so equal ones are not evidence of equality below it
RESOLUTION: Final = 0.01
#: prediction intervals of fewer sites are approximate
APPROXIMATE_UNDER: Final = 10


@dataclass(frozen=True)
class RandomEffects:
    """Estimates of several sites pooled.

    Parameters
    ----------
    mean, se : float
        Mean over sites; standard error of Hartung and Knapp.
    low, high : float
        Interval of the mean by Student's t with sites - 1 degrees of freedom.
    p : float
    tau2 : float, variance between sites
    i2 : float, share of the total variance that is between sites
    q : float, Cochran's Q
    predicted_low, predicted_high : float
        Interval for the true value of another site.
    weights : (k,) float64, sum 1
    """

    mean: float
    se: float
    low: float
    high: float
    p: float
    tau2: float
    i2: float
    q: float
    predicted_low: float
    predicted_high: float
    weights: Float64Array


def random_effects(
    estimates: Sequence[float], variances: Sequence[float], *, confidence: float = 0.95, resolution: float = 0.0
) -> RandomEffects:
    """Pool the estimates of at least two sites.

    Parameters
    ----------
    estimates, variances : (k,) float
        Variances above 0.
    resolution : float
        Step that estimates are rounded to. The standard error is at least that of the rounding.

    References
    ----------
    Viechtbauer 2005, J Educ Behav Stat 30:261 (REML); Hartung & Knapp 2001, Stat Med 20:3875; Higgins & Thompson 2002, Stat Med
    21:1539 (I2); Higgins, Thompson & Spiegelhalter 2009, J R Stat Soc A 172:137 (prediction).
    """
    y, v = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    k = len(y)
    if k < 2 or not (v > 0).all():
        raise ValueError("pooling needs two sites or more, each with a variance above 0")
    tau2 = restricted_likelihood(y, v)
    mean, se = hartung_knapp(y, v, tau2)
    se = max(se, resolution / math.sqrt(12 * k))
    t = t_quantile(confidence, k - 1)
    fixed = 1 / v
    typical = (k - 1) * fixed.sum() / (fixed.sum() ** 2 - (fixed**2).sum())
    wide = t * math.sqrt(tau2 + se**2)
    weights = 1 / (v + tau2)
    return RandomEffects(
        mean=mean,
        se=se,
        low=mean - t * se,
        high=mean + t * se,
        p=2 * float(stdtr(k - 1, -abs(mean) / se)) if se > 0 else float(mean == 0),
        tau2=tau2,
        i2=float(tau2 / (tau2 + typical)),
        q=float(fixed @ (y - fixed @ y / fixed.sum()) ** 2),
        predicted_low=mean - wide,
        predicted_high=mean + wide,
        weights=weights / weights.sum(),
    )


def hartung_knapp(y: Float64Array, v: Float64Array, tau2: float) -> tuple[float, float]:
    """Return the weighted mean of (k,) estimates and its standard error by Hartung and Knapp, at a variance between sites."""
    w = 1 / (v + tau2)
    mean = float(w @ y / w.sum())
    return mean, math.sqrt(float(w @ (y - mean) ** 2) / ((len(y) - 1) * w.sum()))


def restricted_likelihood(y: Float64Array, v: Float64Array) -> float:
    """Return the variance between sites by restricted maximum likelihood, at least 0.

    The score is searched for its sign changes on a grid, because the likelihood may have two maxima; the highest one wins.
    """
    most = max(float(np.var(y, ddof=1)) * 10, 1e-12)
    grid = np.append(0.0, np.geomspace(most * 1e-6, most, 60))
    scores = [_score(one, y, v) for one in grid]
    maxima = [0.0] if scores[0] <= 0 else []
    for low, high, before, after in zip(grid, grid[1:], scores, scores[1:], strict=False):
        if before > 0 >= after:
            maxima.append(float(brentq(_score, low, high, args=(y, v), xtol=1e-14, rtol=1e-12)))
    return max(maxima, key=lambda tau2: _log_likelihood(tau2, y, v))


def _score(tau2: float, y: Float64Array, v: Float64Array) -> float:
    """Return the derivative of the restricted log likelihood, times 2."""
    w = 1 / (v + tau2)
    mean = w @ y / w.sum()
    return float((w**2) @ (y - mean) ** 2 - w.sum() + (w**2).sum() / w.sum())


def _log_likelihood(tau2: float, y: Float64Array, v: Float64Array) -> float:
    w = 1 / (v + tau2)
    mean = w @ y / w.sum()
    return float(0.5 * (np.log(w).sum() - math.log(w.sum()) - w @ (y - mean) ** 2))

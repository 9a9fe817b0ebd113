"""Closed-form intervals of one proportion and of the difference of two."""

from __future__ import annotations

import math

from scipy.special import betaincinv, ndtri, stdtrit

#: below this effective sample size an exact interval replaces Wilson's
EXACT_UNDER = 20


def normal_quantile(confidence: float) -> float:
    """Return the two-sided normal quantile: the half-width of an interval in standard errors."""
    return float(ndtri(0.5 + confidence / 2))


def t_quantile(confidence: float, degrees: int) -> float:
    """Return the two-sided quantile of Student's t, for a standard error estimated from few patients.

    Parameters
    ----------
    degrees : int
        Degrees of freedom. Below 1 the quantile is infinite, because the spread is unknown.
    """
    return float(stdtrit(degrees, 0.5 + confidence / 2)) if degrees >= 1 else math.inf


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (1927).

    Parameters
    ----------
    p : float, observed proportion
    n : float, (effective) sample size, above 0
    z : float, normal quantile
    """
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # the limit at an observed 0 or 1 is exactly 0 or 1, without rounding error
    return (0.0 if p == 0 else max(0.0, centre - half)), (1.0 if p == 1 else min(1.0, centre + half))


def clopper_pearson(p: float, n: float, confidence: float) -> tuple[float, float]:
    """Return the exact interval of a proportion (Clopper & Pearson 1934); `n` may be an effective, fractional size."""
    tail = (1 - confidence) / 2
    successes = p * n
    low = 0.0 if p <= 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if p >= 1 else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def proportion_interval(p: float, n_effective: float, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval at the effective sample size, or the exact interval if that size is below 20.

    An effective size of 0 gives (0, 1).
    """
    if n_effective <= 0:
        return 0.0, 1.0
    if n_effective < EXACT_UNDER:
        return clopper_pearson(p, n_effective, confidence)
    return wilson(p, n_effective, normal_quantile(confidence))


def difference_interval(
    first: float, first_ci: tuple[float, float], second: float, second_ci: tuple[float, float]
) -> tuple[float, float]:
    """Return the interval of `first - second` from the intervals of both (Newcombe 1998; MOVER)."""
    difference = first - second
    low = difference - math.hypot(first - first_ci[0], second_ci[1] - second)
    high = difference + math.hypot(first_ci[1] - first, second - second_ci[0])
    return low, high

"""Intervals of one proportion and of a difference of two, in closed form."""

from __future__ import annotations

import math

from scipy.special import betaincinv, ndtri

#: under this many studies an exact interval replaces Wilson's
EXACT_UNDER = 20


def normal_quantile(confidence: float) -> float:
    """Standard errors on either side of an estimate that its interval takes."""
    return float(ndtri(0.5 + confidence / 2))


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion (1927).

    Parameters
    ----------
    p : float, observed proportion
    n : float, (effective) sample size, above 0
    z : float, normal quantile
    """
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # the bound at an observed 0 or 1 is 0 or 1 itself, without rounding dust
    return (0.0 if p == 0 else max(0.0, centre - half)), (1.0 if p == 1 else min(1.0, centre + half))


def clopper_pearson(p: float, n: float, confidence: float) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper & Pearson 1934); `n` may be an effective size, not whole."""
    tail = (1 - confidence) / 2
    successes = p * n
    low = 0.0 if p <= 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if p >= 1 else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def proportion_interval(p: float, n_effective: float, confidence: float) -> tuple[float, float]:
    """Wilson's interval at the effective size; exact where that is under 20."""
    if n_effective < EXACT_UNDER:
        return clopper_pearson(p, n_effective, confidence)
    return wilson(p, n_effective, normal_quantile(confidence))


def difference_interval(
    first: float, first_ci: tuple[float, float], second: float, second_ci: tuple[float, float]
) -> tuple[float, float]:
    """Interval of `first - second` from the intervals of both (Newcombe 1998; MOVER)."""
    difference = first - second
    low = difference - math.hypot(first - first_ci[0], second_ci[1] - second)
    high = difference + math.hypot(first_ci[1] - first, second - second_ci[0])
    return low, high

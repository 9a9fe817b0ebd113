"""What could have been seen: the minimal detectable difference, and whether differences are provably small."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from scipy.special import ndtri

from fmaudit_core.fairness.intervals import difference_interval

POWER = 0.8


def minimal_detectable_difference(se_group: float, se_rest: float, alpha: float) -> float:
    """Smallest true difference from the rest that a two-sided test at `alpha` finds with power 0.8."""
    z = float(ndtri(1 - alpha / 2) + ndtri(POWER))
    return z * math.hypot(se_group, se_rest)


def all_within_margin(values: Sequence[float], intervals: Sequence[tuple[float, float]], margin: float) -> bool:
    """Whether every two subgroups provably differ by less than the margin.

    Two one-sided tests per pair, all of which must reject (intersection-union, Berger & Hsu 1996): no correction is needed.

    Parameters
    ----------
    intervals : at confidence 1 - 2 alpha
    """
    for (a, a_ci), (b, b_ci) in itertools.combinations(zip(values, intervals, strict=True), 2):
        low, high = difference_interval(a, a_ci, b, b_ci)
        if low <= -margin or high >= margin:
            return False
    return len(values) > 1

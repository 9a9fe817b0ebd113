"""What could have been seen: the minimal detectable difference, and whether differences are provably small."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from fmaudit_core.fairness.intervals import difference_interval
from fmaudit_core.fairness.studentised import Scaled, back

POWER = 0.8


def minimal_detectable_difference(metric: str, group: Scaled, others: Scaled, alpha: float) -> float:
    """Return by how much worse than the others a subgroup must fare for a two-sided test at `alpha` to find it with power 0.8.

    Parameters
    ----------
    metric : {"auroc", "udr", "tpr", "fpr"}
    group : Scaled
        Of the subgroup, 0-dimensional.
    others : Scaled
        Of the other tested subgroups, (g,); the subgroup is compared with their precision-weighted mean.
    """
    z = float(ndtri(1 - alpha / 2) + ndtri(POWER))
    precision, centre = float(others.weight.sum()), float(others.centre)
    off = z * math.hypot(math.sqrt(float(group.v)), math.sqrt(1 / precision)) if precision > 0 else math.inf
    worse = centre + off if metric in ("udr", "fpr") else centre - off
    scale = "auroc" if metric == "auroc" else "rate"
    return float(abs(back(scale, np.asarray(worse)) - back(scale, np.asarray(centre))))


def all_within_margin(values: Sequence[float], intervals: Sequence[tuple[float, float]], margin: float) -> bool:
    """Return whether every two subgroups provably differ by less than the margin.

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

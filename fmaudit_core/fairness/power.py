"""Minimal detectable differences, and whether all differences are within a margin."""

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
    """Return the smallest worsening against the others that a two-sided test at `alpha` detects with power 0.8.

    Parameters
    ----------
    metric : {"auroc", "udr", "tpr", "fpr"}
    group : Scaled
        Metric of the subgroup, 0-dimensional.
    others : Scaled
        Metric of the other tested subgroups, (g,). The subgroup is compared with their precision-weighted mean.
    """
    z = float(ndtri(1 - alpha / 2) + ndtri(POWER))
    precision, centre = float(others.weight.sum()), float(others.centre)
    off = z * math.hypot(math.sqrt(float(group.v)), math.sqrt(1 / precision)) if precision > 0 else math.inf
    worse = centre + off if metric in ("udr", "fpr") else centre - off
    scale = "auroc" if metric == "auroc" else "rate"
    return float(abs(back(scale, np.asarray(worse)) - back(scale, np.asarray(centre))))


def all_within_margin(values: Sequence[float], intervals: Sequence[tuple[float, float]], margin: float) -> bool:
    """Return whether every two subgroups are shown to differ by less than the margin.

    Two one-sided tests are run per pair. All must reject (intersection-union, Berger & Hsu 1996), so no correction is needed.

    Parameters
    ----------
    intervals : at confidence 1 - 2 alpha
    """
    for (a, a_ci), (b, b_ci) in itertools.combinations(zip(values, intervals, strict=True), 2):
        low, high = difference_interval(a, a_ci, b, b_ci)
        if low <= -margin or high >= margin:
            return False
    return len(values) > 1

"""Importance weighting and group resampling: the same probe with other sample weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def reweighing(y: Float64Array, group: IntArray) -> Float64Array:
    """Return weights P(y) P(a) / P(y, a), under which the outcome does not depend on the subgroup.

    Parameters
    ----------
    y : (n,) float64: 0, 1, NaN if unknown
    group : (n,) int, subgroup, -1 if none is targeted

    Returns
    -------
    (n,) float64: 0 for unknown labels, 1 if no subgroup is targeted

    References
    ----------
    Kamiran & Calders 2012, Knowledge and Information Systems 33:1; the weights of AIF360's `Reweighing`.
    """
    weight = np.where(np.isnan(y), 0.0, 1.0)
    aimed = (group >= 0) & ~np.isnan(y)
    total = aimed.sum()
    for g in np.unique(group[aimed]):
        of_group = aimed & (group == g)
        for outcome in (0.0, 1.0):
            of_outcome = aimed & (y == outcome)
            cell = of_group & of_outcome
            if cell.any():
                weight[cell] = of_group.sum() * of_outcome.sum() / (total * cell.sum())
    return weight


def resampling(y: Float64Array, group: IntArray, seed: int) -> Float64Array:
    """Return how often each study is drawn if all subgroups are equally large and have the overall prevalence.

    Each cell of subgroup and outcome is sampled with replacement, n P(y) / k draws from each of the k subgroups, so that neither
    a subgroup's size nor its prevalence can be learned. A study drawn twice counts twice.

    Parameters
    ----------
    y : (n,) float64: 0, 1, NaN if unknown
    group : (n,) int, subgroup, -1 if none is targeted

    Returns
    -------
    (n,) float64 whole numbers: 0 for unknown labels, 1 if no subgroup is targeted
    """
    rng = np.random.default_rng(seed)
    count = np.where(np.isnan(y), 0.0, 1.0)
    aimed = (group >= 0) & ~np.isnan(y)
    groups = np.unique(group[aimed])
    for g in groups:
        for outcome in (0.0, 1.0):
            cell = np.flatnonzero(aimed & (group == g) & (y == outcome))
            draws = round(np.sum(aimed & (y == outcome)) / len(groups))
            count[cell] = np.bincount(rng.integers(0, len(cell), draws), minlength=len(cell))
    return count

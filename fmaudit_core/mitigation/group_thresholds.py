"""Group-specific thresholds: unchanged scores with one threshold per subgroup, chosen so that all have the same TPR."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.thresholds import choose_threshold

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def equal_opportunity(
    y: BoolArray, score: Float64Array, group: IntArray, settings: FairnessSection
) -> dict[int, float]:
    """Return a threshold per subgroup, all with the same TPR on validation; the threshold policy determines that TPR.

    Parameters
    ----------
    y, score, group : (n,) of the validation studies; group -1 keeps the common threshold

    Returns
    -------
    Threshold by subgroup, including -1

    Notes
    -----
    fixed_fpr : the highest TPR at which the overall FPR does not exceed the target
    fixed_sensitivity : the target
    youden : the TPR with the largest overall TPR - FPR

    References
    ----------
    Hardt, Price & Srebro 2016 (equal opportunity), without their randomised thresholds: predictions are deterministic.
    """
    groups = [int(g) for g in np.unique(group) if g >= 0]
    common = choose_threshold(y, score, settings)
    if not groups:
        return {-1: common}
    targets = np.unique(np.concatenate([np.arange(m + 1) / m for m in {int((y & (group == g)).sum()) for g in groups}]))
    at = np.stack([_reaching(score[(group == g) & y], targets) for g in groups])
    called_negatives = np.zeros(len(targets))
    called_positives = np.zeros(len(targets))
    for g, thresholds in zip(groups, at, strict=True):
        of_group = group == g
        called_negatives += _above(score[of_group & ~y], thresholds)
        called_positives += _above(score[of_group & y], thresholds)
    others = group < 0
    called_negatives += (score[others & ~y] >= common).sum()
    called_positives += (score[others & y] >= common).sum()
    fpr, tpr = called_negatives / (~y).sum(), called_positives / y.sum()
    if settings.threshold_policy == "fixed_fpr":
        allowed = np.flatnonzero(fpr <= settings.fixed_fpr)
        chosen = int(allowed[-1]) if len(allowed) else 0
    elif settings.threshold_policy == "fixed_sensitivity":
        chosen = min(int(np.searchsorted(targets, settings.fixed_sensitivity - 1e-12)), len(targets) - 1)
    else:
        chosen = int(np.argmax(tpr - fpr))
    return {-1: common} | {g: float(thresholds[chosen]) for g, thresholds in zip(groups, at, strict=True)}


def _reaching(positives: Float64Array, targets: Float64Array) -> Float64Array:
    """Return the highest threshold that reaches each share of the positives; for a share of 0, none is predicted positive."""
    ranked = np.sort(positives)[::-1]
    needed = np.ceil(targets * len(ranked) - 1e-9).astype(np.int64)
    beyond = np.nextafter(ranked[0], np.inf)
    return np.where(needed == 0, beyond, ranked[np.maximum(needed - 1, 0)])


def _above(scores: Float64Array, thresholds: Float64Array) -> Float64Array:
    counted: Float64Array = (len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")).astype(np.float64)
    return counted

"""Operating thresholds, chosen on validation and nowhere else. A study is called positive at or above its threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.errors import FairnessError

Float64Array = npt.NDArray[np.float64]

#: what makes a score set: each gets a threshold of its own
SCORE_SET = ("encoder", "task", "probe", "modality", "pooling", "strategy")


def choose_threshold(y_true: npt.NDArray[np.bool_], y_score: Float64Array, settings: FairnessSection) -> float:
    """Threshold by the configured policy, among the scores seen on validation.

    Policies
    --------
    fixed_fpr : the lowest threshold whose FPR does not exceed the target
    fixed_sensitivity : the highest threshold whose TPR reaches the target
    youden : the highest threshold that maximises TPR - FPR

    Raises
    ------
    FairnessError
        Validation lacks a class.
    """
    if not y_true.any() or y_true.all():
        raise FairnessError(
            "no threshold can be chosen: validation lacks positives or negatives.",
            fix="Give studies of both classes the split `val`, or a threshold of your own with --threshold.",
        )
    scores = np.unique(y_score)
    candidates = np.append(scores, np.nextafter(scores[-1], np.inf))  # the last calls nobody positive
    tpr = 1 - np.searchsorted(np.sort(y_score[y_true]), candidates, side="left") / y_true.sum()
    fpr = 1 - np.searchsorted(np.sort(y_score[~y_true]), candidates, side="left") / (~y_true).sum()
    if settings.threshold_policy == "fixed_fpr":
        return float(candidates[np.argmax(fpr <= settings.fixed_fpr)])
    if settings.threshold_policy == "fixed_sensitivity":
        return float(candidates[np.flatnonzero(tpr >= settings.fixed_sensitivity)[-1]])
    gain = tpr - fpr
    return float(candidates[np.flatnonzero(gain == gain.max())[-1]])


def with_thresholds(
    scores: pl.DataFrame, settings: FairnessSection, score_set: Sequence[str] = SCORE_SET
) -> pl.DataFrame:
    """Predictions with a column `threshold`, chosen per score set on its validation rows.

    Raises
    ------
    FairnessError
        A score set has no validation rows of both classes.
    """
    rows = []
    for key, frame in scores.filter(pl.col("split") == "val").group_by(*score_set, maintain_order=True):
        y_true, y_score = frame.get_column("y_true").to_numpy(), frame.get_column("y_score").to_numpy()
        rows.append((*key, choose_threshold(y_true, y_score, settings)))
    chosen = pl.DataFrame(rows, schema=[*score_set, "threshold"], orient="row")
    if not rows:
        choose_threshold(np.empty(0, dtype=bool), np.empty(0), settings)
    joined = scores.drop("threshold", strict=False).join(chosen, on=list(score_set), how="left", maintain_order="left")
    if joined.get_column("threshold").null_count():
        raise FairnessError(
            "a score set has no validation rows, so no threshold can be chosen for it.",
            fix="Give some of its studies the split `val`, or a threshold of your own with --threshold.",
        )
    return joined

"""Operating thresholds, chosen only on validation. A study is called positive if its score is at or above the threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.seeding import seed_of

Float64Array = npt.NDArray[np.float64]

#: rates that differ only by rounding count as equal
_DUST = 1e-12
#: score set -> bootstrap thresholds over validation patients
Draws = dict[tuple[Any, ...], Float64Array]

#: columns that identify a score set; each score set has its own threshold


def choose_threshold(
    y_true: npt.NDArray[np.bool_], y_score: Float64Array, settings: FairnessSection, *, where: str | None = None
) -> float:
    """Choose a threshold by the configured policy, among the validation scores.

    Parameters
    ----------
    where : str, optional
        Model and task to name in an error.

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
            where=where,
            fix="Assign studies of both classes to the split `val`, leave the task out, or give a threshold "
            "(--threshold).",
        )
    return float(_chosen(y_true, y_score, np.ones((1, len(y_true))), settings)[0])


def _chosen(
    y_true: npt.NDArray[np.bool_], y_score: Float64Array, weights: Float64Array, settings: FairnessSection
) -> Float64Array:
    """Return (B,) thresholds, one for each row of the (B, n) study weights."""
    scores, place = np.unique(y_score, return_inverse=True)
    candidates = np.append(scores, np.nextafter(scores[-1], np.inf))  # the last candidate calls no study positive
    tpr, fpr = (_rates(weights[:, of], place[of], len(candidates)) for of in (y_true, ~y_true))
    if settings.threshold_policy == "fixed_fpr":
        lowest: Float64Array = candidates[np.argmax(fpr <= settings.fixed_fpr + _DUST, axis=1)]
        return lowest
    if settings.threshold_policy == "fixed_sensitivity":
        at = tpr >= settings.fixed_sensitivity - _DUST
    else:
        gain = tpr - fpr
        at = gain >= gain.max(axis=1, keepdims=True) - _DUST
    last: Float64Array = candidates[at.shape[1] - 1 - np.argmax(at[:, ::-1], axis=1)]
    return last


def _rates(weights: Float64Array, place: npt.NDArray[np.intp], n_candidates: int) -> Float64Array:
    """Return the weighted share of a class at or above each candidate, (B, candidates); `place` is each study's candidate."""
    order = np.argsort(place, kind="stable")
    below = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights[:, order], axis=1)], axis=1)
    first = np.searchsorted(place[order], np.arange(n_candidates), side="left")
    total = below[:, -1:]
    share: Float64Array = 1 - below[:, first] / np.where(total > 0, total, 1.0)
    return share


def threshold_draws(checked: pl.DataFrame, settings: FairnessSection) -> Draws:
    """Draw bootstrap thresholds: apply the policy to bootstrap samples of the validation patients.

    Whole patients are drawn, separately with and without positives, so that no sample lacks a class. Seed and task determine the
    samples, so models on the same validation studies share them.

    Returns
    -------
    Score set -> (n_bootstraps,) float64
    """
    out: Draws = {}
    for key, frame in checked.filter(pl.col("split") == "val").group_by(*SCORE_SET, maintain_order=True):
        y_true, y_score = frame.get_column("y_true").to_numpy(), frame.get_column("y_score").to_numpy()
        patient = frame.get_column("patient_id").rank("dense").cast(pl.Int64).to_numpy() - 1
        rng = np.random.default_rng(seed_of(settings.seed, f"{key[SCORE_SET.index('task')]}/thresholds"))
        ever = np.bincount(patient, y_true) > 0
        drawn = np.zeros((settings.n_bootstraps, len(ever)))
        for stratum in (ever, ~ever):
            n = int(stratum.sum())
            if n:
                drawn[:, stratum] = rng.multinomial(n, np.full(n, 1 / n), settings.n_bootstraps)
        out[key] = _chosen(y_true, y_score, drawn[:, patient], settings)
    return out


def with_thresholds(scores: pl.DataFrame, settings: FairnessSection) -> pl.DataFrame:
    """Return the predictions with a column `threshold`, chosen per score set on its validation rows.

    Raises
    ------
    FairnessError
        A score set lacks validation rows of a class. The message names its model and task.
    """
    rows = []
    for key, frame in scores.group_by(*SCORE_SET, maintain_order=True):
        val = frame.filter(split="val")
        y_true, y_score = val.get_column("y_true").to_numpy(), val.get_column("y_score").to_numpy()
        where = " x ".join(str(part) for part in key[:2])
        rows.append((*key, choose_threshold(y_true, y_score, settings, where=where)))
    schema = {name: scores.schema[name] for name in SCORE_SET} | {"threshold": pl.Float64()}
    chosen = pl.DataFrame(rows, schema=schema, orient="row")
    return scores.drop("threshold", strict=False).join(chosen, on=SCORE_SET, how="left", maintain_order="left")

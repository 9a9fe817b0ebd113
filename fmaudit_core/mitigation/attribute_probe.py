"""Separability of an attribute: one-vs-rest AUROC averaged over subgroups with its interval, and macro-F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from fmaudit_core.fairness.auroc import structural_components
from fmaudit_core.fairness.cluster_sizes import n_patients
from fmaudit_core.fairness.intervals import wilson
from fmaudit_core.mitigation.linear_heads import Float32Array, LinearHeads

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

PROBES: Final = ("logistic", "mlp")


@dataclass(frozen=True)
class Separability:
    """The performance of a probe that predicts an attribute.

    Parameters
    ----------
    macro_f1 : float, mean F1 over subgroups
    balanced_auroc : float, mean one-vs-rest AUROC over subgroups; its chance level is 0.5 whatever the subgroups' sizes
    ci_low, ci_high : float, of `balanced_auroc`, clustered by patient
    n : int, number of studies
    """

    macro_f1: float
    balanced_auroc: float
    ci_low: float
    ci_high: float
    n: int


def separability(
    code: IntArray, score: Float64Array, patient: IntArray, confidence: float, part: IntArray | None = None
) -> Separability:
    """Evaluate a probe's scores against the subgroups.

    Parameters
    ----------
    code : (n,) int, subgroups 0..k-1, each with studies
    score : (n, k) float64; the column with the highest score is the predicted subgroup
    patient : (n,) int
    part : (n,) int, optional
        Parts of the patients that are scored by separate probes; each part contains every subgroup.

    Notes
    -----
    The interval sums each patient's structural components over the one-vs-rest AUROCs (Obuchowski 1997), on the logit scale. With
    parts the AUROC is their mean, and so is the standard error, as if the errors of all parts were fully correlated: for two
    halves whose probes are trained on each other they nearly are. If an attribute is not separable, the studies that one half's
    probe gets right by chance correspond to those that the other half's probe gets right; with errors taken as independent,
    intervals would cover 0.5 only four times in five.
    """
    k = score.shape[1]
    parts = [np.ones(len(code), dtype=bool)] if part is None else [part == one for one in np.unique(part)]
    ranked = [_ranked(code[some], score[some], patient[some]) for some in parts]
    auroc, se = (float(np.mean(one)) for one in zip(*ranked, strict=True))
    smallest = int(np.bincount(code, minlength=k).min())
    low, high = _interval(auroc, se, smallest, float(ndtri(0.5 + confidence / 2)))
    return Separability(
        macro_f1=macro_f1(code, score.argmax(axis=1), k),
        balanced_auroc=auroc,
        ci_low=low,
        ci_high=high,
        n=len(code),
    )


def _ranked(code: IntArray, score: Float64Array, patient: IntArray) -> tuple[float, float]:
    """Return the mean one-vs-rest AUROC and its standard error."""
    k = score.shape[1]
    values, influence = [], np.zeros(len(code))
    for g in range(k):
        y = code == g
        components = structural_components(y, score[:, g])
        value = float(components[y].mean())
        influence += np.where(y, (components - value) / y.sum(), (components - value) / (~y).sum()) / k
        values.append(value)
    auroc = float(np.mean(values))
    by_patient = np.bincount(np.unique(patient, return_inverse=True)[1], influence)
    return auroc, float(np.sqrt(len(by_patient) / max(len(by_patient) - 1, 1) * (by_patient @ by_patient)))


def _interval(auroc: float, se: float, smallest: int, z: float) -> tuple[float, float]:
    """Return the interval on the logit scale; for perfect separation, Wilson's interval for the smallest subgroup."""
    if se <= 1e-9 or not 0 < auroc < 1:
        return wilson(auroc, smallest, z)
    logit, half = np.log(auroc / (1 - auroc)), z * se / (auroc * (1 - auroc))
    return float(1 / (1 + np.exp(half - logit))), float(1 / (1 + np.exp(-half - logit)))


def macro_f1(code: IntArray, named: IntArray, k: int) -> float:
    """Return the mean over subgroups of 2 TP / (2 TP + FP + FN)."""
    found = []
    for g in range(k):
        true, called = code == g, named == g
        found.append(2 * np.sum(true & called) / max(true.sum() + called.sum(), 1))
    return float(np.mean(found))


def linear_scores(
    heads: LinearHeads, codes: Sequence[tuple[IntArray, int]], c: float, x: Float32Array
) -> list[Float64Array]:
    """Return the log odds of one-vs-rest logistic probes, each with balanced classes, all solved as one problem.

    Parameters
    ----------
    heads : LinearHeads, of the n training studies
    codes : (n,) subgroups 0..k-1 of the same studies, -1 for excluded studies, and k; each subgroup has studies
    c : inverse regularisation strength
    x : (m, d) raw features to score

    Returns
    -------
    (m, k) float64 for each of `codes`
    """
    targets, weights = [], []
    for code, k in codes:
        used = code >= 0
        y = (code[:, None] == np.arange(k)).astype(np.float64)
        positive = y.sum(axis=0)
        targets.append(y)
        weights.append(used[:, None] * used.sum() / 2 * np.where(y == 1, 1 / positive, 1 / (used.sum() - positive)))
    y, weight = np.concatenate(targets, axis=1), np.concatenate(weights, axis=1)
    coefficients, intercepts = heads.fit(y, weight, np.full(y.shape[1], c))
    scores = x @ coefficients.T + intercepts
    return np.split(scores, np.cumsum([k for _, k in codes])[:-1], axis=1)


def shuffled(code: IntArray, patient: IntArray, seed: int) -> IntArray:
    """Permute subgroup labels across patients; a probe's score on them is the chance level."""
    _, first, at = np.unique(patient, return_index=True, return_inverse=True)
    permuted: IntArray = code[first][np.random.default_rng(seed).permutation(len(first))][at]
    return permuted


def usable(
    code: IntArray, patient: IntArray, n_levels: int, parts: tuple[BoolArray, ...], least: int
) -> tuple[IntArray, list[int]]:
    """Return subgroups with enough patients in every part, coded 0..k-1 and -1 elsewhere, and their old codes."""
    kept = [g for g in range(n_levels) if all(n_patients(patient[part & (code == g)]) >= least for part in parts)]
    out = np.full(len(code), -1, dtype=np.int64)
    for place, g in enumerate(kept):
        out[code == g] = place
    return out, kept

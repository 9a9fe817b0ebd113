"""Deterministic retraining of the last layer: on group-balanced subsets (DFR), and for the worst group (GroupDRO)."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from fmaudit_core.mitigation.linear_heads import Float32Array, LinearHeads

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: number of balanced subsets whose heads DFR averages
DFR_SUBSETS: Final = 10
_DRO_ROUNDS: Final = 24
#: convergence tolerance: distance of the largest loss from its lower bound, in nats
DRO_TOLERANCE: Final = 5e-3
#: first step of the exponentiated ascent, on losses in nats; it decreases as 1 / sqrt(round)
_DRO_STEP: Final = 4.0


def balanced_subsets(y: Float64Array, group: IntArray, seed: int) -> Float64Array:
    """Draw subsets without replacement in which every cell of subgroup and outcome is as large as the smallest.

    Parameters
    ----------
    y : (n,) float64: 0, 1, NaN if unknown
    group : (n,) int, subgroup, -1 if none is targeted

    Returns
    -------
    (n, DFR_SUBSETS) float64 of 0 and 1

    References
    ----------
    Kirichenko, Izmailov & Wilson 2023 (deep feature reweighting): the heads of the subsets are averaged. They balance held-out
    studies, because their features were trained; a frozen encoder was not trained on any study, so training studies are used
    here. The penalty is the probe's squared one instead of their absolute one, so that only the balance differs from the probe.
    """
    rng = np.random.default_rng(seed)
    cells = [
        np.flatnonzero((group == g) & (y == outcome)) for g in np.unique(group[group >= 0]) for outcome in (0.0, 1.0)
    ]
    smallest = min(len(cell) for cell in cells)
    out = np.zeros((len(y), DFR_SUBSETS))
    for subset in range(DFR_SUBSETS):
        for cell in cells:
            out[rng.choice(cell, smallest, replace=False), subset] = 1.0
    return out


def group_dro(
    heads: LinearHeads, x: Float32Array, y: Float64Array, group: IntArray, c: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Fit heads that minimise the largest mean loss over cells of subgroup and outcome, plus the probe's own penalty.

    The cells' weights are updated by exponentiated gradient ascent. The heads under given weights are exact, since the problem is
    convex. Their weighted loss is a lower bound of the optimum, so the distance of the best heads from it is known.

    Parameters
    ----------
    heads : LinearHeads, of the training studies
    x : (n, d) raw features of the same studies
    y : (n, k) float64: 0, 1, NaN if unknown
    group : (n, k) int, subgroup per column, -1 if none is targeted
    c : (k,) float64

    Returns
    -------
    (k, d) coefficients, (k,) intercepts, and (k,) upper bounds of the distance to the optimum in nats: within `DRO_TOLERANCE`
    unless the rounds were too few

    References
    ----------
    Sagawa, Koh, Hashimoto & Liang 2020 (group DRO).
    """
    k = y.shape[1]
    cells = [_cells(y[:, j], group[:, j]) for j in range(k)]
    share = [np.full(len(one), 1.0 / len(one)) for one in cells]
    size = np.array([sum(len(cell) for cell in one) for one in cells], dtype=np.float64)
    reached, bound = np.full(k, np.inf), np.full(k, -np.inf)
    w, b = np.zeros((k, x.shape[1])), np.zeros(k)
    run = np.arange(k)
    for turn in range(_DRO_ROUNDS):
        weight = np.zeros((len(y), len(run)))
        for at, j in enumerate(run):
            for cell, q in zip(cells[j], share[j], strict=True):
                weight[cell, at] = size[j] * q / len(cell)
        found, intercepts = heads.fit(np.nan_to_num(y[:, run]), weight, c[run])
        p = expit(x @ found.T + intercepts)
        penalty = heads.penalty(found) / (c[run] * size[run])
        for at, j in enumerate(run):
            losses = np.array([_log_loss(p[cell, at], y[cell[0], j]) for cell in cells[j]])
            bound[j] = max(bound[j], float(share[j] @ losses + penalty[at]))
            if losses.max() + penalty[at] < reached[j]:
                reached[j], w[j], b[j] = losses.max() + penalty[at], found[at], intercepts[at]
            raised = share[j] * np.exp(_DRO_STEP / np.sqrt(turn + 1) * (losses - losses.max()))
            share[j] = raised / raised.sum()
        run = run[reached[run] - bound[run] > DRO_TOLERANCE]
        if not len(run):
            break
    return w, b, reached - bound


def _cells(y: Float64Array, group: IntArray) -> list[npt.NDArray[np.intp]]:
    found = [
        np.flatnonzero((group == g) & (y == outcome)) for g in np.unique(group[group >= 0]) for outcome in (0.0, 1.0)
    ]
    return [cell for cell in found if len(cell)]


def _log_loss(p: Float64Array, outcome: float) -> float:
    of_outcome = p if outcome else 1 - p
    return float(-np.log(np.maximum(of_outcome, 1e-12)).mean())

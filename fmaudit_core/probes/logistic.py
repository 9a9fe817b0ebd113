"""Logistic probes, fitted together: each combination of task, weight vector and C of an encoder is a column of one problem.

Each column minimises ``sum_i s_i logloss(y_i, x_i w + b) + |w|^2 / (2 C)``, scikit-learn's objective divided by C, over
standardised features; the intercept is not penalised. Censored labels have weight 0. For the solver see `solver.py`; for the
choice of C see `selection.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from fmaudit_core.probes.errors import ProbeError
from fmaudit_core.probes.shared_matrix import SharedMatrix
from fmaudit_core.probes.solver import minimise

FloatArray = npt.NDArray[np.floating]
Float64Array = npt.NDArray[np.float64]

#: studies scored at a time; limits the float64 copies of the embeddings
_CHUNK: Final = 4_096
_NOT_FINITE: Final = "an embedding holds NaN or infinite values."
_EXTRACT_AGAIN: Final = "Extract the embeddings of this encoder again."


@dataclass(frozen=True)
class LogisticFits:
    """Fitted columns with the standardisation folded in: scores are computed from raw embeddings.

    Parameters
    ----------
    tasks : names of the t targets
    strategies : names of the w weight vectors
    c_grid : the c inverse regularisation strengths
    coefficients : (t, w, c, d) float64, for raw features
    intercepts : (t, w, c) float64
    iterations : (t, w, c) int
    n_train : (t,) int, studies with a known label
    """

    tasks: tuple[str, ...]
    strategies: tuple[str, ...]
    c_grid: tuple[float, ...]
    coefficients: Float64Array
    intercepts: Float64Array
    iterations: npt.NDArray[np.int64]
    n_train: npt.NDArray[np.int64]

    def decision(self, x: FloatArray, task: str, c: float, strategy: str = "none") -> Float64Array:
        """Return the log odds of the positive class.

        Parameters
        ----------
        x : (n, d) raw embeddings

        Returns
        -------
        (n,) float64
        """
        at = self.tasks.index(task), self.strategies.index(strategy), self.c_grid.index(c)
        logit: Float64Array = logits(x, self.coefficients[at][None], self.intercepts[at][None])[:, 0]
        return logit

    def score(self, x: FloatArray, task: str, c: float, strategy: str = "none") -> Float64Array:
        """Return the probability of the positive class.

        Parameters
        ----------
        x : (n, d) raw embeddings

        Returns
        -------
        (n,) float64
        """
        scores: Float64Array = expit(self.decision(x, task, c, strategy))
        return scores


def logits(x: FloatArray, coefficients: Float64Array, intercepts: Float64Array) -> Float64Array:
    """Return the log odds of raw embeddings under several probes, computed in float64 block by block.

    Parameters
    ----------
    x : (n, d) raw embeddings
    coefficients : (k, d)
    intercepts : (k,)

    Returns
    -------
    (n, k) float64

    Raises
    ------
    ProbeError
        An embedding is not finite.
    """
    out = np.empty((len(x), len(coefficients)))
    for start in range(0, len(x), _CHUNK):
        block = slice(start, start + _CHUNK)
        out[block] = x[block].astype(np.float64) @ coefficients.T + intercepts
    if not np.isfinite(out).all():
        raise ProbeError(_NOT_FINITE, fix=_EXTRACT_AGAIN)
    return out


def fit_logistic(
    x: npt.NDArray[np.float32],
    targets: Mapping[str, npt.NDArray[np.float64]],
    *,
    c_grid: Sequence[float],
    weights: Mapping[str, Float64Array] | None = None,
    emphasis: Float64Array | None = None,
) -> LogisticFits:
    """Fit every combination of task, weight vector and C on the same training studies.

    Parameters
    ----------
    x : (n, d) float32, raw embeddings of the training studies
    targets : task -> (n,) float: 0, 1, or NaN if censored or unknown
    c_grid : inverse regularisation strengths, each above 0
    weights : name -> (n,) float, at least 0; defaults to one vector of ones called ``none``
    emphasis : (d,) float above 0, optional
        Factor that each standardised feature is multiplied by; its penalty is divided by the square of the factor.

    Raises
    ------
    ProbeError
        There is no study, a value is not finite, a task has one class only among its known labels (or among those of
        positive weight), or a column does not converge.
    """
    vectors = {"none": np.ones(len(x))} if weights is None else dict(weights)
    _check(x, targets, vectors, c_grid)
    mean, scale = standardisation(x)
    if emphasis is not None:
        scale = scale / emphasis
    tasks, strategies, grid = tuple(targets), tuple(vectors), tuple(c_grid)
    labels = np.stack([targets[task] for task in tasks], axis=1)
    known = ~np.isnan(labels)
    y = np.repeat(np.where(known, labels, 0.0), len(strategies) * len(grid), axis=1)
    by_vector = [known[:, [t]] * vectors[name][:, None] for t in range(len(tasks)) for name in strategies]
    sample = np.repeat(np.concatenate(by_vector, axis=1), len(grid), axis=1).astype(np.float64)
    ridge = 1.0 / np.tile(np.asarray(grid, dtype=np.float64), len(tasks) * len(strategies))

    features, x = _standardised(x, mean, scale), x[:0]  # frees what the caller does not keep
    solved, iterations = minimise(SharedMatrix(features), y, sample, ridge)
    shape = (len(tasks), len(strategies), len(grid))
    unfinished = np.argwhere(iterations.reshape(shape) < 0)
    if len(unfinished):
        t, _, c = unfinished[0]
        raise ProbeError(
            f"the logistic probe for {tasks[t]} at C={grid[c]:g} did not converge.",
            fix="Remove the largest values from `probes: c_grid`.",
        )
    raw = solved[:-1] / scale[:, None]
    intercepts = solved[-1] - mean @ raw
    return LogisticFits(
        tasks=tasks,
        strategies=strategies,
        c_grid=grid,
        coefficients=np.ascontiguousarray(raw.T).reshape(*shape, x.shape[1]),
        intercepts=intercepts.reshape(shape),
        iterations=iterations.reshape(shape),
        n_train=known.sum(axis=0),
    )


def _check(
    x: FloatArray,
    targets: Mapping[str, FloatArray],
    vectors: Mapping[str, FloatArray],
    c_grid: Sequence[float],
) -> None:
    if x.ndim != 2 or not len(x):
        raise ProbeError("no training study has an embedding.", fix="See slice_quality and the split.")
    if not np.isfinite(x).all():
        raise ProbeError(_NOT_FINITE, fix=_EXTRACT_AGAIN)
    if not c_grid or min(c_grid) <= 0:
        raise ProbeError("every C must be above 0.")
    for name, vector in vectors.items():
        if vector.shape != (len(x),) or not np.isfinite(vector).all() or vector.min() < 0:
            raise ProbeError(f"the weights {name} must be finite, at least 0, and one per training study.")
    for task, target in targets.items():
        known = target[~np.isnan(target)]
        if target.shape != (len(x),) or not np.isin(known, (0.0, 1.0)).all():
            raise ProbeError(f"labels of {task} must be 0, 1 or NaN, one per training study.")
        if len(np.unique(known)) < 2:
            raise ProbeError(f"no probe can be fitted for {task}: its known training labels have only one class.")
        for name, vector in vectors.items():
            if any(vector[target == outcome].sum() == 0 for outcome in (0.0, 1.0)):
                raise ProbeError(f"no probe can be fitted for {task}: with the weights {name} only one class remains.")


def _standardised(x: FloatArray, mean: Float64Array, scale: Float64Array) -> Float64Array:
    """Return features with mean 0 and standard deviation 1, (n, d), in place: it is the largest array of a fit."""
    out = x.astype(np.float64)
    out -= mean
    out /= scale
    return out


def standardisation(x: FloatArray) -> tuple[Float64Array, Float64Array]:
    """Return the mean and standard deviation of each feature; a constant feature has an infinite deviation and is scaled to 0."""
    mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    constant = spread <= 1e-7 * np.maximum(np.abs(mean), 1e-12)
    return mean, np.where(constant, np.inf, spread)

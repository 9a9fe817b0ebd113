"""Logistic probes, all at once: task x weight vector x C of an encoder are columns of one problem.

Each column minimises sum_i s_i logloss(y_i, x_i w + b) + |w|^2 / (2 C), scikit-learn's objective divided by C, over
standardised features, the intercept free. Censored labels have weight 0.

The solver is L-BFGS (Nocedal 1980) over all columns together. Its initial Hessian is mean weight x Gram + I / C, which
is diagonal in the eigenbasis of the one Gram matrix that the columns share; so the number of iterations hardly depends
on C. Columns run in float32 matrix products until they are near, then in float64. The few that are still not there (nearly
separable labels at a large C, where the weights of a Hessian differ by orders) are finished by Newton's method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, solve
from scipy.special import expit

from fmaudit_core.probes.errors import ProbeError

FloatArray = npt.NDArray[np.floating]
Float64Array = npt.NDArray[np.float64]

#: a column has converged when the preconditioned gradient is this small against its coefficients
TOLERANCE: Final = 1e-6
_NEAR: Final = 1e-4
_MEMORY: Final = 10
#: iterations of L-BFGS before Newton takes over
_PATIENCE: Final = 60
_MAX_NEWTON: Final = 100
_MAX_HALVINGS: Final = 40
_ARMIJO: Final = 1e-4


@dataclass(frozen=True)
class LogisticFits:
    """Fitted columns, their standardisation folded in: a score needs the raw embedding only.

    Parameters
    ----------
    tasks : names of the t targets
    strategies : names of the w weight vectors
    c_grid : the c inverse strengths of regularisation
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

    def score(self, x: FloatArray, task: str, c: float, strategy: str = "none") -> Float64Array:
        """Probability of the positive class.

        Parameters
        ----------
        x : (n, d) raw embeddings

        Returns
        -------
        (n,) float64
        """
        at = self.tasks.index(task), self.strategies.index(strategy), self.c_grid.index(c)
        scores: Float64Array = expit(x.astype(np.float64) @ self.coefficients[at] + self.intercepts[at])
        return scores


def fit_logistic(
    x: npt.NDArray[np.float32],
    targets: Mapping[str, npt.NDArray[np.float64]],
    *,
    c_grid: Sequence[float],
    weights: Mapping[str, Float64Array] | None = None,
) -> LogisticFits:
    """Fit every task x weight vector x C on the same training studies.

    Parameters
    ----------
    x : (n, d) float32, raw embeddings of the training studies
    targets : task -> (n,) float: 0, 1, or NaN where censored or unknown
    c_grid : inverse strengths of regularisation, each above 0
    weights : name -> (n,) float, at least 0; one vector of ones called ``none`` where not given

    Raises
    ------
    ProbeError
        A value is not finite, a task has one class only among its known labels, or a column does not converge.
    """
    vectors = {"none": np.ones(len(x))} if weights is None else dict(weights)
    _check(x, targets, vectors, c_grid)
    mean, scale = _standardisation(x)
    standard = ((x - mean) / scale).astype(np.float32)
    tasks, strategies, grid = tuple(targets), tuple(vectors), tuple(c_grid)
    labels = np.stack([targets[task] for task in tasks], axis=1)
    known = ~np.isnan(labels)
    y = np.repeat(np.where(known, labels, 0.0), len(strategies) * len(grid), axis=1)
    by_vector = [known[:, [t]] * vectors[name][:, None] for t in range(len(tasks)) for name in strategies]
    sample = np.repeat(np.concatenate(by_vector, axis=1), len(grid), axis=1).astype(np.float64)
    ridge = 1.0 / np.tile(np.asarray(grid, dtype=np.float64), len(tasks) * len(strategies))

    solved, iterations = _Problem(standard, y, sample, ridge).solve()
    shape = (len(tasks), len(strategies), len(grid))
    unfinished = np.argwhere(iterations.reshape(shape) < 0)
    if len(unfinished):
        t, _, c = unfinished[0]
        raise ProbeError(
            f"the logistic probe for {tasks[t]} at C={grid[c]:g} did not converge.",
            fix="Leave the largest values out of `probes: c_grid`.",
        )
    raw = solved[:-1] / scale[:, None].astype(np.float64)
    intercepts = solved[-1] - mean.astype(np.float64) @ raw
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
    if not np.isfinite(x).all():
        raise ProbeError("an embedding holds NaN or infinite values.")
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
            raise ProbeError(f"no probe can be fitted for {task}: its known training labels are of one class.")


def _standardisation(x: FloatArray) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and standard deviation of each feature; a constant feature is left at 0."""
    mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    constant = spread <= 1e-7 * np.maximum(np.abs(mean), 1e-12)
    return mean.astype(np.float32), np.where(constant, np.inf, spread).astype(np.float32)


class _Problem:
    """Columns of logistic problems over one matrix, and the state of L-BFGS on those still running.

    Parameters
    ----------
    x : (n, d) float32, standardised
    y, sample : (n, k) float64, targets and sample weights
    ridge : (k,) float64, 1 / C
    """

    def __init__(self, x: npt.NDArray[np.float32], y: Float64Array, sample: Float64Array, ridge: Float64Array) -> None:
        self.x: FloatArray = x
        self.y, self.sample, self.ridge = y, sample, ridge
        gram = (x.T @ x).astype(np.float64)
        values, self.basis = eigh(gram, overwrite_a=True, check_finite=False)
        rate = (sample * y).sum(axis=0) / sample.sum(axis=0)
        curvature = rate * (1 - rate) * sample.mean(axis=0)
        self.diagonal = np.maximum(values, 0.0)[:, None] * curvature + ridge
        self.intercept_diagonal = curvature * len(x)
        self.start = np.log(rate / (1 - rate))

    def solve(self) -> tuple[Float64Array, npt.NDArray[np.int64]]:
        """Coefficients (d + 1, k) with the intercept last, and iterations (k,), -1 where not converged."""
        k = self.y.shape[1]
        solved = np.zeros((self.x.shape[1] + 1, k))
        solved[-1] = self.start
        taken = np.zeros(k, dtype=np.int64)
        self._descend(solved, taken, np.arange(k), _NEAR)
        self.x = self.x.astype(np.float64)
        done = self._descend(solved, taken, np.arange(k), TOLERANCE)
        for column in np.flatnonzero(~done):
            steps = self._newton(solved, int(column))
            taken[column] = -1 if steps is None else taken[column] + steps
        return solved, taken

    def _descend(
        self, solved: Float64Array, taken: npt.NDArray[np.int64], columns: npt.NDArray[np.intp], tolerance: float
    ) -> npt.NDArray[np.bool_]:
        """Run L-BFGS on all columns until each is within `tolerance`; writes into `solved` and `taken`."""
        finished = np.zeros(self.y.shape[1], dtype=bool)
        w = solved[:, columns]
        z = self._margins(w)
        gradient = self._gradient(w, z, columns)
        steps: list[Float64Array] = []
        turns: list[Float64Array] = []
        for _ in range(_PATIENCE):
            small = self._relative_step(w, gradient, columns) <= tolerance
            if small.any():
                finished[columns[small]] = True
                solved[:, columns[small]] = w[:, small]
                run = ~small
                columns, w, z, gradient = columns[run], w[:, run], z[:, run], gradient[:, run]
                steps, turns = [one[:, run] for one in steps], [one[:, run] for one in turns]
            if not len(columns):
                break
            direction = -self._two_loops(gradient, steps, turns, columns)
            w, z, moved = self._searched(w, z, gradient, direction, columns)
            taken[columns] += 1
            new = self._gradient(w, z, columns)
            steps, turns = [*steps[-_MEMORY + 1 :], moved], [*turns[-_MEMORY + 1 :], new - gradient]
            gradient = new
        solved[:, columns] = w
        return finished

    def _newton(self, solved: Float64Array, column: int) -> int | None:
        """Finish one column by damped Newton in the span of the data; iterations, None where it does not converge.

        The penalty keeps coefficients within that span, which is small where studies are fewer than dimensions.
        """
        spanned = self.diagonal[:, column] - self.ridge[column] > 1e-9 * self.diagonal[:, column].max()
        basis = self.basis[:, spanned]
        z = np.column_stack([self.x @ basis, np.ones(len(self.x))])
        u = np.append(basis.T @ solved[:-1, column], solved[-1, column])
        penalty = np.append(np.full(basis.shape[1], self.ridge[column]), 0.0)
        y, sample = self.y[:, column], self.sample[:, column]

        def loss(at: Float64Array) -> float:
            margin = z @ at
            return float(sample @ (np.logaddexp(0.0, margin) - y * margin) + 0.5 * (penalty * at) @ at)

        for iteration in range(1, _MAX_NEWTON + 1):
            p = expit(z @ u)
            gradient = z.T @ (sample * (p - y)) + penalty * u
            hessian = (z.T * (sample * p * (1 - p))) @ z + np.diag(penalty)
            step = solve(hessian, gradient, assume_a="pos", check_finite=False)
            before, length = loss(u), 1.0
            while loss(u - length * step) > before - _ARMIJO * length * (gradient @ step) + 1e-12 * abs(before):
                length *= 0.5
                if length < 1e-12:
                    return None
            u = u - length * step
            if length == 1.0 and np.linalg.norm(step) <= TOLERANCE * max(float(np.linalg.norm(u)), 1e-3):
                solved[:-1, column], solved[-1, column] = basis @ u[:-1], u[-1]
                return iteration
        return None

    def _margins(self, w: Float64Array) -> Float64Array:
        kind = self.x.dtype
        margins: Float64Array = (self.x @ w[:-1].astype(kind)).astype(np.float64) + w[-1]
        return margins

    def _gradient(self, w: Float64Array, z: Float64Array, columns: npt.NDArray[np.intp]) -> Float64Array:
        residual = self.sample[:, columns] * (expit(z) - self.y[:, columns])
        out = np.empty_like(w)
        out[:-1] = (self.x.T @ residual.astype(self.x.dtype)).astype(np.float64) + self.ridge[columns] * w[:-1]
        out[-1] = residual.sum(axis=0)
        return out

    def _loss(self, w: Float64Array, z: Float64Array, columns: npt.NDArray[np.intp]) -> Float64Array:
        each = np.logaddexp(0.0, z) - self.y[:, columns] * z
        penalty = 0.5 * self.ridge[columns] * np.einsum("ij,ij->j", w[:-1], w[:-1])
        loss: Float64Array = np.einsum("ij,ij->j", self.sample[:, columns], each) + penalty
        return loss

    def _preconditioned(self, vectors: Float64Array, columns: npt.NDArray[np.intp]) -> Float64Array:
        """Inverse of the initial Hessian times vectors: a rotation, a division, and the rotation back."""
        out = np.empty_like(vectors)
        out[:-1] = self.basis @ ((self.basis.T @ vectors[:-1]) / self.diagonal[:, columns])
        out[-1] = vectors[-1] / self.intercept_diagonal[columns]
        return out

    def _relative_step(self, w: Float64Array, gradient: Float64Array, columns: npt.NDArray[np.intp]) -> Float64Array:
        step = np.linalg.norm(self._preconditioned(gradient, columns), axis=0)
        relative: Float64Array = step / np.maximum(np.linalg.norm(w, axis=0), 1e-3)
        return relative

    def _two_loops(
        self,
        gradient: Float64Array,
        steps: Sequence[Float64Array],
        turns: Sequence[Float64Array],
        columns: npt.NDArray[np.intp],
    ) -> Float64Array:
        """L-BFGS two-loop recursion, a column at a time in parallel (Nocedal & Wright 2006, algorithm 7.4)."""
        q = gradient.copy()
        inner = [np.einsum("ij,ij->j", s, y) for s, y in zip(steps, turns, strict=True)]
        rho = [np.where(one > 0, 1.0 / np.where(one > 0, one, 1.0), 0.0) for one in inner]
        alphas = []
        for s, y, r in zip(reversed(steps), reversed(turns), reversed(rho), strict=True):
            alphas.append(r * np.einsum("ij,ij->j", s, q))
            q -= alphas[-1] * y
        q = self._preconditioned(q, columns)
        if steps:
            scaled = np.einsum("ij,ij->j", turns[-1], self._preconditioned(turns[-1], columns))
            q *= np.where(inner[-1] > 0, inner[-1] / np.where(scaled > 0, scaled, 1.0), 1.0)
        for s, y, r, alpha in zip(steps, turns, rho, reversed(alphas), strict=True):
            q += (alpha - r * np.einsum("ij,ij->j", y, q)) * s
        return q

    def _searched(
        self,
        w: Float64Array,
        z: Float64Array,
        gradient: Float64Array,
        direction: Float64Array,
        columns: npt.NDArray[np.intp],
    ) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Backtracking per column; margins are linear in the step, so a trial costs no matrix product."""
        along = self._margins(direction)
        slope = np.einsum("ij,ij->j", gradient, direction)
        before = self._loss(w, z, columns)
        length = np.ones(len(columns))
        slack = 1e-12 * np.abs(before)
        for _ in range(_MAX_HALVINGS):
            after = self._loss(w + length * direction, z + length * along, columns)
            worse = after > before + _ARMIJO * length * slope + slack
            if not worse.any():
                break
            length[worse] *= 0.5
        moved = length * direction
        return w + moved, z + length * along, moved

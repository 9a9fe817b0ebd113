"""The solver behind `logistic.py`: many penalised logistic problems over one matrix, all columns at once.

Far from the optimum it uses L-BFGS (Nocedal 1980) with float32 matrix products. The initial Hessian is mean weight x Gram +
ridge, which is diagonal in the eigenbasis of the Gram matrix that all columns share, so the number of iterations hardly depends
on the penalty. Near the optimum it uses Newton's method with float64 gradients; the step is found by conjugate gradients with the
same preconditioner. If labels are nearly separable, curvature varies too much between studies for a shared preconditioner: such a
column gets the Cholesky factor of its own Hessian, which is kept over steps while it is effective. A column has converged when
its Newton step is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from fmaudit_core.probes.shared_matrix import SharedMatrix

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
FloatArray = Float32Array | Float64Array
Factor = tuple[Float32Array, bool]
BoolArray = npt.NDArray[np.bool_]

#: a column has converged when its Newton step is this small relative to its coefficients
TOLERANCE: Final = 1e-5
#: tolerance and maximum number of iterations of L-BFGS; Newton's method does the rest
_NEAR: Final = 1e-5
_MAX_LBFGS: Final = 40
_MEMORY: Final = 10
_MAX_NEWTON: Final = 60
#: conjugate gradients stop at this share of the gradient, in the preconditioner's norm; in ill-conditioned problems a small
#: residual of the gradient can hide a large error of the step
_FORCING: Final = 0.1
_HARD_FORCING: Final = 0.01
_MAX_CG: Final = 1_000
#: a column whose step takes more iterations gets a new factor of its own Hessian, which costs about as much
_CHEAP_CG: Final = 25
#: added to the diagonal of a factor, as a share of its largest entry: float32 cannot distinguish less from 0
_FACTOR_RIDGE: Final = 1e-6
#: up to this condition number, Hessian-vector products in float32 are accurate to one percent
_FLOAT32_CONDITION: Final = 1e5
_MAX_HALVINGS: Final = 40
_ARMIJO: Final = 1e-4
_LEAST_NORM: Final = 1e-8


@dataclass
class _Columns:
    """State of the columns still running; the last axis of every array is the column."""

    at: npt.NDArray[np.intp]
    y: Float64Array
    sample: Float64Array
    ridge: Float64Array
    stiffness: Float64Array
    w: Float64Array
    z: Float64Array
    p: Float64Array
    loss: Float64Array

    def only(self, keep: BoolArray) -> _Columns:
        """Return the columns in `keep`."""
        return _Columns(**{name: np.ascontiguousarray(value[..., keep]) for name, value in vars(self).items()})


def minimise(
    x: SharedMatrix, y: Float64Array, sample: Float64Array, ridge: Float64Array
) -> tuple[Float64Array, npt.NDArray[np.int64]]:
    """Minimise sum_i sample_i logloss(y_i, x_i w + b) + ridge |w|^2 / 2 for every column.

    Parameters
    ----------
    x : SharedMatrix of (n, d) standardised features
    y, sample : (n, k) float64, targets and sample weights; each column has weight on both classes
    ridge : (k,) float64, above 0

    Returns
    -------
    (d + 1, k) coefficients with the intercept last, and (k,) iterations, -1 if a column has not converged.
    """
    solved, iterations = _Solver(x, y, sample, ridge).solve()
    return np.concatenate([x.of_features(solved[:-1]), solved[-1:]]), iterations


class _Solver:
    """The solver's state: the matrix, the columns' targets, weights and penalties, and their own preconditioners."""

    def __init__(self, x: SharedMatrix, y: Float64Array, sample: Float64Array, ridge: Float64Array) -> None:
        self.matrix, self.exact, self.fast = x, x.exact, x.fast
        self.y, self.sample, self.ridge = y, sample, ridge
        #: column -> Cholesky factor of its own Hessian, if the shared preconditioner is not effective
        self.factors: dict[int, Factor] = {}
        self.room = np.empty_like(self.fast)

    def solve(self) -> tuple[Float64Array, npt.NDArray[np.int64]]:
        """Return the coefficients and iterations of every column; see `minimise`."""
        k = self.y.shape[1]
        solved, taken = np.zeros((self.exact.shape[1] + 1, k)), np.zeros(k, dtype=np.int64)
        rate = (self.sample * self.y).sum(axis=0) / self.sample.sum(axis=0)
        solved[-1] = np.log(rate / (1 - rate))
        self._descend(solved, taken)
        self._finish(solved, taken)
        return solved, taken

    def _start(self, w: Float64Array) -> _Columns:
        """Return all columns at `w`, with margins in float64."""
        z = self.exact @ w[:-1] + w[-1]
        p, loss = _logistic(z, self.y, self.sample)
        return _Columns(
            at=np.arange(w.shape[1]),
            y=self.y,
            sample=self.sample,
            ridge=self.ridge,
            stiffness=self._stiffness(self.sample * p * (1 - p), self.ridge),
            w=w.copy(),
            z=z,
            p=p,
            loss=loss + _penalty(self.ridge, w),
        )

    def _stiffness(self, curve: Float64Array, ridge: Float64Array) -> Float64Array:
        """Return the diagonal of the preconditioner in the eigenbasis, (d + 1, k), with every study at the mean curvature."""
        total = np.maximum(curve.sum(axis=0), np.finfo(float).tiny)
        return np.concatenate([self.matrix.values[:, None] * (total / len(curve)) + ridge, total[None]])

    def _gradient(self, c: _Columns, x: FloatArray) -> Float64Array:
        residual = c.sample * (c.p - c.y)
        out = np.empty_like(c.w)
        out[:-1] = x.T @ residual.astype(x.dtype, copy=False) + c.ridge * c.w[:-1]
        out[-1] = residual.sum(axis=0)
        return out

    def _own_factor(self, curve: Float64Array, ridge: float) -> Factor:
        """Return the Cholesky factor of one column's Hessian, (d + 1, d + 1) with the intercept last."""
        d = self.fast.shape[1]
        weighted = np.multiply(self.fast, np.sqrt(curve).astype(np.float32)[:, None], out=self.room)
        hessian = np.empty((d + 1, d + 1), dtype=np.float32, order="F")
        hessian[:d, :d] = weighted.T @ weighted
        hessian[:d, d] = hessian[d, :d] = self.fast.T @ curve.astype(np.float32)
        hessian[d, d] = curve.sum()
        diagonal = np.einsum("ii->i", hessian)
        diagonal[:d] += ridge
        diagonal += _FACTOR_RIDGE * diagonal.max()
        factor: Factor = cho_factor(hessian, overwrite_a=True, check_finite=False)
        return factor

    def _preconditioned(self, vectors: Float64Array, stiffness: Float64Array) -> Float64Array:
        """Multiply vectors by the inverse of the initial Hessian."""
        out = np.empty_like(vectors)
        out[:-1] = self.matrix.divided(vectors[:-1], stiffness[:-1])
        out[-1] = vectors[-1] / stiffness[-1]
        return out

    def _descend(self, solved: Float64Array, taken: npt.NDArray[np.int64]) -> None:
        """Run L-BFGS on every column up to its tolerance; writes into `solved` and `taken`."""
        c = self._start(solved)
        gradient = self._gradient(c, self.fast)
        stiff = self._preconditioned(gradient, c.stiffness)
        steps: list[Float64Array] = []
        turns: list[Float64Array] = []
        gamma = np.ones(len(c.at))
        for _ in range(_MAX_LBFGS):
            run = _norm(stiff) > _NEAR * np.maximum(_norm(c.w), _LEAST_NORM)
            if not run.all():
                solved[:, c.at[~run]] = c.w[:, ~run]
                if not run.any():
                    return
                c, gradient, stiff, gamma = c.only(run), gradient[:, run], stiff[:, run], gamma[run]
                steps, turns = [one[:, run] for one in steps], [one[:, run] for one in turns]
            direction = -self._two_loops(gradient, steps, turns, gamma, c.stiffness)
            along = (self.fast @ direction[:-1].astype(np.float32)).astype(np.float64) + direction[-1]
            length = _searched(c, direction, along, _dot(gradient, direction))
            taken[c.at] += 1
            new = self._gradient(c, self.fast)
            new_stiff = self._preconditioned(new, c.stiffness)
            turn = new - gradient
            bend, scaled = _dot(turn, length * direction), _dot(turn, new_stiff - stiff)
            gamma = np.where((bend > 0) & (scaled > 0), bend / np.where(scaled > 0, scaled, 1.0), 1.0)
            steps, turns = [*steps[-_MEMORY + 1 :], length * direction], [*turns[-_MEMORY + 1 :], turn]
            gradient, stiff = new, new_stiff
        solved[:, c.at] = c.w

    def _two_loops(
        self,
        gradient: Float64Array,
        steps: Sequence[Float64Array],
        turns: Sequence[Float64Array],
        gamma: Float64Array,
        stiffness: Float64Array,
    ) -> Float64Array:
        """Run the L-BFGS two-loop recursion, column by column (Nocedal & Wright 2006, algorithm 7.4)."""
        q = gradient.copy()
        inner = [_dot(s, t) for s, t in zip(steps, turns, strict=True)]
        rho = [np.where(one > 0, 1.0 / np.where(one > 0, one, 1.0), 0.0) for one in inner]
        alphas = []
        for s, t, r in zip(reversed(steps), reversed(turns), reversed(rho), strict=True):
            alphas.append(r * _dot(s, q))
            q -= alphas[-1] * t
        q = self._preconditioned(q, stiffness) * gamma
        for s, t, r, alpha in zip(steps, turns, rho, reversed(alphas), strict=True):
            q += (alpha - r * _dot(t, q)) * s
        return q

    def _finish(self, solved: Float64Array, taken: npt.NDArray[np.int64]) -> None:
        """Run Newton's method until every column's step is small; writes into `solved` and `taken`."""
        c = self._start(solved)
        for _ in range(_MAX_NEWTON):
            gradient = self._gradient(c, self.exact)
            step, along = self._newton_step(c, gradient)
            length = _searched(c, step, along, _dot(gradient, step))
            taken[c.at] += 1
            small = (length == 1.0) & (_norm(step) <= TOLERANCE * np.maximum(_norm(c.w), _LEAST_NORM))
            solved[:, c.at[small]] = c.w[:, small]
            if small.all():
                return
            if small.any():
                c = c.only(~small)
        taken[c.at] = -1

    def _newton_step(self, c: _Columns, gradient: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Return the Newton step and its change of the margins, by preconditioned conjugate gradients (Dembo et al. 1982).

        If the problem is well conditioned the matrix may be float32: that perturbs the step by a percent, not the solution.
        """
        curve = c.sample * c.p * (1 - c.p)
        c.stiffness = self._stiffness(curve, c.ridge)
        features = c.stiffness[:-1]
        easy = bool((features.max(axis=0) <= _FLOAT32_CONDITION * features.min(axis=0)).all())
        x = self.fast if easy else self.exact
        step, along = np.zeros_like(c.w), np.zeros_like(c.z)
        residual = -gradient
        direction = self._well_conditioned(residual, c.stiffness, c.at)
        size = _dot(residual, direction)
        enough, run = (_FORCING if easy else _HARD_FORCING) ** 2 * size, np.arange(len(c.at))
        fresh = False
        for count in range(_MAX_CG):
            on = size > enough[run]
            if not on.all():
                run, size, curve = run[on], size[on], curve[:, on]
                residual, direction = residual[:, on], direction[:, on]
            if not len(run):
                break
            if count >= _CHEAP_CG and not fresh:  # restart from here, with each column's own preconditioner
                for j, column in enumerate(run):
                    self.factors[int(c.at[column])] = self._own_factor(curve[:, j], float(c.ridge[column]))
                direction, fresh = self._well_conditioned(residual, c.stiffness[:, run], c.at[run]), True
                before, size = size, _dot(residual, direction)
                enough[run] *= size / before
            ahead = x @ direction[:-1].astype(x.dtype, copy=False) + direction[-1]
            pulled = curve * ahead
            turned = np.empty_like(direction)
            turned[:-1] = x.T @ pulled.astype(x.dtype, copy=False) + c.ridge[run] * direction[:-1]
            turned[-1] = pulled.sum(axis=0)
            length = size / _dot(direction, turned)
            step[:, run] += length * direction
            along[:, run] += length * ahead
            residual = residual - length * turned
            stiff = self._well_conditioned(residual, c.stiffness[:, run], c.at[run])
            before, size = size, _dot(residual, stiff)
            direction = stiff + (size / before) * direction
        return step, along

    def _well_conditioned(
        self, vectors: Float64Array, stiffness: Float64Array, at: npt.NDArray[np.intp]
    ) -> Float64Array:
        """Return preconditioned vectors: by a column's own factor if it has one, else by the shared preconditioner."""
        out = self._preconditioned(vectors, stiffness)
        for j, column in enumerate(at):
            if int(column) in self.factors:
                out[:, j] = cho_solve(self.factors[int(column)], vectors[:, j].astype(np.float32), check_finite=False)
        return out


def _searched(c: _Columns, direction: Float64Array, along: Float64Array, slope: Float64Array) -> Float64Array:
    """Backtrack per column and move there; margins are linear in the step, so a trial costs no matrix product.

    Returns
    -------
    (k,) share of the direction that was taken, 0 if no share lowers the loss
    """
    length = np.ones(len(c.at))
    slack = 1e-12 * np.abs(c.loss)  # near the optimum the loss changes by less than its rounding error
    for trial in range(_MAX_HALVINGS + 1):
        w, z = c.w + length * direction, c.z + length * along
        p, loss = _logistic(z, c.y, c.sample)
        loss += _penalty(c.ridge, w)
        worse = loss > c.loss + _ARMIJO * length * slope + slack
        if not worse.any():
            break
        length[worse] *= 0.5 if trial < _MAX_HALVINGS - 1 else 0.0
    c.w, c.z, c.p, c.loss = w, z, p, loss
    return length


def _logistic(z: Float64Array, y: Float64Array, sample: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return (n, k) probabilities and (k,) weighted log losses, from one exponential that cannot overflow."""
    small = np.exp(-np.abs(z))
    one = 1.0 + small
    p = np.where(z > 0, 1.0, small) / one
    each = np.log(one)
    each += np.maximum(z, 0.0)
    each -= y * z
    return p, _dot(sample, each)


def _penalty(ridge: Float64Array, w: Float64Array) -> Float64Array:
    penalty: Float64Array = 0.5 * ridge * _dot(w[:-1], w[:-1])
    return penalty


def _dot(a: Float64Array, b: Float64Array) -> Float64Array:
    """Return the inner products column by column, (k,)."""
    products: Float64Array = np.einsum("ij,ij->j", a, b)
    return products


def _norm(w: Float64Array) -> Float64Array:
    """Return the norm of each column's coefficients without the intercept, (k,)."""
    norms: Float64Array = np.linalg.norm(w[:-1], axis=0)
    return norms

"""The feature matrix that many logistic problems share: in both precisions, with the eigenbasis of their preconditioner."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


class SharedMatrix:
    """Standardised features of the training studies.

    Parameters
    ----------
    x : (n, d) float64

    Attributes
    ----------
    exact, fast : (n, r) float64 and float32
        The features; with fewer studies than features, their coordinates in the studies' row space, r at most n. It contains the
        optimum of every problem with a squared penalty, so only the computing time changes.
    values : (r,) float64
        Eigenvalues of the Gram matrix.
    """

    def __init__(self, x: Float64Array) -> None:
        self._row_space: Float64Array | None = row_space(x) if x.shape[0] < x.shape[1] else None
        self._basis: Float64Array | None = None
        if self._row_space is not None:
            self.exact: Float64Array = x @ self._row_space
            self.fast: Float32Array = self.exact.astype(np.float32)
            self.values: Float64Array = np.einsum("ij,ij->j", self.exact, self.exact)
        else:
            self.exact, self.fast = x, x.astype(np.float32)
            gram = (self.fast.T @ self.fast).astype(np.float64)
            values, self._basis = eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
            self.values = np.maximum(values, 0.0)

    def divided(self, vectors: Float64Array, stiffness: Float64Array) -> Float64Array:
        """Return vectors (r, k), divided by `stiffness` (r, k) in the eigenbasis of the Gram matrix."""
        if self._basis is None:  # the coordinates are those of the eigenbasis
            return vectors / stiffness
        out: Float64Array = self._basis @ ((self._basis.T @ vectors) / stiffness)
        return out

    def of_features(self, coefficients: Float64Array) -> Float64Array:
        """Return coefficients of coordinates, (r, k), as coefficients of features, (d, k)."""
        return coefficients if self._row_space is None else self._row_space @ coefficients


def row_space(x: Float64Array) -> Float64Array:
    """Return an orthonormal eigenbasis of the space spanned by n studies with d > n features, (d, r), 1 <= r <= n."""
    values, vectors = eigh(x @ x.T, driver="evd", check_finite=False)
    kept = values > 1e-10 * max(float(values[-1]), np.finfo(float).tiny)
    if not kept.any():  # no feature varies
        return np.eye(x.shape[1], 1)
    basis: Float64Array = x.T @ (vectors[:, kept] / np.sqrt(values[kept]))
    return basis

"""LEACE: the smallest change of the embeddings after which no linear probe can predict an attribute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: directions with less than this share of the largest singular value are numerical noise
_RANK_TOLERANCE: Final = 1e-6


@dataclass(frozen=True)
class Eraser:
    """The affine map x - left @ (right @ (x - mean)).

    Parameters
    ----------
    mean : (d,) float64
    left : (d, r) float64
    right : (r, d) float64
    """

    mean: Float64Array
    left: Float64Array
    right: Float64Array

    def __call__(self, x: Float32Array) -> Float32Array:
        """Erase the attribute from (n, d) embeddings."""
        erased: Float32Array = (x - ((x - self.mean) @ self.right.T) @ self.left.T).astype(np.float32)
        return erased


class Covariance:
    """Mean and covariance of the training embeddings, whitened once for all attributes.

    Parameters
    ----------
    x : (n, d) float32, embeddings of the training studies
    """

    def __init__(self, x: Float32Array) -> None:
        self.mean = x.mean(axis=0, dtype=np.float64)
        self.centred = x - self.mean
        values, vectors = eigh(self.centred.T @ self.centred / len(x), driver="evd", check_finite=False)
        kept = values > max(float(values[-1]), 0.0) * len(values) * np.finfo(np.float32).eps
        self.whiten = (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T
        self.unwhiten = (vectors[:, kept] * np.sqrt(values[kept])) @ vectors[:, kept].T

    def eraser(self, group: IntArray) -> Eraser:
        """Return the eraser of the subgroups; studies without one (-1) do not contribute to the erased directions.

        Parameters
        ----------
        group : (n,) int, of the training studies

        References
        ----------
        Belrose, Schneider-Joseph, Ravfogel, Cotterell, Raff & Biderman 2023, theorem 4.3: with W = Sigma_xx^(-1/2) and P the
        orthogonal projection on the columns of W Sigma_xz, x - W^+ P W (x - E x) has no covariance with z and is nearest to x.
        """
        present = np.unique(group[group >= 0])
        known = group >= 0
        z = (group[:, None] == present).astype(np.float64)
        z[known] -= z[known].mean(axis=0)
        cross = self.whiten @ (self.centred.T @ z) / len(group)
        u, s, _ = np.linalg.svd(cross, full_matrices=False)
        u = u[:, s > _RANK_TOLERANCE * max(float(s.max(initial=0.0)), np.finfo(float).tiny)]
        return Eraser(self.mean, self.unwhiten @ u, u.T @ self.whiten)

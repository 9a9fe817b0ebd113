"""Preprocessing of embeddings for networks: standardised, and reduced if training has fewer studies than features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmaudit_core.probes.logistic import standardisation
from fmaudit_core.probes.shared_matrix import row_space

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowSpace:
    """Standardisation by the training studies, and projection to their row space.

    Parameters
    ----------
    mean, scale : (d,) float64
    basis : (d, r) float32, basis that the standardised embeddings are projected to, None without projection
    """

    mean: Float64Array
    scale: Float64Array
    basis: Float32Array | None

    @classmethod
    def of(cls, x: Float32Array) -> RowSpace:
        """Return the standardisation and row space of the training studies (n, d)."""
        mean, scale = standardisation(x)
        standardised = cls(mean, scale, None)
        if x.shape[0] >= x.shape[1]:
            return standardised
        return cls(mean, scale, row_space(standardised.prepared(x).astype(np.float64)).astype(np.float32))

    def prepared(self, x: Float32Array) -> Float32Array:
        """Return raw embeddings (n, d) as input of the networks."""
        standard = ((x - self.mean) / self.scale).astype(np.float32)
        return standard if self.basis is None else standard @ self.basis

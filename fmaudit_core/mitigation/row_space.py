"""How networks see embeddings: standardised, and in fewer dimensions where training has fewer studies than features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmaudit_core.mitigation.linear_heads import row_space

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowSpace:
    """Standardisation by the training studies, and their row space.

    Parameters
    ----------
    mean, scale : (d,) float64
    basis : (d, r) float32, what the standardised embeddings are turned into, None where they are not
    """

    mean: Float64Array
    scale: Float64Array
    basis: Float32Array | None

    @classmethod
    def of(cls, x: Float32Array) -> RowSpace:
        """The row space of the training studies (n, d)."""
        mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        scale = np.where(spread <= 1e-7 * np.maximum(np.abs(mean), 1e-12), np.inf, spread)
        standardised = cls(mean, scale, None)
        if x.shape[0] >= x.shape[1]:
            return standardised
        return cls(mean, scale, row_space(standardised.prepared(x).astype(np.float64)).astype(np.float32))

    def prepared(self, x: Float32Array) -> Float32Array:
        """Raw embeddings (n, d) as the networks take them."""
        standard = ((x - self.mean) / self.scale).astype(np.float32)
        return standard if self.basis is None else standard @ self.basis

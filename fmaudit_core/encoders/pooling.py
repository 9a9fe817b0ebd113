"""Slice embeddings become one study embedding."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Pooling = Literal["mean", "max"]
POOLINGS: Final[tuple[Pooling, ...]] = ("mean", "max")


def pooled(slices: Float32Array, pooling: Pooling) -> Float32Array:
    """Study embedding of slice embeddings.

    Parameters
    ----------
    slices : (n, d) float32, n at least 1
    pooling : "mean" (the paper's; summed in float64) or "max" (per dimension)

    Returns
    -------
    (d,) float32
    """
    out: Float32Array = slices.max(axis=0) if pooling == "max" else slices.mean(axis=0, dtype=np.float64).astype("f4")
    return out

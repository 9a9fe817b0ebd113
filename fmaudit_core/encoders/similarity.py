"""How alike embeddings are: the measure of every comparison of networks, precisions and runtimes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def cosines(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the cosine of each pair of rows of two arrays, (n, d) each, computed in float64; 0 where a row is 0."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1)
    out: npt.NDArray[np.float64] = (a64 * b64).sum(axis=1) / np.maximum(lengths, 1e-300)
    return out

"""Rows of a matrix of embeddings, without a copy where they lie together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def rows_of(
    matrix: npt.NDArray[np.float32], rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return some rows of a matrix: a view if they lie together in the order of the matrix, else a copy.

    Parameters
    ----------
    matrix : (n, d) float32
    rows : (n,) bool, or (m,) integers
    """
    at = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    together = len(at) > 0 and bool((np.diff(at) == 1).all())
    return matrix[at[0] : at[-1] + 1] if together else matrix[at]

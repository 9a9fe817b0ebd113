from __future__ import annotations

import numpy as np
import pytest

from fmaudit_core.common.matrix_rows import rows_of

MATRIX = np.arange(24, dtype=np.float32).reshape(8, 3)


@pytest.mark.parametrize(
    ("rows", "view"),
    [
        ([2, 3, 4], True),
        ([7], True),
        ([2, 4, 5], False),
        ([4, 3, 2], False),
        ([2, 3, 3], False),
        ([], False),
    ],
)
def test_rows_that_lie_together_are_no_copy(rows, view):
    at = np.array(rows, dtype=np.int64)
    found = rows_of(MATRIX, at)
    assert np.array_equal(found, MATRIX[at])
    assert np.shares_memory(found, MATRIX) is view
    if len(set(rows)) == len(rows) and rows == sorted(rows):
        mask = np.isin(np.arange(8), at)
        assert np.array_equal(rows_of(MATRIX, mask), MATRIX[mask])

"""Slices become one vector: per dimension, as numpy's own reductions in double precision have it."""

from __future__ import annotations

import numpy as np
import pytest

from fmaudit_core.encoders.pooling import POOLINGS, pooled


@pytest.mark.parametrize("n", [1, 4, 5])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_pooling_is_its_reduction_over_the_slices(pooling, n):
    slices = np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32)
    out = pooled(slices, pooling)
    assert out.dtype == np.float32
    assert out == pytest.approx(getattr(np, pooling)(slices.astype(float), axis=0), abs=1e-6)

"""The batch size at which an encoder is fastest on its device, found by trial. How batches are run: `forward.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from fmaudit_core.imaging.window import SliceArray

#: a batch twice as large must be this much faster per item
_GAIN: Final = 1.05
#: largest batch that is tried
_MOST: Final = 512


def fastest_batch(
    passes: Callable[[SliceArray], bool],
    items: SliceArray,
    start: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return the batch size with the most items per second, doubled from `start` while that pays and memory suffices.

    Each size is run once to warm up, then timed.

    Parameters
    ----------
    passes : callable
        Runs one batch; False if it failed, so that no larger one is tried.
    items : (n, ...)
        Items of one study, repeated to fill a batch.
    clock : callable
        Time in seconds.
    """
    best, best_rate, size = start, 0.0, start
    while size <= max(_MOST, start):
        batch: SliceArray = np.resize(items, (size, *items.shape[1:]))
        if not passes(batch):
            break
        began = clock()
        if not passes(batch):
            break
        rate = size / max(clock() - began, 1e-9)
        if rate < _GAIN * best_rate:
            break
        best, best_rate, size = size, rate, 2 * size
    return best

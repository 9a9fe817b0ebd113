"""Random streams: one seed and a name determine a stream, from which compiled code draws."""

from __future__ import annotations

import hashlib

import numba
import numpy as np


def seed_of(seed: int, named: str) -> int:
    """Return the 64-bit seed of a named stream. Streams with different names are independent."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{named}".encode()).digest()[:8], "big")


@numba.njit(inline="always")
def mixed(state):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Apply SplitMix64's finaliser (Steele, Lea & Flood 2014), uint64 to uint64."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

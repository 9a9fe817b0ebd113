"""Where chance comes from: one seed and a name decide a stream, and compiled code draws from it."""

from __future__ import annotations

import hashlib

import numba
import numpy as np


def seed_of(seed: int, named: str) -> int:
    """Seed of one named stream, 64 bits: other names of the same audit draw independently."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{named}".encode()).digest()[:8], "big")


@numba.njit(inline="always")
def mixed(state):  # type: ignore[no-untyped-def]  # pragma: no cover
    """SplitMix64's finaliser (Steele, Lea & Flood 2014), uint64 to uint64."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

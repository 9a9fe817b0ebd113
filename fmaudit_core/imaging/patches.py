"""Patches of a volume: where they lie along each axis. The volume and its grid: `volume.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product


def patch_starts(size: int, side: int, overlap: float) -> list[int]:
    """Return the first voxels of the patches along one axis: evenly spaced, the last one flush with the end.

    Parameters
    ----------
    size, side : int, voxels
        Of the volume, at least `side`, and of a patch.
    overlap : float
        Share of a patch that its neighbour covers too.

    References
    ----------
    MONAI's `sliding_window_inference`: a step of int(side (1 - overlap)), at least 1.
    """
    step = max(1, int(side * (1 - overlap)))
    last = size - side
    return [*range(0, last, step), last]


def patch_corners(shape_zyx: Sequence[int], patch_zyx: Sequence[int], overlap: float) -> Iterator[tuple[int, int, int]]:
    """Yield the first voxel of every patch, (z, y, x), from the feet upwards, then along the rows."""
    z, y, x = (patch_starts(size, side, overlap) for size, side in zip(shape_zyx, patch_zyx, strict=True))
    yield from product(z, y, x)

"""Whole volumes on one grid, for encoders that read a study in three dimensions. For slices see `window.py`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fmaudit_core.storage.digests import key_of

Int16Array = npt.NDArray[np.int16]
Float32Array = npt.NDArray[np.float32]
Spacing = tuple[float, float, float]

#: HU outside a volume
AIR_HU: Final = -1024
_Side = Annotated[int, Field(ge=4, le=1024)]
_Millimetres = Annotated[float, Field(gt=0.05, lt=50.0)]


class Grid(BaseModel):
    """The grid that a whole volume is resampled to, with values in HU.

    Parameters
    ----------
    shape_zyx : three ints
        Slices, rows and columns.
    orientation : "LPS" or "RAS"
        Direction of increasing columns and rows: left and posterior, or right and anterior. Slices always run to the head.
    crop_above_hu : int, optional
        Crop first to the bounding box of all voxels above this value; a volume without any is kept whole.
    spacing_zyx_mm : three floats, optional
        If None, the volume is resized to `shape_zyx` by averages over voxels (area interpolation). Otherwise it is
        interpolated linearly at this spacing, then cropped about the centre or padded.
    anchor : "centre" or "first_voxel"
        Where the points of the new spacing start: about the centre of the volume, or at its first voxel, as in MONAI's
        `Spacing`, which many CT encoders were trained with. Then round((n - 1) * spacing / new spacing) + 1 points are kept,
        and cropped or padded by whole voxels.
    pad_hu : int, HU
        Value outside the volume.

    References
    ----------
    MONAI's `Spacing` (bilinear, border) and `ResizeWithPadOrCrop`, for `anchor: first_voxel`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape_zyx: tuple[_Side, _Side, _Side]
    orientation: Literal["LPS", "RAS"] = "LPS"
    crop_above_hu: int | None = Field(default=None, ge=-32768, le=32766)
    spacing_zyx_mm: tuple[_Millimetres, _Millimetres, _Millimetres] | None = None
    anchor: Literal["centre", "first_voxel"] = "centre"
    pad_hu: int = Field(default=AIR_HU, ge=-32768, le=32767)

    @model_validator(mode="after")
    def _resampled(self) -> Self:
        if self.spacing_zyx_mm is None and (self.anchor != "centre" or self.pad_hu != AIR_HU):
            raise ValueError("`anchor` and `pad_hu` apply to a grid with `spacing_zyx_mm`")
        return self

    def key(self) -> dict[str, object]:
        """Return what determines the values, for a digest."""
        return key_of(self, added=("anchor", "pad_hu"))

    def apply(self, volume_hu: Int16Array, spacing_zyx_mm: Spacing | None = None) -> Int16Array:
        """Resample one volume to the grid.

        Parameters
        ----------
        volume_hu : (slices, rows, columns) int16, HU, LPS
        spacing_zyx_mm : three floats
            Spacing of the volume; required if the grid has its own spacing.

        Returns
        -------
        `shape_zyx` int16 HU, rounded half to even

        Raises
        ------
        ValueError
            The grid has a spacing and the volume's is not given.
        """
        if self.crop_above_hu is not None:
            volume_hu = volume_hu[_box(volume_hu > self.crop_above_hu)]
        if self.orientation == "RAS":
            volume_hu = volume_hu[:, ::-1, ::-1]
        if self.spacing_zyx_mm is None:
            out = volume_hu.astype(np.float32)
            # the axis that shrinks most comes first, which leaves less work for the others
            for axis in sorted(range(3), key=lambda axis: self.shape_zyx[axis] / volume_hu.shape[axis]):
                out = _averaged(out, axis, self.shape_zyx[axis])
        elif spacing_zyx_mm is None:
            raise ValueError("the volume's spacing is needed to resample it")
        else:
            out = volume_hu.astype(np.float32)
            for axis, (have, want) in enumerate(zip(spacing_zyx_mm, self.spacing_zyx_mm, strict=True)):
                if self.anchor == "centre":
                    out = _interpolated(out, axis, want / have, self.shape_zyx[axis], self.pad_hu)
                else:
                    out = _fitted(_from_first_voxel(out, axis, want / have), axis, self.shape_zyx[axis], self.pad_hu)
        return np.rint(np.clip(out, -32768, 32767)).astype(np.int16)


def _box(inside: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the bounding box of all true voxels, or the whole array if there are none."""
    found = []
    for axis in range(inside.ndim):
        along = np.flatnonzero(inside.any(axis=tuple(other for other in range(inside.ndim) if other != axis)))
        found.append(slice(int(along[0]), int(along[-1]) + 1) if len(along) else slice(None))
    return tuple(found)


def _averaged(volume: Float32Array, axis: int, size: int) -> Float32Array:
    """Return means over [floor(i n / size), ceil((i + 1) n / size)) along one axis: torch's adaptive average pooling."""
    n = volume.shape[axis]
    if n == size:
        return volume
    spans = [(index * n // size, -((-(index + 1) * n) // size)) for index in range(size)]
    along = np.moveaxis(volume, axis, 0)
    out = np.stack([along[start] if end == start + 1 else along[start:end].mean(axis=0) for start, end in spans])
    return np.moveaxis(out, 0, axis)


def _interpolated(volume: Float32Array, axis: int, step: float, size: int, pad_hu: int) -> Float32Array:
    """Return linear interpolations at `size` centred points, `step` voxels apart; padding beyond the outer voxels' edges."""
    n = volume.shape[axis]
    at = (np.arange(size) - (size - 1) / 2) * step + (n - 1) / 2
    out = _at(volume, axis, at)
    np.moveaxis(out, axis, 0)[(at < -0.5) | (at > n - 0.5)] = pad_hu
    return out


def _from_first_voxel(volume: Float32Array, axis: int, step: float) -> Float32Array:
    """Return linear interpolations from the first voxel on, `step` voxels apart; the last point may lie half a step beyond."""
    n = volume.shape[axis]
    return _at(volume, axis, np.arange(int(np.round((n - 1) / step + 1.0))) * step)


def _at(volume: Float32Array, axis: int, at: npt.NDArray[np.floating[Any]]) -> Float32Array:
    """Return linear interpolations at the positions `at`, in voxels, along one axis; clamped to the volume."""
    n = volume.shape[axis]
    at = np.clip(at, 0, n - 1)
    low = np.floor(at).astype(np.intp)
    along = np.moveaxis(volume, axis, 0)
    share = (at - low).astype(np.float32)[:, None, None]
    out = along[low] * (1 - share) + along[np.minimum(low + 1, n - 1)] * share
    return np.moveaxis(out, 0, axis)


def _fitted(volume: Float32Array, axis: int, size: int, pad_hu: int) -> Float32Array:
    """Return the volume cropped about the centre, or padded on both sides, to `size` along one axis, by whole voxels."""
    n = volume.shape[axis]
    if n >= size:
        start = n // 2 - size // 2
        return np.take(volume, np.arange(start, start + size), axis=axis)
    before = (size - n) // 2
    width = [(before, size - n - before) if one == axis else (0, 0) for one in range(volume.ndim)]
    return np.pad(volume, width, constant_values=pad_hu)

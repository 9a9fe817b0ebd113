"""Whole volumes on one grid, for encoders that read a study in three dimensions. For slices see `window.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fmaudit_core.imaging.patches import patch_corners
from fmaudit_core.storage.digests import key_of

Int16Array = npt.NDArray[np.int16]
Float32Array = npt.NDArray[np.float32]
Spacing = tuple[float, float, float]

#: HU outside a volume
AIR_HU: Final = -1024
_Side = Annotated[int, Field(ge=4, le=1024)]
_Sides = tuple[_Side, _Side, _Side]
_Millimetres = Annotated[float, Field(gt=0.05, lt=50.0)]


class Grid(BaseModel):
    """The grid that a whole volume is resampled to, with values in HU.

    Parameters
    ----------
    shape_zyx : three ints, optional
        Slices, rows and columns; required unless `multiple_of` is given.
    orientation : "LPS" or "RAS"
        Direction of increasing columns and rows: left and posterior, or right and anterior. Slices always run to the head.
    crop_above_hu : int, optional
        Crop first to the bounding box of all voxels above this value; a volume without any is kept whole.
    spacing_zyx_mm : three floats, optional
        If None, the volume is resized to `shape_zyx` by averages over voxels (area interpolation). Otherwise it is
        interpolated linearly at this spacing, then cropped about the centre or padded.
    anchor : "centre", "first_voxel", "origin" or "whole_voxels"
        Where the points of the new spacing lie: the centre of the grid at that of the volume; or from the first voxel on, as in
        MONAI's `Spacing`, round((n - 1) * spacing / new spacing) + 1 points; or from there on, as SimpleITK resamples an image
        that keeps its origin and extent, round(n * spacing / new spacing) points; or about the centre of the volume, as in
        torchio's `Resample`, floor(n * spacing / new spacing) points. The last three are cropped or padded by whole voxels.
    pad_hu : int, HU
        Value outside the volume.
    patch_zyx : three ints, optional
        Slices, rows and columns of the patches that the encoder reads instead of the whole volume. Their embeddings are kept, as
        those of slices are, and pooled per study.
    overlap : float
        Share of a patch that its neighbour covers too; the last patch along an axis is flush with the end.
    multiple_of : three ints, optional
        For patches of a volume at its own extent: padded on both sides to the next multiple of these sides.

    References
    ----------
    MONAI's `Spacing` (bilinear, border) and `ResizeWithPadOrCrop`, for `anchor: first_voxel`; SimpleITK's `ResampleImageFilter`
    (linear), for `anchor: origin`; torchio 1's `Resample` (linear) and `CropOrPad`, for `anchor: whole_voxels`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape_zyx: _Sides | None = None
    orientation: Literal["LPS", "RAS"] = "LPS"
    crop_above_hu: int | None = Field(default=None, ge=-32768, le=32766)
    spacing_zyx_mm: tuple[_Millimetres, _Millimetres, _Millimetres] | None = None
    anchor: Literal["centre", "first_voxel", "origin", "whole_voxels"] = "centre"
    pad_hu: int = Field(default=AIR_HU, ge=-32768, le=32767)
    patch_zyx: _Sides | None = None
    overlap: float = Field(default=0.0, ge=0.0, le=0.9)
    multiple_of: _Sides | None = None

    @model_validator(mode="after")
    def _resampled(self) -> Self:
        if self.spacing_zyx_mm is None and (self.anchor != "centre" or self.pad_hu != AIR_HU):
            raise ValueError("`anchor` and `pad_hu` apply to a grid with `spacing_zyx_mm`")
        return self

    @model_validator(mode="after")
    def _sized(self) -> Self:
        if (self.shape_zyx is None) == (self.multiple_of is None):
            raise ValueError("a grid needs `shape_zyx`, or for patches of a volume at its own extent `multiple_of`")
        if self.multiple_of is not None and (self.spacing_zyx_mm is None or self.patch_zyx is None):
            raise ValueError("`multiple_of` needs `spacing_zyx_mm` and `patch_zyx`")
        if self.patch_zyx is None:
            if self.overlap:
                raise ValueError("`overlap` needs `patch_zyx`")
        elif any(side > size for side, size in zip(self.patch_zyx, self._least_zyx, strict=True)):
            raise ValueError("`patch_zyx` must not be larger than `shape_zyx` or `multiple_of`")
        return self

    @property
    def _least_zyx(self) -> _Sides:
        """Return the shape of the smallest volume."""
        found = self.shape_zyx or self.multiple_of
        assert found is not None
        return found

    @property
    def item_zyx(self) -> _Sides:
        """Return the shape of what an encoder reads at once: the whole volume, or a patch."""
        return self.patch_zyx or self._least_zyx

    def key(self) -> dict[str, object]:
        """Return what determines the values, for a digest."""
        return key_of(self, added=("anchor", "pad_hu", "patch_zyx", "overlap", "multiple_of"))

    def shape_of(self, shape_zyx: Sequence[int], spacing_zyx_mm: Sequence[float]) -> _Sides:
        """Return the shape on this grid of a volume of some shape and spacing."""
        if self.shape_zyx is not None:
            return self.shape_zyx
        assert self.spacing_zyx_mm is not None
        assert self.multiple_of is not None
        z, y, x = (
            -(-self._points(n, have, want) // of) * of
            for n, have, want, of in zip(shape_zyx, spacing_zyx_mm, self.spacing_zyx_mm, self.multiple_of, strict=True)
        )
        return z, y, x

    def n_items(self, shape_zyx: Sequence[int], spacing_zyx_mm: Sequence[float]) -> int:
        """Return the number of patches of a volume of some shape and spacing; 1 for an encoder of whole volumes."""
        if self.patch_zyx is None:
            return 1
        return sum(1 for _ in patch_corners(self.shape_of(shape_zyx, spacing_zyx_mm), self.patch_zyx, self.overlap))

    def items(self, volume: Int16Array) -> Iterator[Int16Array]:
        """Yield what an encoder reads of a volume on this grid, one by one and without a copy.

        Parameters
        ----------
        volume : (slices, 1, rows, columns) int16

        Returns
        -------
        Iterator of (1, slices, 1, rows, columns): the volume, or its patches from the feet upwards, then along the rows
        """
        if self.patch_zyx is None:
            yield volume[None]
            return
        slices, rows, columns = self.patch_zyx
        for z, y, x in patch_corners((len(volume), *volume.shape[2:]), self.patch_zyx, self.overlap):
            yield volume[None, z : z + slices, :, y : y + rows, x : x + columns]

    def _points(self, n: int, have: float, want: float) -> int:
        """Return the number of points at the new spacing of an axis of `n` voxels."""
        if self.anchor == "first_voxel":
            return int(np.round((n - 1) / (want / have) + 1.0))
        return max(1, int(n * have / want) if self.anchor == "whole_voxels" else round(n * have / want))

    def _along(self, volume: Float32Array, axis: int, have: float, want: float, size: int) -> Float32Array:
        """Return the volume at the new spacing along one axis, `size` voxels."""
        n, step = volume.shape[axis], want / have
        if self.anchor == "centre":
            return _interpolated(volume, axis, step, size, self.pad_hu)
        points = self._points(n, have, want)
        if self.anchor == "first_voxel":
            return _fitted(_at(volume, axis, np.arange(points) * step), axis, size, self.pad_hu, up=False)
        if self.anchor == "origin":
            at = np.arange(points) * step
            out = _padded(_at(volume, axis, at), axis, at >= n - 0.5, self.pad_hu)
            return _fitted(out, axis, size, self.pad_hu, up=False)
        at = (np.arange(points) - (points - 1) / 2) * step + (n - 1) / 2
        return _fitted(_at(volume, axis, at), axis, size, self.pad_hu, up=True)

    def apply(self, volume_hu: Int16Array, spacing_zyx_mm: Spacing | None = None) -> Int16Array:
        """Resample one volume to the grid.

        Parameters
        ----------
        volume_hu : (slices, rows, columns) int16, HU, LPS
        spacing_zyx_mm : three floats
            Spacing of the volume; required if the grid has its own spacing.

        Returns
        -------
        `shape_of` the volume, int16 HU, rounded half to even

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
            out, shape = volume_hu.astype(np.float32), self._least_zyx
            # the axis that shrinks most comes first, which leaves less work for the others
            for axis in sorted(range(3), key=lambda axis: shape[axis] / volume_hu.shape[axis]):
                out = _averaged(out, axis, shape[axis])
        elif spacing_zyx_mm is None:
            raise ValueError("the volume's spacing is needed to resample it")
        else:
            out, shape = volume_hu.astype(np.float32), self.shape_of(volume_hu.shape, spacing_zyx_mm)
            for axis, (have, want) in enumerate(zip(spacing_zyx_mm, self.spacing_zyx_mm, strict=True)):
                out = self._along(out, axis, have, want, shape[axis])
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
    return _padded(_at(volume, axis, at), axis, (at < -0.5) | (at > n - 0.5), pad_hu)


def _padded(volume: Float32Array, axis: int, outside: npt.NDArray[np.bool_], pad_hu: int) -> Float32Array:
    """Return the volume, whose places `outside` along one axis were set to the padding."""
    np.moveaxis(volume, axis, 0)[outside] = pad_hu
    return volume


def _at(volume: Float32Array, axis: int, at: npt.NDArray[np.floating[Any]]) -> Float32Array:
    """Return linear interpolations at the positions `at`, in voxels, along one axis; clamped to the volume."""
    n = volume.shape[axis]
    at = np.clip(at, 0, n - 1)
    low = np.floor(at).astype(np.intp)
    along = np.moveaxis(volume, axis, 0)
    share = (at - low).astype(np.float32)[:, None, None]
    out = along[low] * (1 - share) + along[np.minimum(low + 1, n - 1)] * share
    return np.moveaxis(out, 0, axis)


def _fitted(volume: Float32Array, axis: int, size: int, pad_hu: int, *, up: bool) -> Float32Array:
    """Return the volume cropped about the centre, or padded on both sides, to `size` along one axis, by whole voxels.

    Of an odd number of voxels, one more is cropped or padded at the start if `up`; otherwise MONAI's rule decides.
    """
    n = volume.shape[axis]
    if n >= size:
        start = (n - size + 1) // 2 if up else n // 2 - size // 2
        return np.take(volume, np.arange(start, start + size), axis=axis)
    before = (size - n + up) // 2
    width = [(before, size - n - before) if one == axis else (0, 0) for one in range(volume.ndim)]
    return np.pad(volume, width, constant_values=pad_hu)

"""Alterations of a CT whose effect on an encoder is measured in `sensitivity.py`: what it should see, and what it should not."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from fmaudit_core.common.errors import needs_extra
from fmaudit_core.imaging.volume import Spacing
from fmaudit_core.imaging.window import SliceArray, View, WindowRange

Int16Array = npt.NDArray[np.int16]

#: slices of each CT that are compared, evenly spaced
SLICES: Final = 4
#: HU range of other recipes for chest CT; values above are cut
_CLIP_HU: Final = (-1000, 200)
#: factor on the width of every window
_WIDER: Final = 1.5
#: HU that become black and white before JPEG compression
_JPEG_HU: Final = (-1024, 1024)
_JPEG_QUALITY: Final = 75


@dataclass(frozen=True)
class Scan:
    """A CT of one patient.

    Parameters
    ----------
    volume_hu : (slices, rows, columns) int16, HU, LPS, from the feet upwards
    spacing_zyx_mm : three floats
    """

    volume_hu: Int16Array
    spacing_zyx_mm: Spacing


@dataclass(frozen=True)
class Alteration:
    """An alteration of a CT.

    Parameters
    ----------
    name : str
    kind : "axis", "input" or "noise"
        Whether an encoder should see it as another anatomy, whether it shows another preprocessing than the declared one, or
        whether it should make no difference.
    items : callable
        (view, scan) -> what the encoder reads, (n, ...); None if the alteration does not apply to the view.
    """

    name: str
    kind: Literal["axis", "input", "noise"]
    items: Callable[[View, Scan], SliceArray | None]


def items_of(view: View, scan: Scan) -> SliceArray:
    """Return what an encoder reads of a scan: a few slices, the whole volume, or its patches without overlap.

    Returns
    -------
    (slices, channels, rows, columns), or (volumes or patches, slices, 1, rows, columns)
    """
    if view.volume is not None:
        view = view.model_copy(update={"volume": view.volume.model_copy(update={"overlap": 0.0})})
        return np.concatenate(list(view.items(view.apply(scan.volume_hu, scan.spacing_zyx_mm))))
    most = SLICES if view.max_slices is None else min(SLICES, view.max_slices)
    few = view.model_copy(update={"max_slices": most})
    return few.apply(scan.volume_hu, scan.spacing_zyx_mm)


def _flipped(*axes: int) -> Callable[[View, Scan], SliceArray]:
    def items(view: View, scan: Scan) -> SliceArray:
        return items_of(view, Scan(np.ascontiguousarray(np.flip(scan.volume_hu, axes)), scan.spacing_zyx_mm))

    return items


def _upside_down(view: View, scan: Scan) -> SliceArray | None:
    """Return the volume from the head downwards; pooled slices have no order."""
    return None if view.volume is None else _flipped(0)(view, scan)


def _half_spacing(view: View, scan: Scan) -> SliceArray:
    """Return the scan as if its voxels were declared at another size: everything appears twice as large."""
    grid = view.volume
    if grid is not None and grid.spacing_zyx_mm is not None:
        z, y, x = scan.spacing_zyx_mm
        return items_of(view, Scan(scan.volume_hu, (2 * z, 2 * y, 2 * x)))
    first = 0 if grid is not None else 1  # slices stay where they are
    middle = [slice(None)] * first + [slice(n // 4, n // 4 + max(1, n // 2)) for n in scan.volume_hu.shape[first:]]
    return items_of(view, Scan(scan.volume_hu[tuple(middle)], scan.spacing_zyx_mm))


def _clipped(view: View, scan: Scan) -> SliceArray | None:
    """Return HU cut at another range; grey windows have a range of their own."""
    if view.values != "int16":
        return None
    return items_of(view, Scan(np.clip(scan.volume_hu, *_CLIP_HU), scan.spacing_zyx_mm))


def _wider_windows(view: View, scan: Scan) -> SliceArray | None:
    """Return slices through windows half as wide again; HU have no window."""
    if view.values != "uint8":
        return None
    wider = tuple(WindowRange(centre_hu=one.centre_hu, width_hu=_WIDER * one.width_hu) for one in view.channel_windows)
    return items_of(view.model_copy(update={"windows": wider}), scan)


def _half_voxel_shift(view: View, scan: Scan) -> SliceArray:
    """Return the scan shifted by half a voxel along every axis that the encoder reads, by linear interpolation."""
    shifted = scan.volume_hu.astype(np.float32)
    for axis in (0, 1, 2) if view.volume is not None else (1, 2):
        following = np.take(shifted, np.minimum(np.arange(1, shifted.shape[axis] + 1), shifted.shape[axis] - 1), axis)
        shifted = (shifted + following) / 2
    return items_of(view, Scan(np.rint(shifted).astype(np.int16), scan.spacing_zyx_mm))


def _jpeg(view: View, scan: Scan) -> SliceArray:
    """Return slices after lossy compression; HU by way of 8 bits."""
    items = items_of(view, scan)
    low, high = _JPEG_HU
    grey = items if items.dtype == np.uint8 else np.rint((items.clip(low, high) - float(low)) * (255 / (high - low)))
    planes = grey.astype(np.uint8).reshape(-1, *items.shape[-2:])
    out = np.stack([_compressed(one) for one in planes]).reshape(items.shape)
    if items.dtype == np.uint8:
        return out
    restored: Int16Array = np.rint(out * ((high - low) / 255) + low).astype(np.int16)
    return restored


def _compressed(plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    with needs_extra("imaging", "JPEG compression"):
        from PIL import Image
    file = io.BytesIO()
    Image.fromarray(plane).save(file, "JPEG", quality=_JPEG_QUALITY)
    found: Any = Image.open(file)
    return np.asarray(found)


ALTERATIONS: Final = (
    Alteration("flip_left_right", "axis", _flipped(2)),
    Alteration("flip_front_back", "axis", _flipped(1)),
    Alteration("flip_head_foot", "axis", _upside_down),
    Alteration("orientation", "axis", _flipped(1, 2)),
    Alteration("spacing", "input", _half_spacing),
    Alteration("clip", "input", _clipped),
    Alteration("window", "input", _wider_windows),
    Alteration("half_voxel_shift", "noise", _half_voxel_shift),
    Alteration("jpeg", "noise", _jpeg),
)

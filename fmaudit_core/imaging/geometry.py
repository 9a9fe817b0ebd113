"""Slice geometry in patient space: order, spacing, tilt, and the mapping to common LPS axes.

Coordinates follow DICOM: x to the patient's Left, y to Posterior, z to Superior, in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmaudit_core.imaging.errors import Defect

Float64Array = npt.NDArray[np.float64]

SAME_POSITION_MM = 0.01
STEP_TOLERANCE = 0.10
TILT_FROM_DEGREES = 0.5
OBLIQUE_FROM_DEGREES = 0.5
ORIENTATION_TOLERANCE = 1e-3
#: positions lie on a line within this share of a pixel
LINE_TOLERANCE_PX = 0.5
#: no gantry tilts further; half of it is the limit of scanners
STEEPEST_DEGREES = 45.0
#: sizes of voxels in mm that a CT may have; others are in another unit
PLAUSIBLE_MM = (0.02, 50.0)


@dataclass(frozen=True)
class Stack:
    """Spacing and tilt of the slices of a series.

    Parameters
    ----------
    step_mm : float or None
        Median step along the normal; None for a single slice.
    tilt_degrees : float
        Angle between the line through the positions and the normal.
    """

    step_mm: float | None
    tilt_degrees: float


def slice_normal(orientation: Float64Array) -> Float64Array:
    """Return the unit normal of a slice: row cosine x column cosine (DICOM PS3.3 C.7.6.2.1.1).

    Parameters
    ----------
    orientation : (6,) float, ImageOrientationPatient

    Raises
    ------
    Defect
        `missing_geometry` if the cosines are not two perpendicular unit vectors.
    """
    row, column = orientation[:3], orientation[3:]
    unit = np.allclose([row @ row, column @ column], 1.0, atol=1e-2) and abs(row @ column) < 1e-2
    if not unit:
        raise Defect("missing_geometry")
    normal = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def is_axial(normal: Float64Array) -> bool:
    """Return whether a slice normal lies within 45 degrees of the patient's long axis."""
    return bool(abs(normal[2]) >= np.cos(np.pi / 4) - 1e-9)


def stacked(positions: Float64Array, normal: Float64Array, pixel_mm: float) -> Stack:
    """Check that slices in ascending order are evenly spaced along one straight line.

    Parameters
    ----------
    positions : (slices, 3) float, mm, ImagePositionPatient in ascending order along the normal
    normal : (3,) float, unit
    pixel_mm : float
        Size of a pixel.

    Raises
    ------
    Defect
        A step differs from the median step by more than 10 %: `missing_slices` if all steps are near whole multiples
        of the smallest, else `uneven_spacing`. `inconsistent_geometry`: a position lies more than half a pixel off the line
        fitted through all of them, or the line runs more than 45 degrees off the normal.
    """
    if len(positions) == 1:
        return Stack(step_mm=None, tilt_degrees=0.0)
    steps = np.diff(positions @ normal)
    median = float(np.median(steps))
    if np.any(np.abs(steps - median) > STEP_TOLERANCE * median):
        multiples = steps / steps.min()
        near_whole = np.abs(multiples - np.rint(multiples)) <= STEP_TOLERANCE
        raise Defect("missing_slices" if bool(near_whole.all()) else "uneven_spacing")
    line = _line_through(positions, normal, pixel_mm)
    tilt = float(np.degrees(np.arccos(min(1.0, 1.0 / float(np.linalg.norm(line))))))
    if tilt > STEEPEST_DEGREES:
        raise Defect("inconsistent_geometry")
    return Stack(step_mm=median, tilt_degrees=tilt)


def check_plausible(spacing_mm: Sequence[float]) -> None:
    """Raise `implausible_spacing` if a voxel has a size that no CT has, as in another unit than mm."""
    if not all(PLAUSIBLE_MM[0] <= mm <= PLAUSIBLE_MM[1] for mm in spacing_mm):
        raise Defect("implausible_spacing")


def _line_through(positions: Float64Array, normal: Float64Array, pixel_mm: float) -> Float64Array:
    """Return the direction of the least-squares line through positions, (3,) float, per mm along the normal."""
    heights = positions @ normal
    heights = heights - heights.mean()
    centred = positions - positions.mean(axis=0)
    line: Float64Array = heights @ centred / (heights @ heights)
    off = centred - np.outer(heights, line)
    if np.linalg.norm(off, axis=1).max() > LINE_TOLERANCE_PX * pixel_mm:
        raise Defect("inconsistent_geometry")
    return line


def lps_axes(directions: Float64Array) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return the permutation and flips that map stored axes to the nearest (z, y, x) of LPS, without resampling.

    Parameters
    ----------
    directions : (3, 3) float
        Row i is the direction in LPS space in which the i-th array axis grows.

    Returns
    -------
    order : which stored axis becomes z, y and x
    flip : whether that axis then has to be reversed
    """
    cosine = np.abs(directions / np.linalg.norm(directions, axis=1, keepdims=True))
    order: dict[int, int] = {}
    for stored, patient in _largest_first(cosine):
        if stored not in order.values() and patient not in order:
            order[patient] = stored
    axes = (order[2], order[1], order[0])
    flips = tuple(bool(directions[stored, patient] < 0) for stored, patient in zip(axes, (2, 1, 0), strict=True))
    return axes, (flips[0], flips[1], flips[2])


def is_oblique(directions: Float64Array) -> bool:
    """Return whether some axis deviates by more than half a degree from every patient axis."""
    cosine = np.abs(directions / np.linalg.norm(directions, axis=1, keepdims=True)).max(axis=1)
    return bool(np.degrees(np.arccos(np.clip(cosine, 0, 1))).max() > OBLIQUE_FROM_DEGREES)


def reoriented(
    array: npt.NDArray[np.generic], axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> npt.NDArray[np.generic]:
    """Return a view of an array with its axes permuted and reversed as given by `lps_axes`."""
    turned = array.transpose(axes)
    return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]


def _largest_first(cosine: Float64Array) -> list[tuple[int, int]]:
    pairs = [(stored, patient) for stored in range(3) for patient in range(3)]
    return sorted(pairs, key=lambda pair: -cosine[pair])

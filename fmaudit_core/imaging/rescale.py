"""Conversion of stored values to HU, exact and with little memory. Used by `dicom.py` and `nifti.py`."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.imaging.errors import Defect

Int16Array = npt.NDArray[np.int16]
IntegerArray = npt.NDArray[np.integer[Any]]
StoredArray = IntegerArray | npt.NDArray[np.floating[Any]]

#: slope in HU per stored unit, and intercept in HU
Rescale = tuple[float, float]

#: HU assigned to pixels outside the scanned circle, which the scanner marked as padding
PADDING_HU: Final = -1024
#: values converted at a time: a block and its float64 copies fit into the processor's cache
_BLOCK: Final = 1 << 17


def to_hu(stored: StoredArray, slope: float, intercept: float, *, padding: tuple[int, int] | None = None) -> Int16Array:
    """Return the HU of stored values: slope x stored + intercept in float64, rounded half to even.

    Parameters
    ----------
    stored : array of any shape, with the signedness of its header
    slope, intercept : float, HU per unit and HU; slope is not 0
    padding : (low, high), optional
        Stored values from low to high are outside the scanned circle: they are set to -1024 HU and not rescaled.

    Returns
    -------
    int16 of the same shape, never clamped

    Raises
    ------
    Defect
        `non_finite`: NaN or infinite values; `hu_out_of_range`: a value that is not padding exceeds 16 bits.

    References
    ----------
    DICOM PS3.3 C.11.1.1.2 (modality rescale), C.7.5.1.1.2 (padding).
    """
    padded = None if padding is None else (stored >= padding[0]) & (stored <= padding[1])
    if padded is not None and not padded.any():
        padded = None
    measured = stored if padded is None else stored[~padded]
    if measured.size:
        low, high = float(measured.min()), float(measured.max())
        if not (np.isfinite(low) and np.isfinite(high)):  # a NaN anywhere is the minimum
            raise Defect("non_finite")
        for end in (low * slope + intercept, high * slope + intercept):
            if not -32768 <= np.rint(end) <= 32767:
                raise Defect("hu_out_of_range")
    hu = _converted(stored, slope, intercept)
    if padded is not None:
        hu[padded] = PADDING_HU
    return hu


def _converted(stored: StoredArray, slope: float, intercept: float) -> Int16Array:
    """Return int16 HU; padding that exceeds 16 bits gets an arbitrary value, since the caller overwrites it."""
    if slope == 1.0 and intercept.is_integer() and stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        # exact in 16-bit arithmetic, which wraps around: a result within range is correct
        shifted = stored.astype(np.uint16) + np.uint16(int(intercept) % 65536)
        return shifted.view(np.int16)
    hu = np.empty(stored.shape, dtype=np.int16, order="F" if stored.flags.fnc else "C")
    source, target = stored.ravel(order="A"), hu.ravel(order="A")
    for at in range(0, source.size, _BLOCK):
        values = source[at : at + _BLOCK].astype(np.float64)
        values *= slope
        values += intercept
        np.clip(np.rint(values, out=values), -32768, 32767, out=values)  # affects padding only
        target[at : at + _BLOCK] = values
    return hu

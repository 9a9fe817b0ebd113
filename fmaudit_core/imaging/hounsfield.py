"""Whether the values of a volume can be the HU of a body: what a header claims is checked on the voxels, for DICOM and NIfTI."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.imaging.errors import Defect

Int16Array = npt.NDArray[np.int16]
_Counts = npt.NDArray[np.int64]

_LARGE_MATRIX_PX: Final = 256
#: HU of the emptiest voxel that is no padding, of lung or air at most, of fat at most, and of soft tissue (NIST, ICRU 44)
_EMPTIEST, _AIR_BELOW, _FAT_BELOW = -1100, -500, -50
_SOFT_FROM, _SOFT_TO = -200, 300
#: a body has fat, and more soft tissue than bone: water at -1024 or at +1024 HU leaves less
_LEAST_FAT_OR_AIR: Final = 0.0005
_LEAST_SOFT: Final = 0.01
#: more soft tissue than this share of the voxels emptier than air, which are lung and air if an offset was applied twice
_LEAST_SOFT_OF_EMPTIER: Final = 0.1
#: a mask or a map of labels has few values; noise of a scanner gives hundreds
_LEAST_VALUES: Final = 12
#: outside the scanned circle scanners write one value below this, which says nothing about the body
_PADDING_TO: Final = -1024
_ZERO: Final = 32768


def check_values(volume_hu: Int16Array, *, modality_known: bool, padded: bool = False) -> None:
    """Refuse values that cannot be HU.

    Parameters
    ----------
    volume_hu : (slices, rows, columns) int16
    modality_known : bool
        Whether a header says that it is CT with HU. Then fat is enough, since a small field of view may hold no air; otherwise
        there must be air.
    padded : bool
        Whether voxels were set to -1024 HU as padding, which is no air.

    Raises
    ------
    Defect
        `constant_values`; `not_hounsfield`: no air (nor fat), hardly any soft tissue, or too few different values for a scan.
    """
    some = thinned(volume_hu)
    reason = _reason(_counted(some), modality_known=modality_known, padded=padded)
    if reason and some.size < volume_hu.size:  # a part of the voxels may miss a little air
        reason = _reason(_counted(volume_hu), modality_known=modality_known, padded=padded)
    if reason:
        raise Defect(reason)


def thinned(volume_hu: Int16Array) -> Int16Array:
    """Return every fourth row and column of a large matrix, sufficient for a distribution; a small one whole."""
    step = 4 if volume_hu.shape[-1] >= _LARGE_MATRIX_PX else 1
    return volume_hu[:, ::step, ::step]


def _reason(counts: _Counts, *, modality_known: bool, padded: bool) -> str:
    n_values = np.count_nonzero(counts)
    if n_values == 1:
        return "constant_values"
    body = counts[_ZERO + _PADDING_TO + 1 :].sum()
    empty = counts[_ZERO + _PADDING_TO] if padded else 0
    air = _within(counts, _EMPTIEST, _AIR_BELOW) - empty > 0
    if modality_known:
        air = bool(_within(counts, _EMPTIEST, _FAT_BELOW) - empty >= max(1, _LEAST_FAT_OR_AIR * body))
    soft = _within(counts, _SOFT_FROM, _SOFT_TO)
    emptier = counts[: _ZERO + _EMPTIEST]
    emptier_than_air = emptier.sum() - emptier.max()  # one value is that of padding
    enough_soft = soft >= max(1, _LEAST_SOFT * body, _LEAST_SOFT_OF_EMPTIER * emptier_than_air)
    is_body = air and enough_soft and n_values >= _LEAST_VALUES
    return "" if is_body else "not_hounsfield"


def _within(counts: _Counts, low: int, high: int) -> int:
    return int(counts[_ZERO + low : _ZERO + high].sum())


def _counted(volume_hu: Int16Array) -> _Counts:
    """Return the number of voxels of each HU, (65536,) int64, from -32768 HU."""
    cells = np.ascontiguousarray(volume_hu).view(np.uint16).ravel() ^ np.uint16(_ZERO)
    return np.bincount(cells, minlength=1 << 16)

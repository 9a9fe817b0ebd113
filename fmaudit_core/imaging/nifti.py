"""NIfTI files as HU volumes on the same axes as DICOM. For DICOM see `dicom.py`; `series.py` uses both."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np

from fmaudit_core.imaging.errors import Defect, damage_is
from fmaudit_core.imaging.geometry import is_oblique, lps_axes, reoriented
from fmaudit_core.imaging.rescale import Int16Array, Rescale, to_hu

SUFFIXES: Final = (".nii", ".nii.gz")
#: a whole CT volume contains air; NIfTI records no modality, so a volume without a voxel below this is not accepted as CT
_AIR_BELOW_HU: Final = -500


def is_nifti(path: Path) -> bool:
    """Return whether a file name has a NIfTI suffix."""
    return path.name.lower().endswith(SUFFIXES)


def read_volume(
    path: Path, *, rescale: Rescale | None = None
) -> tuple[Int16Array, tuple[float, float, float], tuple[str, ...]]:
    """Return the HU volume of a NIfTI file.

    Parameters
    ----------
    rescale : (slope, intercept), optional
        Rescale parameters known from outside the file. Used only if the file has no scaling of its own and no negative value, so
        that its values cannot be HU.

    Returns
    -------
    volume_hu : (z, y, x) int16, LPS
    spacing_zyx_mm : three floats
    flags : tuple of str
        `oblique` if the grid is rotated relative to the patient's axes (it is not resampled); `rescaled` if `rescale` was used.

    Raises
    ------
    Defect
        `unreadable`, `truncated_pixel_data`, `not_3d`, `missing_geometry`, `non_finite`, `not_hounsfield` or `hu_out_of_range`.
    """
    with damage_is("unreadable"):
        return _volume(_parsed(_bytes_of(path)), rescale)


def _volume(image: Any, rescale: Rescale | None) -> tuple[Int16Array, tuple[float, float, float], tuple[str, ...]]:
    header = image.header
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise Defect("not_3d")
    if int(header["qform_code"]) == 0 and int(header["sform_code"]) == 0:
        raise Defect("missing_geometry")
    # NIfTI space is RAS+: x and y are reversed in LPS
    to_lps = np.diag([-1.0, -1.0, 1.0]) @ np.asarray(image.affine, dtype=np.float64)[:3, :3]
    spacing = np.linalg.norm(to_lps, axis=0)
    if not np.isfinite(to_lps).all() or spacing.min() <= 0 or abs(np.linalg.det(to_lps / spacing)) < 1e-3:
        raise Defect("missing_geometry")
    axes, flips = lps_axes(to_lps.T)
    hu, rescaled = _hu(image, rescale)
    volume = reoriented(hu.reshape(shape, order="F"), axes, flips)
    flags = (*(("oblique",) if is_oblique(to_lps.T) else ()), *(("rescaled",) if rescaled else ()))
    spacing_zyx = tuple(float(spacing[axis]) for axis in axes)
    return np.ascontiguousarray(volume), (spacing_zyx[0], spacing_zyx[1], spacing_zyx[2]), flags


def _bytes_of(path: Path) -> bytes:
    """Read a whole file, decompressed by its content; a truncated gzip stream is an error, even if a library would pad it."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            return gzip.decompress(raw)
    except EOFError as error:
        raise Defect("truncated_pixel_data") from error
    except (OSError, zlib.error) as error:
        raise Defect("unreadable") from error
    if path.name.lower().endswith(".gz") or not raw:
        raise Defect("unreadable")
    return raw


def _parsed(data: bytes) -> Any:
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        try:
            image = kind.from_bytes(data)
        except Exception:  # the header class rejects other versions with its own errors; the next version is tried
            continue
        header: Any = image.header
        need = (
            int(header["vox_offset"]) + math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
        )
        if len(data) < need:
            raise Defect("truncated_pixel_data")
        return image
    raise Defect("unreadable")


def _hu(image: Any, rescale: Rescale | None) -> tuple[Int16Array, bool]:
    """Return flat HU in Fortran order, and whether `rescale` was used."""
    stored = np.asanyarray(image.dataobj.get_unscaled()).ravel(order="F")
    if stored.dtype.kind not in "iuf":
        raise Defect("not_hounsfield")
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    unscaled = (slope, intercept) == (1.0, 0.0) and bool(stored.min() >= 0)
    rescaled = rescale is not None and rescale[0] != 0 and unscaled
    if rescale is not None and rescaled:
        slope, intercept = rescale
    hu = to_hu(stored, slope, intercept)
    if hu.min() >= _AIR_BELOW_HU:
        raise Defect("not_hounsfield")
    return hu, rescaled

"""NIfTI files as HU volumes on the same axes as DICOM. For DICOM see `dicom.py`; `series.py` uses both."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fmaudit_core.imaging.containers import kind_of_bytes
from fmaudit_core.imaging.errors import Defect, damage_is
from fmaudit_core.imaging.geometry import check_plausible, is_oblique, lps_axes, reoriented
from fmaudit_core.imaging.hounsfield import check_values
from fmaudit_core.imaging.rescale import Int16Array, Rescale, to_hu

Float64Array = npt.NDArray[np.float64]

SUFFIXES: Final = (".nii", ".nii.gz")
_HEADERS, _VOXELS = (".hdr", ".hdr.gz"), (".img", ".img.gz")
#: mm per unit of length (`xyzt_units`, bits 0 to 2); 0 is unknown, which means mm everywhere
_MM: Final = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT_BITS: Final = 0x07
#: sizes of voxels that differ by more than this share are not rounding
_SAME_SIZE: Final = 0.01
#: two affines are one if no voxel moves by more than this share of a voxel
_SAME_PLACE_VOXELS: Final = 0.5
_DIMENSIONS: Final = 3


@dataclass(frozen=True)
class NiftiVolume:
    """A volume with its geometry.

    Parameters
    ----------
    volume_hu : (z, y, x) int16, LPS
    flags : sequence of str
        `oblique`: the grid is rotated relative to the patient's axes, and not resampled; `rescaled`: the given rescale was
        used; `affines_differ`.
    """

    volume_hu: Int16Array
    spacing_zyx_mm: tuple[float, float, float]
    flags: Sequence[str]


def is_nifti(path: Path) -> bool:
    """Return whether a file is NIfTI by its name: one file, or a header with or without its voxels.

    Voxels without a header may be DICOM: scanners also use the suffix .img.
    """
    return is_named_nifti(path.name) or is_second_of_pair(path)


def is_named_nifti(name: str) -> bool:
    """Return whether a name is that of a NIfTI file, or of a header with or without its voxels."""
    return name.lower().endswith((*SUFFIXES, *_HEADERS))


def is_voxels(path: Path) -> bool:
    """Return whether a file name has the suffix of voxels whose header is another file."""
    return path.name.lower().endswith(_VOXELS)


def is_second_of_pair(path: Path) -> bool:
    """Return whether a file holds the voxels of a header next to it, with which it is read."""
    return path.name.lower().endswith(_VOXELS) and _partner(path, _HEADERS) is not None


def read_volume(path: Path, *, rescale: Rescale | None = None) -> NiftiVolume:
    """Return the HU volume of a NIfTI file.

    Parameters
    ----------
    path : Path
        A file, or the header or the voxels of a pair (.hdr and .img).
    rescale : (slope, intercept), optional
        Rescale parameters known from outside the file. Used only if the file has no scaling of its own and no negative value, so
        that its values cannot be HU.

    Raises
    ------
    Defect
        `unreadable`, `truncated_pixel_data`, `archive`, `other_volume_format`, `half_of_a_pair`, `not_3d`, `missing_geometry`,
        `contradictory_affine`, `implausible_spacing`, `non_finite`, `constant_values`, `not_hounsfield` or `hu_out_of_range`.
    """
    with damage_is("unreadable"):
        return _volume(_image(path), rescale)


def _image(path: Path) -> Any:
    name = path.name.lower()
    if not name.endswith((*_HEADERS, *_VOXELS)):
        return _parsed(_bytes_of(path))
    header = path if name.endswith(_HEADERS) else _partner(path, _HEADERS)
    voxels = path if name.endswith(_VOXELS) else _partner(path, _VOXELS)
    if header is None or voxels is None:
        raise Defect("half_of_a_pair")
    return _parsed_pair(_bytes_of(header), _bytes_of(voxels))


def _partner(path: Path, suffixes: Sequence[str]) -> Path | None:
    """Return the other file of a pair, None if it is not there."""
    stem = path.name.lower().removesuffix(".gz").removesuffix(".hdr").removesuffix(".img")
    names = [path.name[: len(stem)] + cased for suffix in suffixes for cased in (suffix, suffix.upper())]
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def _volume(image: Any, rescale: Rescale | None) -> NiftiVolume:
    shape = tuple(int(n) for n in image.header.get_data_shape())
    while len(shape) > _DIMENSIONS and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != _DIMENSIONS or min(shape) < 1:
        raise Defect("not_3d")
    to_lps, differ = _directions(image.header, shape)
    spacing = np.linalg.norm(to_lps, axis=0)
    check_plausible(spacing.tolist())
    axes, flips = lps_axes(to_lps.T)
    hu, rescaled = _hu(image, rescale)
    volume = np.ascontiguousarray(reoriented(hu.reshape(shape, order="F"), axes, flips))
    check_values(volume, modality_known=False)
    present = {"oblique": is_oblique(to_lps.T), "rescaled": rescaled, "affines_differ": differ}
    z, y, x = (float(spacing[axis]) for axis in axes)
    return NiftiVolume(volume, (z, y, x), [flag for flag, holds in present.items() if holds])


def _directions(header: Any, shape: tuple[int, ...]) -> tuple[Float64Array, bool]:
    """Return the directions of the array axes in LPS mm, (3, 3) float in columns, and whether the affines differ slightly.

    Raises
    ------
    Defect
        `missing_geometry`; `contradictory_affine`: sform, qform or pixdim would give other axes or another size of voxels.
    """
    # NIfTI space is RAS+: x and y are reversed in LPS
    to_lps = np.diag([-1.0, -1.0, 1.0]) * _MM.get(int(header["xyzt_units"]) & _UNIT_BITS, 1.0)
    found = [to_lps @ form[:3, :3] for form in _forms(header)]
    if not found or not _is_a_grid(found[0]):
        raise Defect("missing_geometry")
    recorded = np.abs(np.asarray(header["pixdim"], dtype=np.float64)[1:4])
    pixdim = recorded * abs(to_lps[2, 2])
    sizes = [np.linalg.norm(found[0], axis=0), _heights(found[0])]
    differ = not all(_agree(sizes[0][at], pixdim[at]) or _agree(sizes[1][at], pixdim[at]) for at in range(_DIMENSIONS))
    if differ and not np.all(recorded == 1.0):  # nibabel reads zeros as 1, the value of a field nobody filled in
        raise Defect("contradictory_affine")
    if len(found) == 1 or not _is_a_grid(found[1]):
        return found[0], differ
    same_axes = lps_axes(found[0].T) == lps_axes(found[1].T)
    if not same_axes or not all(map(_agree, *(np.linalg.norm(one, axis=0) for one in found))):
        raise Defect("contradictory_affine")
    moved = np.abs(found[0] - found[1]) @ (np.array(shape) - 1)
    return found[0], differ or bool(moved.max() > _SAME_PLACE_VOXELS * sizes[0].min())


def _forms(header: Any) -> list[Float64Array]:
    """Return the affines that the header declares valid, sform first; a quaternion that is none counts as not declared."""
    forms = [header.get_sform(coded=True)[0]]
    with suppress(ValueError, nib.spatialimages.HeaderDataError):
        forms.append(header.get_qform(coded=True)[0])
    return [np.asarray(form, dtype=np.float64) for form in forms if form is not None]


def _is_a_grid(directions: Float64Array) -> bool:
    sizes = np.linalg.norm(directions, axis=0)
    return bool(np.isfinite(directions).all() and sizes.min() > 0 and abs(np.linalg.det(directions / sizes)) >= 1e-3)


def _heights(directions: Float64Array) -> Float64Array:
    """Return the distance between planes of each axis, (3,) float; a sheared grid has others than the steps."""
    heights: Float64Array = 1.0 / np.linalg.norm(np.linalg.inv(directions), axis=1)
    return heights


def _agree(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME_SIZE * max(one, other)


def _bytes_of(path: Path) -> bytes:
    """Read a whole file, decompressed by its content; a truncated gzip stream is an error, even if a library would pad it."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except EOFError as error:
        raise Defect("truncated_pixel_data") from error
    except (OSError, zlib.error) as error:
        raise Defect("unreadable") from error
    other = kind_of_bytes(raw[:512])
    if other or not raw:
        raise Defect(other or "unreadable")
    return raw


def _parsed(data: bytes) -> Any:
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        try:
            image = kind.from_bytes(data)
        except Exception:  # the header class rejects other versions with its own errors; the next version is tried
            continue
        _check_length(image.header, len(data), int(image.header["vox_offset"]))
        return image
    raise Defect("unreadable")


def _parsed_pair(header_data: bytes, voxels: bytes) -> Any:
    pairs: tuple[Any, ...] = (nib.Nifti1Pair, nib.Nifti2Pair)  # nibabel types neither function below
    files = {"header": header_data, "image": voxels}
    for kind in pairs:
        try:
            header = kind.header_class.from_fileobj(io.BytesIO(header_data))
            _check_length(header, len(voxels), int(header["vox_offset"]))
            return kind.from_file_map({name: nib.FileHolder(fileobj=io.BytesIO(data)) for name, data in files.items()})
        except Defect:
            raise
        except Exception:  # the header class rejects other versions with its own errors; the next version is tried
            continue
    raise Defect("other_volume_format")


def _check_length(header: Any, n_bytes: int, offset: int) -> None:
    """Raise `truncated_pixel_data` if the voxels that the header declares do not fit into the file."""
    need = offset + math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
    if n_bytes < need:
        raise Defect("truncated_pixel_data")


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
    return to_hu(stored, slope, intercept), rescaled

"""CT series found under a path, read as HU volumes with their true geometry, or refused with a named reason.

Reading of a series
-------------------
- CT is recognised by SOP Class UID (else Media Storage SOP Class UID, else Modality). Files are grouped by Series Instance UID;
  files of one folder without a UID form one series.
- Localizers are removed from their series before its geometry is checked. DICOMDIR, hidden and text files are ignored; other
  files that cannot be read are counted (`unreadable_files`) and refuse nothing while the remaining slices are regular.
- Slices are ordered by ImagePositionPatient along the slice normal, never by file name or InstanceNumber.
- HU = slope x stored + intercept per slice, in float64, rounded half to even. MONOCHROME1 never inverts HU. Declared padding is
  set to -1024 HU; nothing is clamped.
- Volumes are (z, y, x) with x to the Left, y to Posterior, z to Superior, reached only by permuting and reversing axes. A tilted
  gantry keeps its sheared grid and is flagged.
- Slices at one position: if their pixels are equal, one is kept (`duplicate_slices`); if they differ, the series is refused
  (`duplicate_positions`).

`REASONS` lists the reasons for refusing a series, `FLAGS` the repairs and remarks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.imaging import geometry, nifti
from fmaudit_core.imaging.dicom import DicomFile, Frame, frames_of, read_file
from fmaudit_core.imaging.errors import Defect, ImagingError
from fmaudit_core.imaging.rescale import Rescale
from fmaudit_core.storage.digests import files_below

Int16Array = npt.NDArray[np.int16]

REASONS: Final = {
    "unreadable": "empty, truncated in the header, or not parseable",
    "not_dicom": "another type of file",
    "dicomdir": "a DICOMDIR: an index of files, not an image",
    "no_images": "the folder holds no images",
    "not_ct_image": "a DICOM object of another type than CT",
    "localizer": "a scout view",
    "no_pixel_data": "no pixels in the file",
    "truncated_pixel_data": "the pixel data are truncated",
    "unsupported_transfer_syntax": "compressed with an unsupported transfer syntax",
    "missing_rescale": "no rescale slope or intercept: the values are not HU",
    "not_hounsfield": "a derived map or another modality: the values are not HU",
    "hu_out_of_range": "HU beyond 16 bits",
    "missing_geometry": "no usable position, orientation or pixel spacing",
    "inconsistent_geometry": "matrix, pixel spacing or orientation differ within the series",
    "not_axial": "slices more than 45 degrees off the axial plane",
    "duplicate_positions": "different slices at one position",
    "missing_slices": "missing slices",
    "uneven_spacing": "steps between slices differ by more than 10 %",
    "not_3d": "not one three-dimensional volume",
    "non_finite": "NaN or infinite values",
}
FLAGS: Final = {
    "missing_uid": "a UID is empty",
    "gantry_tilt": "positions run at an angle to the slice normal; kept slice by slice",
    "rescaled": "stored values were converted to HU with the slope and intercept from the cohort's tables",
    "oblique": "the grid is rotated relative to the patient's axes; kept, not resampled",
    "reoriented": "axes were permuted or reversed to LPS",
    "localizer_removed": "the series contained a scout view",
    "duplicate_slices": "identical copies of slices were dropped",
    "unreadable_files": "other files in the folder could not be read",
    "assumed_thickness": "one slice without SliceThickness: its z spacing is set to 1 mm",
    "lossy": "lossy compression: HU are approximate",
}
_ASSUMED_THICKNESS_MM: Final = 1.0
_LARGE_MATRIX_PX: Final = 256
_TEXT_SUFFIXES: Final = {".txt", ".csv", ".json", ".xml", ".md", ".html", ".yaml", ".yml", ".log", ".tsv"}


@dataclass(frozen=True)
class SeriesRead:
    """One series found under a path: accepted with its volume, or quarantined with its reason.

    Parameters
    ----------
    reason : str
        A key of `REASONS`; empty if accepted.
    flags : tuple of str
        Keys of `FLAGS`, sorted.
    series_uid : str
        Empty if the files have none.
    n_files : int
        Number of files of the series.
    spacing_zyx_mm : three floats or None
        For slices the median step along the normal, then row and column spacing.
    volume_hu : (z, y, x) int16, LPS, or None if quarantined
    """

    status: str
    reason: str = ""
    flags: tuple[str, ...] = ()
    series_uid: str = ""
    n_files: int = 1
    spacing_zyx_mm: tuple[float, float, float] | None = None
    tilt_degrees: float = 0.0
    transfer_syntaxes: tuple[str, ...] = ()
    volume_hu: Int16Array | None = None

    @property
    def shape_zyx(self) -> tuple[int, int, int] | None:
        """Return slices, rows and columns of the volume; None if quarantined."""
        if self.volume_hu is None:
            return None
        slices, rows, columns = self.volume_hu.shape
        return slices, rows, columns

    @property
    def n_slices(self) -> int:
        """Return the number of slices of the volume, 0 if quarantined."""
        return 0 if self.volume_hu is None else len(self.volume_hu)

    def facts(self) -> dict[str, Any]:
        """Return a plain description without the volume, for display and tools."""
        volume = self.volume_hu
        measured = volume is not None and volume.size > 0
        return {
            "status": self.status,
            "reason": self.reason or None,
            "flags": list(self.flags),
            "series_uid": self.series_uid or None,
            "n_files": self.n_files,
            "n_slices": self.n_slices,
            "shape_zyx": list(self.shape_zyx) if self.shape_zyx else None,
            "spacing_zyx_mm": [round(mm, 5) for mm in self.spacing_zyx_mm] if self.spacing_zyx_mm else None,
            "tilt_degrees": round(self.tilt_degrees, 2),
            "hu_min": int(volume.min()) if measured and volume is not None else None,
            "hu_p01": _first_percentile(volume) if measured and volume is not None else None,
            "hu_max": int(volume.max()) if measured and volume is not None else None,
            "hu_mean": round(int(volume.sum(dtype=np.int64)) / volume.size, 4)
            if measured and volume is not None
            else None,
            "transfer_syntaxes": list(self.transfer_syntaxes),
        }


def _first_percentile(volume_hu: Int16Array) -> float:
    """Return the first percentile in HU, over every fourth row and column of a large matrix; an approximation is sufficient."""
    step = 4 if volume_hu.shape[-1] >= _LARGE_MATRIX_PX else 1
    return float(np.percentile(volume_hu[:, ::step, ::step], 1))


def read_series(path: Path, *, rescale: Rescale | None = None) -> list[SeriesRead]:
    """Read every series under a path, the largest accepted one first.

    Parameters
    ----------
    path : Path
        A folder of DICOM files or NIfTI volumes (searched with its subfolders), or one such file.
    rescale : (slope, intercept), optional
        For NIfTI files whose values were never rescaled; see `nifti.read_volume`.

    Raises
    ------
    ImagingError
        The path does not exist. All other problems are reported as quarantined series.
    """
    if not path.exists():
        raise ImagingError("does not exist.", where=str(path), fix="Give a folder of DICOM files or a NIfTI file.")
    files = [file for file, _ in files_below(path)]
    volumes = [_read_nifti(one, rescale) for one in files if nifti.is_nifti(one)]
    found = volumes + _read_dicom([one for one in files if not nifti.is_nifti(one)], alone=path.is_file())
    if not found:
        found = [SeriesRead(status="quarantined", reason="no_images", n_files=0)]
    return sorted(found, key=lambda series: (series.status != "accepted", -series.n_slices, series.series_uid))


def _read_nifti(path: Path, rescale: Rescale | None) -> SeriesRead:
    try:
        volume, spacing, flags = nifti.read_volume(path, rescale=rescale)
    except Defect as defect:
        return SeriesRead(status="quarantined", reason=defect.reason)
    return SeriesRead(status="accepted", flags=flags, spacing_zyx_mm=spacing, volume_hu=volume)


def _read_dicom(paths: Sequence[Path], *, alone: bool) -> list[SeriesRead]:
    groups: dict[tuple[str, str], list[DicomFile]] = defaultdict(list)
    unreadable: list[str] = []
    for path in paths:
        try:
            file = read_file(path)
        except Defect as defect:
            passed_over = defect.reason == "dicomdir" or path.suffix.lower() in _TEXT_SUFFIXES
            if alone or not passed_over:
                unreadable.append(defect.reason)
            continue
        groups[file.series_uid, "" if file.series_uid else str(path.parent)].append(file)
    found: list[SeriesRead] = []
    for files in groups.values():
        found += _read_group(files, n_unreadable=len(unreadable))
    if unreadable and not any(series.status == "accepted" for series in found):
        found.append(SeriesRead(status="quarantined", reason=unreadable[0], n_files=len(unreadable)))
    return found


def _read_group(files: list[DicomFile], *, n_unreadable: int) -> list[SeriesRead]:
    """Return the series of files that share a UID: the slices, and separately scouts and other objects."""
    uid = files[0].series_uid
    others = [file for file in files if not file.is_ct]
    scouts = [file for file in files if file.is_ct and file.is_localizer]
    slices = [file for file in files if file.is_ct and not file.is_localizer]
    found = []
    if others:
        found.append(SeriesRead(status="quarantined", reason="not_ct_image", series_uid=uid, n_files=len(others)))
    if scouts:
        found.append(SeriesRead(status="quarantined", reason="localizer", series_uid=uid, n_files=len(scouts)))
    if slices:
        flags = {"localizer_removed"} if scouts else set()
        flags |= {"unreadable_files"} if n_unreadable else set()
        try:
            found.append(_assembled(slices, flags))
        except Defect as defect:
            read = SeriesRead(
                status="quarantined",
                reason=defect.reason,
                flags=tuple(sorted(flags)),
                series_uid=uid,
                n_files=len(slices),
                transfer_syntaxes=_syntaxes(slices),
            )
            found.append(read)
    return found


def _assembled(files: list[DicomFile], flags: set[str]) -> SeriesRead:
    """Return the accepted series with its volume; raise a `Defect` if something is wrong with it."""
    frames = [frame for file in files for frame in frames_of(file)]
    first = frames[0]
    normal = geometry.slice_normal(first.orientation)
    _check_consistent(frames)
    if not geometry.is_axial(normal):
        raise Defect("not_axial")
    frames.sort(key=lambda frame: (frame.position @ normal, str(frame.file.path), frame.index))
    kept, volume = _decoded(frames, normal)
    stack = geometry.stacked(np.array([frame.position for frame in kept]), normal)
    directions = np.array([normal, first.orientation[3:], first.orientation[:3]])
    axes, flips = geometry.lps_axes(directions)
    step_mm = stack.step_mm or first.thickness_mm
    spacing = (step_mm or _ASSUMED_THICKNESS_MM, *first.spacing_mm)
    flags |= set() if step_mm else {"assumed_thickness"}
    flags |= {"duplicate_slices"} if len(kept) < len(frames) else set()
    flags |= {"missing_uid"} if any(file.misses_uid for file in files) else set()
    flags |= {"lossy"} if any(file.is_lossy for file in files) else set()
    flags |= {"gantry_tilt"} if stack.tilt_degrees > geometry.TILT_FROM_DEGREES else set()
    flags |= {"reoriented"} if axes != (0, 1, 2) or any(flips) else set()
    return SeriesRead(
        status="accepted",
        flags=tuple(sorted(flags)),
        series_uid=files[0].series_uid,
        n_files=len(files),
        spacing_zyx_mm=(spacing[axes[0]], spacing[axes[1]], spacing[axes[2]]),
        tilt_degrees=stack.tilt_degrees,
        transfer_syntaxes=_syntaxes(files),
        volume_hu=np.ascontiguousarray(geometry.reoriented(volume, axes, flips)),
    )


def _check_consistent(frames: Sequence[Frame]) -> None:
    geometries = np.array([(*frame.spacing_mm, *frame.orientation) for frame in frames])
    if (
        len({frame.shape for frame in frames}) > 1
        or np.abs(geometries - geometries[0]).max() > geometry.ORIENTATION_TOLERANCE
    ):
        raise Defect("inconsistent_geometry")


def _decoded(frames: Sequence[Frame], normal: npt.NDArray[np.float64]) -> tuple[list[Frame], Int16Array]:
    """Return frames in order without equal copies, and their HU, (slices, rows, columns)."""
    volume = np.empty((0,), dtype=np.int16)
    kept: list[Frame] = []
    for frame in frames:
        hu = frame.hu()
        frame.let_go()
        if not kept:  # allocated after the first frame is decoded: a damaged header may declare any size
            volume = np.empty((len(frames), *frame.shape), dtype=np.int16)
        elif abs((frame.position - kept[-1].position) @ normal) < geometry.SAME_POSITION_MM:
            if not np.array_equal(hu, volume[len(kept) - 1]):
                raise Defect("duplicate_positions")
            continue
        volume[len(kept)] = hu
        kept.append(frame)
    return kept, volume[: len(kept)]


def _syntaxes(files: Sequence[DicomFile]) -> tuple[str, ...]:
    return tuple(sorted({file.transfer_syntax for file in files}))

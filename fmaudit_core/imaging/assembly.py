"""DICOM files that share a series UID, assembled to volumes, or refused with a reason. `series.py` finds and groups files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.imaging import geometry, volumes
from fmaudit_core.imaging.acquisition import acquisition_of
from fmaudit_core.imaging.dicom import DicomFile
from fmaudit_core.imaging.errors import Defect
from fmaudit_core.imaging.frames import Frame, frames_of
from fmaudit_core.imaging.header import NO_HEADER, SeriesHeader
from fmaudit_core.imaging.hounsfield import check_values
from fmaudit_core.imaging.series_read import SeriesRead

Int16Array = npt.NDArray[np.int16]

_ASSUMED_THICKNESS_MM: Final = 1.0


def read_group(files: list[DicomFile], *, n_unreadable: int) -> Iterator[SeriesRead]:
    """Yield the series of files that share a UID: the volumes, and separately scouts, intruders and other objects."""
    scouts = [file for file in files if file.is_ct and file.is_localizer]
    slices = [file for file in files if file.is_ct and not file.is_localizer]
    strangers = {file.path: reason for file in slices if (reason := _not_a_slice(file))}
    if 2 * len(strangers) >= len(slices):  # then they are the series
        strangers = {}
    yield from _refused([file for file in files if not file.is_ct], "not_ct_image")
    yield from _refused(scouts, "localizer")
    for reason in sorted(set(strangers.values())):
        yield from _refused([file for file in slices if strangers.get(file.path) == reason], reason)
    slices = [file for file in slices if file.path not in strangers]
    if slices:
        flags = {"localizer_removed"} if scouts else set()
        flags |= {"intruder_removed"} if strangers else set()
        flags |= {"unreadable_files"} if n_unreadable else set()
        yield from _volumes(slices, flags)


def _not_a_slice(file: DicomFile) -> str:
    """Return the reason why a file is an intruder; a damaged slice is none: without it the series is not whole."""
    try:
        return file.not_a_slice()
    except Defect:
        return ""


def _refused(
    files: Sequence[DicomFile], reason: str, *, detail: str = "", flags: set[str] | None = None
) -> list[SeriesRead]:
    if not files:
        return []
    return [
        SeriesRead(
            status="quarantined",
            reason=reason,
            detail=detail,
            flags=tuple(sorted(flags or ())),
            series_uid=files[0].series_uid,
            n_files=len(files),
            transfer_syntaxes=_syntaxes(files) if flags is not None else (),
            header=_header(files[0]),
            acquisition=acquisition_of([(file.dataset, 0) for file in files if file.is_ct]),
        )
    ]


def _header(file: DicomFile) -> SeriesHeader:
    """Return the description of a series; a damaged header describes nothing."""
    try:
        return file.header
    except Exception:  # values are converted on access, each with its own errors
        return NO_HEADER


def _volumes(files: list[DicomFile], flags: set[str]) -> Iterator[SeriesRead]:
    """Yield the volumes of a series, each accepted or refused."""
    try:
        volumes.check_identity(files)
        frames = [frame for file in files for frame in frames_of(file)]
        normal = geometry.slice_normal(frames[0].orientation)
        _check_consistent(frames)
        if not geometry.is_axial(normal):
            raise Defect("not_axial")
        parts = volumes.separated(frames, normal)
    except Defect as defect:
        yield from _refused(files, defect.reason, detail=defect.detail, flags=flags)
        return
    for part in parts:
        own = list({frame.file.path: frame.file for frame in part}.values())
        marks = flags | ({"split_series"} if len(parts) > 1 else set())
        try:
            yield _assembled(own, part, normal, marks)
        except Defect as defect:
            yield from _refused(own, defect.reason, detail=defect.detail, flags=marks)


def _assembled(
    files: list[DicomFile], frames: list[Frame], normal: geometry.Float64Array, flags: set[str]
) -> SeriesRead:
    """Return the accepted series with its volume; raise a `Defect` if something is wrong with it."""
    first = frames[0]
    frames.sort(key=lambda frame: (frame.position @ normal, str(frame.file.path), frame.index))
    kept, volume = _decoded(frames, normal)
    stack = geometry.stacked(np.array([frame.position for frame in kept]), normal, min(first.spacing_mm))
    step_mm = stack.step_mm or first.thickness_mm
    spacing = (step_mm or _ASSUMED_THICKNESS_MM, *first.spacing_mm)
    geometry.check_plausible(spacing)
    _check_values(volume, frames)
    axes, flips = geometry.lps_axes(np.array([normal, first.orientation[3:], first.orientation[:3]]))
    present = {
        "assumed_thickness": not step_mm,
        "assumed_monochrome": any(file.assumes_monochrome for file in files),
        "duplicate_slices": len(kept) < len(frames),
        "gantry_tilt": stack.tilt_degrees > geometry.TILT_FROM_DEGREES,
        "lossy": any(file.is_lossy for file in files),
        "missing_uid": any(file.misses_uid for file in files),
        "mixed_acquisition": volumes.is_mixed(frames),
        "reoriented": axes != (0, 1, 2) or any(flips),
        "unspecified_rescale_type": any(frame.unspecified for frame in frames),
    }
    lps = np.ascontiguousarray(geometry.reoriented(volume, axes, flips))
    spacing_zyx_mm = (spacing[axes[0]], spacing[axes[1]], spacing[axes[2]])
    return SeriesRead(
        status="accepted",
        flags=tuple(sorted(flags | {flag for flag, holds in present.items() if holds})),
        series_uid=files[0].series_uid,
        n_files=len(files),
        spacing_zyx_mm=spacing_zyx_mm,
        tilt_degrees=stack.tilt_degrees,
        transfer_syntaxes=_syntaxes(files),
        volume_hu=lps,
        header=_header(first.file),
        acquisition=acquisition_of([(frame.file.dataset, frame.index) for frame in kept]).measured(
            lps.shape, spacing_zyx_mm
        ),
    )


def _check_values(volume: Int16Array, frames: Sequence[Frame]) -> None:
    """Check that values can be HU; where RescaleType does not say so, they must be like those of a file without a header."""
    unspecified = any(frame.unspecified for frame in frames)
    try:
        check_values(volume, modality_known=not unspecified, padded=any(frame.file.is_padded for frame in frames))
    except Defect as defect:
        raise Defect("unspecified_values") if unspecified else defect from None


def _check_consistent(frames: Sequence[Frame]) -> None:
    geometries = np.array([(*frame.spacing_mm, *frame.orientation) for frame in frames])
    if (
        len({frame.shape for frame in frames}) > 1
        or np.abs(geometries - geometries[0]).max() > geometry.ORIENTATION_TOLERANCE
    ):
        raise Defect("inconsistent_geometry")


def _decoded(frames: Sequence[Frame], normal: geometry.Float64Array) -> tuple[list[Frame], Int16Array]:
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

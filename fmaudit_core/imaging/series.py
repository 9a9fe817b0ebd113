"""CT series found under a path, read as HU volumes with their true geometry, or refused with a named reason.

Reading of a series
-------------------
- CT is recognised by SOP Class UID (else Media Storage SOP Class UID, else Modality). Files are grouped by Series Instance UID;
  files of one folder without a UID form one series.
- Localizers, and a minority of screenshots, colour or derived images and objects without a position, leave their series before
  its geometry is checked. DICOMDIR, hidden and text files are ignored; other files that cannot be read are counted
  (`unreadable_files`) and refuse nothing while the remaining slices are regular.
- Several volumes under one UID that overlap along z are separated if the header tells them apart, else refused; files of several
  patients or studies are refused.
- Slices are ordered by ImagePositionPatient along the slice normal, never by file name or InstanceNumber, and lie on one line.
- HU = slope x stored + intercept per slice, in float64, rounded half to even. MONOCHROME1 never inverts HU. Declared padding is
  set to -1024 HU; nothing is clamped. Values that cannot be HU are refused (`hounsfield.py`).
- Volumes are (z, y, x) with x to the Left, y to Posterior, z to Superior, reached only by permuting and reversing axes. A tilted
  gantry keeps its sheared grid and is flagged.
- Slices at one position: if their pixels are equal, one is kept (`duplicate_slices`); if they differ, the series is refused
  (`duplicate_positions`).

`REASONS` lists the reasons for refusing a series, `FLAGS` the repairs and remarks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from fmaudit_core.imaging import nifti
from fmaudit_core.imaging.acquisition import NO_FACTS
from fmaudit_core.imaging.assembly import read_group
from fmaudit_core.imaging.choice import judged
from fmaudit_core.imaging.dicom import DicomFile, read_file
from fmaudit_core.imaging.errors import Defect, ImagingError
from fmaudit_core.imaging.reasons import FLAGS, REASONS
from fmaudit_core.imaging.rescale import Rescale
from fmaudit_core.imaging.rules import NO_RULES, SeriesRules
from fmaudit_core.imaging.series_read import SeriesRead
from fmaudit_core.storage.digests import files_below

#: what callers of the reader need
__all__ = ["FLAGS", "REASONS", "SeriesRead", "found_series", "read_series"]

_TEXT_SUFFIXES: Final = {".txt", ".csv", ".json", ".xml", ".md", ".html", ".yaml", ".yml", ".log", ".tsv"}


def read_series(
    path: Path | Sequence[Path], *, rescale: Rescale | None = None, rules: SeriesRules = NO_RULES, named: str = ""
) -> list[SeriesRead]:
    """Read every series under a path, the chosen one first.

    Parameters
    ----------
    path : Path or sequence of Path
        A folder of DICOM files or NIfTI volumes (searched with its subfolders), one such file, or the files of one study.
    rescale : (slope, intercept), optional
        For NIfTI files whose values were never rescaled; see `nifti.read_volume`.
    rules : SeriesRules, optional
        A series that violates a rule is quarantined with its name.
    named : str, optional
        UID of the series to choose.

    Raises
    ------
    ImagingError
        The path does not exist. All other problems are reported as quarantined series.
    """
    found = list(found_series(path, rescale=rescale))
    rows = judged([{**series.quality(), "at": at} for at, series in enumerate(found)], rules, named=named)
    return [_as_judged(found, row) for row in rows]


def _as_judged(found: Sequence[SeriesRead], row: dict[str, Any]) -> SeriesRead:
    if "at" not in row:  # the named series, which was not found
        return SeriesRead(status=row["status"], reason=row["reason"], series_uid=row["series_uid"], n_files=0)
    series: SeriesRead = found[row["at"]]
    volume = series.volume_hu if row["status"] == "accepted" else None
    verdict = {name: row[name] for name in ("status", "reason", "used", "choice")}
    return replace(series, volume_hu=volume, **verdict)


def found_series(path: Path | Sequence[Path], *, rescale: Rescale | None = None) -> Iterator[SeriesRead]:
    """Yield every series under a path, or of some files, in the order of the files: one volume at a time needs memory.

    Raises
    ------
    ImagingError
        The path does not exist.
    """
    alone, files = _files_of(path)
    volumes = [file for file in files if nifti.is_nifti(file)]
    for file in volumes:
        if alone or not nifti.is_second_of_pair(file):
            yield _read_nifti(file, rescale)
    others = [file for file in files if not nifti.is_nifti(file)]
    n_found = len(volumes)
    for series in _read_dicom(others, alone=alone):
        n_found += 1
        yield series
    if not n_found:
        yield SeriesRead(status="quarantined", reason="no_images", n_files=0)


def _files_of(path: Path | Sequence[Path]) -> tuple[bool, Sequence[Path]]:
    """Return whether the path is one file, and the files under it."""
    if not isinstance(path, Path):
        return False, path
    if not path.exists():
        raise ImagingError("does not exist.", where=str(path), fix="Give a folder of DICOM files or a NIfTI file.")
    return path.is_file(), [file for file, _ in files_below(path)]


def _read_nifti(path: Path, rescale: Rescale | None) -> SeriesRead:
    try:
        read = nifti.read_volume(path, rescale=rescale)
    except Defect as defect:
        return SeriesRead(status="quarantined", reason=defect.reason)
    return SeriesRead(
        status="accepted",
        flags=tuple(read.flags),
        spacing_zyx_mm=read.spacing_zyx_mm,
        volume_hu=read.volume_hu,
        acquisition=NO_FACTS.measured(read.volume_hu.shape, read.spacing_zyx_mm),
    )


def _read_dicom(paths: Sequence[Path], *, alone: bool) -> Iterator[SeriesRead]:
    groups: dict[tuple[str, str], list[DicomFile]] = defaultdict(list)
    unreadable: list[str] = []
    for path in paths:
        try:
            file = read_file(path)
        except Defect as defect:
            passed_over = defect.reason == "dicomdir" or path.suffix.lower() in _TEXT_SUFFIXES
            if alone or not passed_over:
                is_half = defect.reason == "not_dicom" and nifti.is_voxels(path)
                unreadable.append("half_of_a_pair" if is_half else defect.reason)
            continue
        groups[file.series_uid, "" if file.series_uid else str(path.parent)].append(file)
    any_accepted = False
    for key in list(groups):
        for series in read_group(groups.pop(key), n_unreadable=len(unreadable)):
            any_accepted |= series.status == "accepted"
            yield series
    if unreadable and not any_accepted:
        yield SeriesRead(status="quarantined", reason=unreadable[0], n_files=len(unreadable))

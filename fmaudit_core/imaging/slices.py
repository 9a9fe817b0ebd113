"""The slice store: each study's slices are written once per view and read by every encoder.

An entry is one file: a header that identifies its inputs, then zstandard frames with checksums. It appears by rename, so a kill
leaves only complete entries, and the next build creates the missing ones. An entry found to be damaged when it is read is
recreated immediately. The store also holds one quality record per study, so that the quality table never needs the CT again.
Series are read in `series.py`; views are applied in `window.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import zstandard

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.common.worker_pool import performed
from fmaudit_core.imaging.errors import SliceStoreError
from fmaudit_core.imaging.rescale import Rescale
from fmaudit_core.imaging.rules import NO_RULES, SeriesRules
from fmaudit_core.imaging.series import SeriesRead, read_series
from fmaudit_core.imaging.window import SliceArray, View
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.digests import files_below
from fmaudit_core.tables.cohort import SLICE_QUALITY

#: increased when the reader produces different slices from the same files
READER_REVISION: Final = 3


_MAGIC: Final = b"FMSLICE1"
_CHUNK_SLICES: Final = 32
_LEVEL: Final = 1
_STUDIES_PER_JOB: Final = 2
_STUDIES_BEFORE_ESTIMATE: Final = 8


@dataclass(frozen=True)
class _Job:
    """The work on one study: its inputs and the files to write."""

    study_id: str
    image: Path
    made_of: str
    entries: tuple[tuple[View, Path], ...]
    record: Path
    rescale: Rescale | None


@dataclass(frozen=True)
class SliceStore:
    """A store of the slices of all studies, by study and view.

    Parameters
    ----------
    root : Path
        Folder of the store; created at the first build.
    images : mapping of study_id to path, optional
        Path of a study's CT: missing or damaged entries are recreated from it.
    rescales : mapping of study_id to (slope, intercept), optional
        HU per stored unit and HU, if known from the cohort's tables; used only for NIfTI files whose values were never rescaled.
    """

    root: Path
    images: Mapping[str, Path] = field(default_factory=dict)
    rescales: Mapping[str, Rescale] = field(default_factory=dict)

    def build(
        self,
        images: Sequence[tuple[str, Path]],
        views: Sequence[View],
        *,
        workers: int = 0,
        rules: SeriesRules = NO_RULES,
        progress: Progress = silent,
    ) -> pl.DataFrame:
        """Create the entries that are missing or outdated, and return the quality of every series.

        Parameters
        ----------
        images : sequence of (study_id, path of its folder or file)
        views : sequence of View
            Views to store of each study; entries of other views stay unchanged.
        workers : int
            Number of processes that read series; 0 uses one per core.
        rules : SeriesRules
            A series that violates a rule is quarantined with its name.

        Returns
        -------
        One row per series in the order of `images`, columns of `SLICE_QUALITY`. `used` marks the one series of a study
        whose slices are in the store.

        Raises
        ------
        SliceStoreError
            The disk cannot hold the slices.
        WorkerDiedError
            A reading process died; finished studies are kept.
        """
        unique = {view.key(): view for view in views}
        jobs, missing, input_bytes = [], [], {}
        for study_id, image in images:
            job, input_bytes[study_id] = self._job(study_id, image, list(unique.values()))
            jobs.append(job)
            if not _is_done(job):
                missing.append(job)
        done = len(jobs) - len(missing)
        progress(done, len(jobs))
        read_bytes = 0
        for count, job in enumerate(performed(_make, missing, workers=workers, chunk=_STUDIES_PER_JOB), start=1):
            progress(done + count, len(jobs))
            read_bytes += input_bytes[job.study_id]
            if count == _STUDIES_BEFORE_ESTIMATE:
                left = sum(input_bytes[one.study_id] for one in missing) - read_bytes
                _check_disk(self.root, _written_bytes(missing[:count]) * left / max(read_bytes, 1))
        rows = [row for job in jobs for row in _rows_of(job, rules)]
        return SLICE_QUALITY.frame(rows)

    def has(self, study_id: str, view: View) -> bool:
        """Return whether the study's slices are stored in this view."""
        return self._entry(study_id, view).exists()

    def read(self, study_id: str, view: View) -> SliceArray:
        """Return the slices of one study.

        Returns
        -------
        (slices, channels, rows, columns) uint8 grey or int16 HU, from the feet upwards

        Raises
        ------
        SliceStoreError
            The entry is missing or damaged and cannot be recreated.
        """
        path = self._entry(study_id, view)
        try:
            return _read_entry(path)
        except SliceStoreError:
            if study_id not in self.images:
                raise
        path.unlink(missing_ok=True)
        job, _ = self._job(study_id, self.images[study_id], [view])
        if _read_record(job.record).get("made_of") != job.made_of:
            raise SliceStoreError("its CT has changed since the slices were written.", where=str(path), fix=_REBUILD)
        _make(job)
        return _read_entry(path)

    def _job(self, study_id: str, image: Path, views: Sequence[View]) -> tuple[_Job, int]:
        """Return the work on a study, and the size of its CT on disk in bytes."""
        rescale = self.rescales.get(study_id)
        made_of, n_bytes = _fingerprint(image, rescale)
        entries = tuple((view, self._entry(study_id, view)) for view in views)
        return _Job(study_id, image, made_of, entries, self._record(study_id), rescale), n_bytes

    def _entry(self, study_id: str, view: View) -> Path:
        name = _file_name(study_id)
        return self.root / view.key() / name[:2] / f"{name}.slices"

    def _record(self, study_id: str) -> Path:
        name = _file_name(study_id)
        return self.root / "quality" / name[:2] / f"{name}.json"


_REBUILD: Final = "Run `fmaudit run` to write it again."
#: errors raised by bytes that are not an entry: a header's text and numbers may be anything
_TORN: Final = (ValueError, KeyError, TypeError, OverflowError, MemoryError, struct.error, zstandard.ZstdError)


def _file_name(study_id: str) -> str:
    """Return a file name without identifiers that is valid on any file system."""
    return hashlib.sha256(study_id.encode()).hexdigest()[:32]


def _fingerprint(image: Path, rescale: Rescale | None) -> tuple[str, int]:
    """Return the digest of an image path's files (name, size, modification time), rescale and reader; and the files' bytes."""
    seen, n_bytes = hashlib.sha256(f"{READER_REVISION}{rescale or ''}".encode()), 0
    for path, status in files_below(image):
        n_bytes += status.st_size
        seen.update(f"{path.relative_to(image)}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return seen.hexdigest()[:32], n_bytes


def _is_done(job: _Job) -> bool:
    """Return whether the study was read from these files and every view of it is complete."""
    record = _read_record(job.record)
    if record.get("made_of") != job.made_of:
        return False
    accepted = any(row["status"] == "accepted" for row in record["rows"])
    return not accepted or all(_is_whole(path, job.made_of) for _, path in job.entries)


def _is_whole(path: Path, made_of: str) -> bool:
    """Return whether header and size are correct; checksums are verified when the slices are read."""
    try:
        with path.open("rb") as file:
            header = _read_header(file.read(12), file)
            return bool(header["made_of"] == made_of and path.stat().st_size == file.tell() + sum(header["chunks"]))
    except (OSError, *_TORN):
        return False


def _make(job: _Job) -> None:
    """Read one study once, write all its missing views, then its quality record."""
    gone = [SeriesRead(status="quarantined", reason="no_images", n_files=0)]
    found = read_series(job.image, rescale=job.rescale) if job.image.exists() else gone
    volume = found[0].volume_hu
    if volume is not None:
        for view, path in job.entries:
            if not _is_whole(path, job.made_of):
                _write_entry(path, view.apply(volume, found[0].spacing_zyx_mm), job.made_of)
    record = {"made_of": job.made_of, "rows": [_row(series) for series in found]}
    _write_whole(job.record, json.dumps(record).encode())


def _row(series: SeriesRead) -> dict[str, Any]:
    facts = series.facts()
    shape, spacing = facts["shape_zyx"] or (None, None, None), facts["spacing_zyx_mm"] or (None, None, None)
    return {
        "series_uid": series.series_uid,
        "status": series.status,
        "reason": series.reason,
        "flags": ",".join(series.flags),
        "spacing_mm": spacing[0],
        "in_plane_mm": spacing[1],
        "rows": shape[1],
        "columns": shape[2],
        "transfer_syntaxes": ",".join(series.transfer_syntaxes),
    } | {name: facts[name] for name in ("n_slices", "tilt_degrees", "hu_min", "hu_p01", "hu_max", "hu_mean", "n_files")}


def _rows_of(job: _Job, rules: SeriesRules) -> list[dict[str, Any]]:
    """Return the quality of a study's series, largest accepted one first; that series is used unless it violates a rule."""
    rows = []
    for index, row in enumerate(_read_record(job.record)["rows"]):
        accepted = row["status"] == "accepted"
        broken = rules.broken_by(row) if accepted else None
        judged = {"status": "quarantined", "reason": broken} if broken else {}
        rows.append({"study_id": job.study_id, "used": accepted and not broken and index == 0, **row, **judged})
    return rows


def _read_record(path: Path) -> Mapping[str, Any]:
    try:
        record: Mapping[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record


def _read_entry(path: Path) -> SliceArray:
    try:
        with path.open("rb") as file:
            header = _read_header(file.read(12), file)
            out: SliceArray = np.empty(header["shape"], dtype=np.dtype(header["dtype"]))
            flat, at = out.reshape(-1).view(np.uint8), 0
            unpack = zstandard.ZstdDecompressor()
            for size in header["chunks"]:
                chunk = unpack.decompress(file.read(size))
                flat[at : at + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
                at += len(chunk)
            if at != flat.size:
                raise ValueError("not all slices are there")
    except FileNotFoundError as error:
        raise SliceStoreError("does not exist yet.", where=str(path), fix=_REBUILD) from error
    except (OSError, *_TORN) as error:
        raise SliceStoreError("is truncated or corrupt.", where=str(path), fix=f"Delete it. {_REBUILD}") from error
    return out


def _write_entry(path: Path, slices: SliceArray, made_of: str) -> None:
    pack = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    chunks = [
        pack.compress(np.ascontiguousarray(slices[at : at + _CHUNK_SLICES]).data)
        for at in range(0, len(slices), _CHUNK_SLICES)
    ]
    header = {
        "made_of": made_of,
        "shape": slices.shape,
        "dtype": slices.dtype.str,
        "chunks": [len(chunk) for chunk in chunks],
    }
    text = json.dumps(header).encode()
    _write_whole(path, _MAGIC + struct.pack("<I", len(text)) + text + b"".join(chunks))


def _read_header(start: bytes, file: Any) -> dict[str, Any]:
    if start[:8] != _MAGIC:
        raise ValueError("not an entry of the slice store")
    (length,) = struct.unpack("<I", start[8:12])
    header: dict[str, Any] = json.loads(file.read(length))
    return header


def _write_whole(path: Path, data: bytes) -> None:
    """Write one entry or record; a damaged one is detected by its size or checksum and recreated."""
    with written_beside(path, durable=False) as temporary:
        temporary.write_bytes(data)


def _written_bytes(jobs: Iterable[_Job]) -> int:
    return sum(path.stat().st_size for job in jobs for _, path in job.entries if path.exists())


def _check_disk(root: Path, needed: float) -> None:
    """Raise if the slices still to be written do not fit on the disk."""
    free = shutil.disk_usage(root).free
    if needed > free:
        raise SliceStoreError(
            f"the slices still to be written need about {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free.",
            where=str(root),
            fix="Free some space, set FMAUDIT_HOME to a larger disk, or give the encoders a smaller view (size_px).",
        )

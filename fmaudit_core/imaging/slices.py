"""The slice store: each study's slices are written once per view and read by every encoder.

An entry is one file (`slice_entry.py`); the next build after a kill creates the missing ones. An entry found to be damaged when
it is read is recreated immediately. The store also holds one quality record per study, so that the quality table never needs the
CT again, unless other rules choose another series of a study. Series are read in `series.py`; views are applied in `window.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.common.worker_pool import Perform, performed
from fmaudit_core.imaging.acquisition import acquisition_table
from fmaudit_core.imaging.archive.index import IndexedStudy
from fmaudit_core.imaging.bucket_images import BucketStudy
from fmaudit_core.imaging.burnt_in import is_free_of_text
from fmaudit_core.imaging.choice import judged, stored_at
from fmaudit_core.imaging.errors import ImagesGoneError, SliceStoreError
from fmaudit_core.imaging.rescale import Rescale
from fmaudit_core.imaging.rules import NO_RULES, SeriesRules
from fmaudit_core.imaging.series import found_series
from fmaudit_core.imaging.series_read import SeriesRead
from fmaudit_core.imaging.slice_entry import REBUILD, is_whole, read_entry, write_entry, write_whole
from fmaudit_core.imaging.volume import Spacing
from fmaudit_core.imaging.window import Int16Array, SliceArray, View
from fmaudit_core.storage.digests import files_below
from fmaudit_core.tables.cohort import SLICE_QUALITY

#: increased when the reader produces different slices or facts from the same files
READER_REVISION: Final = 5
_STUDIES_PER_JOB: Final = 2
_STUDIES_BEFORE_ESTIMATE: Final = 8

#: the CT of a study: its folder or file, its files by the index of an archive, or its objects in a bucket
StudyImages = Path | IndexedStudy | BucketStudy


@dataclass(frozen=True)
class _Job:
    """The work on one study: its inputs and the files to write."""

    study_id: str
    images: StudyImages
    made_of: str
    entries: tuple[tuple[View, Path], ...]
    record: Path
    rescale: Rescale | None
    rules: SeriesRules
    named: str
    images_root: Path | None

    def entry_of(self, at: int) -> str:
        """Return the inputs of the entries of the series at a place in the record."""
        return f"{self.made_of}-{at}"


@dataclass(frozen=True)
class Described:
    """Tables of a slice store: `SLICE_QUALITY`, a row per series, and `ACQUISITION`, a row per study."""

    quality: pl.DataFrame
    acquisition: pl.DataFrame


@dataclass(frozen=True)
class SliceStore:
    """A store of the slices of all studies, by study and view.

    Parameters
    ----------
    root : Path
        Folder of the store; created at the first build.
    images : mapping of study_id to path or IndexedStudy, optional
        A study's CT: missing or damaged entries are recreated from it.
    rescales : mapping of study_id to (slope, intercept), optional
        HU per stored unit and HU, if known from the cohort's tables; used only for NIfTI files whose values were never rescaled.
    named : mapping of study_id to series UID, optional
        The series to use, if the cohort's table names one.
    images_root : Path, optional
        Folder of all images. If it is missing or empty, a study without images is not at fault.
    keep : bool
        Whether slices are stored; otherwise `write` records the quality only, and `read` takes slices from the CT.
    """

    root: Path
    images: Mapping[str, StudyImages] = field(default_factory=dict)
    rescales: Mapping[str, Rescale] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    images_root: Path | None = None
    keep: bool = True

    def of(self, study_ids: Sequence[str]) -> SliceStore:
        """Return the store with the images of some studies only, to be sent to another process."""
        kept = {study: self.images[study] for study in study_ids if study in self.images}
        rescales = {study: self.rescales[study] for study in study_ids if study in self.rescales}
        named = {study: self.named[study] for study in study_ids if study in self.named}
        return replace(self, images=kept, rescales=rescales, named=named)

    def build(
        self,
        images: Sequence[tuple[str, StudyImages]],
        views: Sequence[View],
        *,
        workers: int = 0,
        rules: SeriesRules = NO_RULES,
        progress: Progress = silent,
    ) -> pl.DataFrame:
        """Create the entries that are missing or outdated, and return the quality of every series; see `write`.

        Returns
        -------
        One row per series in the order of `images`, columns of `SLICE_QUALITY`. `used` marks the one series of a study
        whose slices are in the store.
        """
        self.write(images, views, workers=workers, rules=rules, progress=progress)
        return self.described([study_id for study_id, _ in images], rules=rules).quality

    def write(
        self,
        images: Sequence[tuple[str, StudyImages]],
        views: Sequence[View],
        *,
        workers: int = 0,
        perform: Perform | None = None,
        rules: SeriesRules = NO_RULES,
        progress: Progress = silent,
    ) -> None:
        """Create the entries that are missing or outdated.

        Parameters
        ----------
        images : sequence of (study_id, path of its folder or file, or IndexedStudy)
        views : sequence of View
            Views to store of each study; entries of other views stay unchanged.
        workers : int
            Number of processes of this machine that read series; 0 uses one per core.
        perform : Perform, optional
            Performs the reading instead, on other machines.
        rules : SeriesRules
            A series that violates a rule is quarantined with its name.

        Raises
        ------
        SliceStoreError
            The disk cannot hold the slices.
        ImagesGoneError
            The folder of the images is missing or empty.
        WorkerDiedError
            A reading process died; finished studies are kept.
        """
        unique = {view.key(): view for view in views if self.keep}
        jobs, missing, input_bytes = [], [], {}
        for study_id, ct in images:
            job, input_bytes[study_id] = self._job(study_id, ct, list(unique.values()), rules)
            jobs.append(job)
            if not _is_done(job):
                missing.append(job)
        done = len(jobs) - len(missing)
        progress(done, len(jobs))
        read_bytes, perform = 0, perform or partial(performed, workers=workers)
        for count, job in enumerate(perform(_make, missing, chunk=_STUDIES_PER_JOB), start=1):
            progress(done + count, len(jobs))
            read_bytes += input_bytes[job.study_id]
            if count == _STUDIES_BEFORE_ESTIMATE:
                left = sum(input_bytes[one.study_id] for one in missing) - read_bytes
                _check_disk(self.root, _written_bytes(missing[:count]) * left / max(read_bytes, 1))

    def described(self, studies: Sequence[str], *, rules: SeriesRules = NO_RULES) -> Described:
        """Return the series of studies and how they were acquired, as recorded when `write` read them."""
        series = {study: self._rows_of(study, rules) for study in studies}
        rows = [{"study_id": study, **row} for study, found in series.items() for row in found]
        return Described(SLICE_QUALITY.frame(rows), acquisition_table(series))

    def acquisition(self, studies: Sequence[str], *, rules: SeriesRules = NO_RULES) -> pl.DataFrame:
        """Return how the series of each study was acquired: a frame of `ACQUISITION`."""
        return self.described(studies, rules=rules).acquisition

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
        ImagesGoneError
            The folder of the images, or of the store, is missing or empty.
        """
        return self.read_views(study_id, [view])[0]

    def read_views(self, study_id: str, views: Sequence[View]) -> list[SliceArray]:
        """Return the slices of one study in several views; its CT is read at most once, if one of them is not stored.

        Raises
        ------
        SliceStoreError, ImagesGoneError
            See `read`.
        """
        paths = [self._entry(study_id, view) for view in views]
        try:
            return [read_entry(path) for path in paths]
        except SliceStoreError:
            if study_id not in self.images:
                raise
        volume_hu, spacing_zyx_mm, made_of = self._volume(study_id, where=paths[0])
        slices = [view.apply(volume_hu, spacing_zyx_mm) for view in views]
        if self.keep:
            for path, one in zip(paths, slices, strict=True):
                write_entry(path, one, made_of)
        return slices

    def volume(self, study_id: str) -> tuple[Int16Array, Spacing]:
        """Return the volume of the series whose slices are stored, (slices, rows, columns) int16 HU, and its spacing in mm.

        Raises
        ------
        SliceStoreError, ImagesGoneError
            See `read`.
        """
        volume_hu, spacing_zyx_mm, _ = self._volume(study_id, where=self._record(study_id))
        return volume_hu, spacing_zyx_mm

    def is_free_of_text(self, study_id: str) -> bool:
        """Return whether no image of the series whose slices are stored can hold burnt-in text; see `burnt_in.py`."""
        record = _read_record(self._record(study_id))
        if study_id not in self.images or record.get("stored") is None:
            return False
        series_uid = record["rows"][record["stored"]]["series_uid"]
        with _opened_files(self.images[study_id]) as files:
            return is_free_of_text(files, series_uid)

    def _volume(self, study_id: str, where: Path) -> tuple[Int16Array, Spacing, str]:
        """Return the volume of the stored series, its spacing, and the inputs of its entries."""
        job, _ = self._job(study_id, self.images[study_id], [], NO_RULES)
        record = _read_record(job.record)
        if record.get("made_of") != job.made_of:
            _check_folders(self.root, self.images_root)
            raise SliceStoreError("its CT has changed since the slices were written.", where=str(where), fix=REBUILD)
        series = next((one for at, one in enumerate(_found(job)) if at == record["stored"]), None)
        if series is None or series.volume_hu is None or series.spacing_zyx_mm is None:
            _check_folders(self.root, self.images_root)
            raise SliceStoreError("its CT cannot be read any more.", where=str(where), fix=REBUILD)
        return series.volume_hu, series.spacing_zyx_mm, job.entry_of(record["stored"])

    def _job(self, study_id: str, ct: StudyImages, views: Sequence[View], rules: SeriesRules) -> tuple[_Job, int]:
        """Return the work on a study, and the size of its CT on disk in bytes."""
        rescale = self.rescales.get(study_id)
        made_of, n_bytes = _fingerprint(ct, rescale)
        entries = tuple((view, self._entry(study_id, view)) for view in views)
        named = self.named.get(study_id, "")
        record, root = self._record(study_id), self.images_root
        return _Job(study_id, ct, made_of, entries, record, rescale, rules, named, root), n_bytes

    def _entry(self, study_id: str, view: View) -> Path:
        name = _file_name(study_id)
        return self.root / view.key() / name[:2] / f"{name}.slices"

    def _rows_of(self, study_id: str, rules: SeriesRules) -> list[dict[str, Any]]:
        """Return the quality of a study's series, the one used first."""
        return judged(_read_record(self._record(study_id))["rows"], rules, named=self.named.get(study_id, ""))

    def _record(self, study_id: str) -> Path:
        name = _file_name(study_id)
        return self.root / "quality" / name[:2] / f"{name}.json"


def _file_name(study_id: str) -> str:
    """Return a file name without identifiers that is valid on any file system."""
    return hashlib.sha256(study_id.encode()).hexdigest()[:32]


def _fingerprint(ct: StudyImages, rescale: Rescale | None) -> tuple[str, int]:
    """Return the digest of a study's files (name, size, modification time), rescale and reader; and the files' bytes."""
    seen, n_bytes = hashlib.sha256(f"{READER_REVISION}{rescale or ''}".encode()), 0
    if not isinstance(ct, Path):
        seen.update(ct.digest.encode())
        return seen.hexdigest()[:32], ct.n_bytes
    for path, status in files_below(ct):
        n_bytes += status.st_size
        seen.update(os.fsencode(path.relative_to(ct)) + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return seen.hexdigest()[:32], n_bytes


def _is_done(job: _Job) -> bool:
    """Return whether the study was read from these files and every view of the series to use is complete."""
    record = _read_record(job.record)
    if record.get("made_of") != job.made_of:
        return False
    at = stored_at(record["rows"], job.rules, named=job.named)
    return at is None or all(is_whole(path, job.entry_of(at)) for _, path in job.entries)


def _make(job: _Job) -> None:
    """Read one study once, write all missing views of the series to use, then its quality record."""
    rows: list[dict[str, Any]] = []
    best: SeriesRead | None = None
    for at, series in enumerate(_found(job)):
        rows.append(series.quality() | {"acquisition": asdict(series.acquisition)})
        if stored_at(rows, job.rules, named=job.named) == at:  # whatever follows, no earlier one is chosen any more
            best = series
    stored = stored_at(rows, job.rules, named=job.named)
    if stored is None:
        _check_folders(job.images_root)
    elif best is not None:
        _write_views(job, best, stored)
    write_whole(job.record, json.dumps({"made_of": job.made_of, "stored": stored, "rows": rows}).encode())


def _check_folders(*folders: Path | None) -> None:
    """Raise if a study has no images, or no slices, because a folder has none of any study."""
    for folder in folders:
        if folder is not None and (not folder.is_dir() or next(folder.iterdir(), None) is None):
            raise ImagesGoneError(
                "is missing or empty.",
                where=str(folder),
                fix="Mount its disk on every machine that reads, then run again: finished studies are kept.",
            )


def _found(job: _Job) -> Iterable[SeriesRead]:
    if isinstance(job.images, BucketStudy):
        return _copied_series(job.images, job.rescale)
    if isinstance(job.images, IndexedStudy):
        return _indexed_series(job.images, job.rescale)
    return _series_below(job.images, job.rescale)


def _indexed_series(study: IndexedStudy, rescale: Rescale | None) -> Iterator[SeriesRead]:
    with study.opened() as files:
        if study.digest and not any(
            path.exists() for path in files
        ):  # of a study that has images: it is the disk that is gone
            raise ImagesGoneError(
                "all files of a study are gone since they were indexed.",
                where=str(study.index.root),
                fix="Check its disk or mount, then run `fmaudit run` again: finished studies are kept.",
            )
        yield from found_series(files, rescale=rescale)


@contextmanager
def _opened_files(images: StudyImages) -> Iterator[list[Path]]:
    """Yield the files of a study's CT; of a bucket, of a copy that is removed afterwards."""
    if isinstance(images, IndexedStudy):
        with images.opened() as files:
            yield files
    elif isinstance(images, BucketStudy):
        with images.copied() as path, _opened_files(path) as files:
            yield files
    else:
        yield [file for file, _ in files_below(images)] if images.exists() else []


def _copied_series(study: BucketStudy, rescale: Rescale | None) -> Iterator[SeriesRead]:
    with study.copied() as path:
        yield from _series_below(path, rescale)


def _series_below(path: Path, rescale: Rescale | None) -> Iterable[SeriesRead]:
    if path.exists():
        return found_series(path, rescale=rescale)
    return [SeriesRead(status="quarantined", reason="no_images", n_files=0)]


def _write_views(job: _Job, series: SeriesRead, at: int) -> None:
    if series.volume_hu is None:
        return
    for view, path in job.entries:
        if not is_whole(path, job.entry_of(at)):
            write_entry(path, view.apply(series.volume_hu, series.spacing_zyx_mm), job.entry_of(at))


def _read_record(path: Path) -> Mapping[str, Any]:
    try:
        record: Mapping[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record


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

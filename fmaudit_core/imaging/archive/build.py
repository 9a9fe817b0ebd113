"""Making and updating the index of an archive: every file's header is read once, in parallel, and again only if it changed.

A run lists the folder, reads the headers of files that no earlier run has read, in parts, and publishes the whole. What a killed
run has read stays in its parts. Joins and sorts are DuckDB's, which uses the disk if memory is short.
"""

from __future__ import annotations

import errno
import fcntl
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
import polars as pl

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.common.worker_pool import performed
from fmaudit_core.imaging.archive.file_header import file_header, object_header
from fmaudit_core.imaging.archive.index import FILES, ArchiveIndex, damaged
from fmaudit_core.imaging.archive.listing import cannot_read, write_listing
from fmaudit_core.imaging.archive.path_text import path_of_text
from fmaudit_core.imaging.archive.reasons import NOT_READ
from fmaudit_core.imaging.errors import ImagingError
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.bucket import REQUESTS, Bucket, ObjectLostError

_FILES_PER_PART: Final = 1_024
#: to start a process costs as much as to read some thousand headers
_PARTS_AT_A_TIME: Final = 4
#: of joins and sorts, which use the disk beyond it; less than half of it fails from some hundred thousand files on
_MEMORY, _THREADS = "256MB", 2
_ROWS_PER_GROUP: Final = 16_384
#: after so many failures in a row it is the disk that cannot be read, not its files
_FAILURES_IN_A_ROW: Final = 16
_OF_ONE_FILE: Final = (errno.EACCES, errno.EPERM, errno.ENOENT)

#: `known` are the rows of earlier runs that hold; `fresh` the files to read; `current` the index as it should be
_VIEWS: Final = """
CREATE OR REPLACE VIEW listing AS SELECT * FROM read_parquet({listing}, hive_partitioning = false);
CREATE OR REPLACE VIEW known AS
    SELECT DISTINCT {columns} FROM read_parquet({known}, hive_partitioning = false) WHERE reason NOT IN ({not_read});
CREATE OR REPLACE VIEW fresh AS
    SELECT path, bytes, mtime_ns FROM listing ANTI JOIN known USING (path, bytes, mtime_ns) WHERE reason = '';
CREATE OR REPLACE VIEW current AS
    SELECT path, bytes, mtime_ns, {values},
        CASE WHEN listing.reason = '' THEN coalesce(known.reason, 'not_opened') ELSE listing.reason END AS reason
    FROM listing LEFT JOIN known USING (path, bytes, mtime_ns);
"""
_CHANGED: Final = "SELECT {key} FROM current EXCEPT SELECT {key} FROM read_parquet({files}, hive_partitioning = false)"
_STUDIES: Final = """
SELECT study_uid,
    coalesce(list_sort(list(DISTINCT accession) FILTER (accession <> '')), []) AS accessions,
    count(*) AS n_files,
    sum(bytes)::BIGINT AS n_bytes,
    sha256(string_agg(concat_ws(' ', bytes, mtime_ns, length(path), path), ' ' ORDER BY path))[:32] AS digest
FROM read_parquet({files}, hive_partitioning = false) WHERE reason = '' GROUP BY study_uid ORDER BY study_uid
"""


#: path as text, bytes and time of change of a file as they were listed; and the same with its header, a row of `FILES`
_Listed = tuple[str, int, int]
_Row = tuple[str | int, ...]


@dataclass(frozen=True)
class _Part:
    """Files to read, and the part of the index to write."""

    root: Path | Bucket
    target: Path
    files: tuple[_Listed, ...]


def update_index(index: ArchiveIndex, *, workers: int = 0, progress: Progress = silent) -> None:
    """Index a folder or bucket in any layout, or bring its index up to date.

    Parameters
    ----------
    index : ArchiveIndex
        The folder, and where its index is kept: after a kill, or a change of some files, only what is new is read.
    workers : int
        Number of processes that read headers; 0 uses one per core.
    progress : callable, optional
        Called with the number of files read, and to read.

    Raises
    ------
    ImagingError
        Not a folder, no DICOM study in it, or it cannot be read.
    StoreError
        The bucket does not answer or refuses; what was read is kept.
    WorkerDiedError
        A reading process died; what was read is kept.
    """
    root, folder = index.root, index.folder
    if isinstance(root, Path) and not root.is_dir():
        raise ImagingError("is not a folder.", where=str(root), fix="Give the folder of images that a PACS exported.")
    with _locked(folder), _emptied(folder / "work") as work:
        write_listing(root, work / "listing")
        with duckdb.connect(":memory:") as connection:
            connection.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = {_THREADS}")
            connection.execute(f"SET temp_directory = {_quoted(work)}")
            try:
                _open(connection, index, work)
                _count(connection, "FROM known")
            except duckdb.Error as error:
                raise damaged(folder) from error
            try:
                _update(connection, index, work, workers, progress)
            except duckdb.Error as error:  # all that is read was read before
                raise ImagingError(
                    "the index of the images cannot be written: disk or memory is full.",
                    where=str(folder),
                    fix="Free some space, or set FMAUDIT_HOME to a larger disk, then run again: what was read is kept.",
                ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an index; wait while another process updates it. A killed process holds none."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """Yield an empty folder and remove it afterwards; a killed run may have left one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _update(
    connection: duckdb.DuckDBPyConnection, index: ArchiveIndex, work: Path, workers: int, progress: Progress
) -> None:
    """Read what is new, and publish the index if it is another than before."""
    parts = index.folder / "parts"
    fresh = work / "fresh.parquet"
    connection.execute(f"COPY (FROM fresh ORDER BY path) TO {_quoted(fresh)} (FORMAT parquet)")
    n_fresh = _count(connection, f"FROM read_parquet({_quoted(fresh)})")
    if n_fresh:
        jobs = _parts(index.root, parts, fresh, n_fresh)
        progress(0, n_fresh)
        done = 0
        for part in performed(_read_part, jobs, workers=workers, chunk=_PARTS_AT_A_TIME):
            done += len(part.files)
            progress(done, n_fresh)
        _open(connection, index, work)
    n_files, n_dicom = _count(connection, "FROM current"), _count(connection, "FROM current WHERE study_uid <> ''")
    if not n_dicom:
        raise ImagingError(
            f"no DICOM study was found in its {n_files:,} files.",
            where=str(index.root),
            fix="Give the folder of DICOM files that a PACS exported. NIfTI files are found by the table's column `image`.",
        )
    if not _is_published(connection, index, n_files):
        _publish(connection, index)
    shutil.rmtree(parts, ignore_errors=True)


def _open(connection: duckdb.DuckDBPyConnection, index: ArchiveIndex, work: Path) -> None:
    """Create the views over the listing and what was read so far."""
    empty = work / "empty.parquet"
    pl.DataFrame(schema=FILES).write_parquet(empty)
    known = [
        empty,
        *([index.files] if index.files.exists() else []),
        *sorted((index.folder / "parts").glob("*.parquet")),
    ]
    values = [name for name in FILES if name not in ("path", "bytes", "mtime_ns", "reason")]
    connection.execute(
        _VIEWS.format(
            listing=_file_list(sorted((work / "listing").iterdir())),
            known=_file_list(known),
            columns=", ".join(FILES),
            not_read=", ".join(f"'{reason}'" for reason in NOT_READ),
            values=", ".join(f"coalesce(known.{name}, '') AS {name}" for name in values),
        )
    )


def _parts(root: Path | Bucket, parts: Path, fresh: Path, n_fresh: int) -> Iterator[_Part]:
    """Yield the parts to read, few files at a time."""
    parts.mkdir(parents=True, exist_ok=True)
    run = secrets.token_hex(4)
    for at in range(0, n_fresh, _FILES_PER_PART):
        rows = pl.scan_parquet(fresh, glob=False).slice(at, _FILES_PER_PART).collect().rows()
        yield _Part(root, parts / f"{run}-{at // _FILES_PER_PART:06}.parquet", tuple(rows))


def _read_part(part: _Part) -> None:
    """Read the headers of some files; one that cannot be opened has no row, so that it is tried again next time."""
    rows = _headers_on_disk(part.root, part.files) if isinstance(part.root, Path) else _headers(part.root, part.files)
    with written_beside(part.target) as temporary:
        pl.DataFrame(rows, schema=FILES, orient="row").write_parquet(temporary)


def _headers_on_disk(root: Path, files: Sequence[_Listed]) -> list[_Row]:
    rows: list[_Row] = []
    failures = 0
    for text, n_bytes, mtime_ns in files:
        try:
            header = file_header(root / path_of_text(text))
        except OSError as error:
            failures += error.errno not in _OF_ONE_FILE
            if failures == _FAILURES_IN_A_ROW:
                raise cannot_read(root, error) from error
        else:
            failures = 0
            rows.append((text, n_bytes, mtime_ns, *header))
    return rows


def _headers(bucket: Bucket, files: Sequence[_Listed]) -> list[_Row]:
    """Return the rows of objects; requests wait for the store, so that several are under way."""

    def row(one: _Listed) -> _Row | None:
        text, n_bytes, changed = one
        try:
            return (text, n_bytes, changed, *object_header(bucket, path_of_text(text), n_bytes))
        except ObjectLostError:  # since it was listed
            return None

    with ThreadPoolExecutor(REQUESTS, "headers") as pool:
        return [found for found in pool.map(row, files) if found is not None]


def _is_published(connection: duckdb.DuckDBPyConnection, index: ArchiveIndex, n_files: int) -> bool:
    """Return whether the published index is of the files as they are."""
    if not (index.files.exists() and index.studies_file.exists()):
        return False
    files = _quoted(index.files)
    changed = _CHANGED.format(key="path, bytes, mtime_ns, reason", files=files)
    return _count(connection, f"FROM read_parquet({files})") == n_files and not _count(connection, f"FROM ({changed})")


def _publish(connection: duckdb.DuckDBPyConnection, index: ArchiveIndex) -> None:
    """Replace the index; a kill in between leaves no table of studies, which the next run makes."""
    options = f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROWS_PER_GROUP})"
    with written_beside(index.files) as temporary:
        connection.execute(
            f"COPY (SELECT {', '.join(FILES)} FROM current ORDER BY study_uid, path) TO {_quoted(temporary)} {options}"
        )
        index.studies_file.unlink(missing_ok=True)
    with written_beside(index.studies_file) as temporary:
        connection.execute(f"COPY ({_STUDIES.format(files=_quoted(index.files))}) TO {_quoted(temporary)} {options}")


def _count(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    (found,) = connection.execute(f"SELECT count(*) {rows}").fetchall()[0]
    return int(found)


def _file_list(paths: Iterable[Path]) -> str:
    return f"[{', '.join(map(_quoted, paths))}]"


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"

"""Listing of a folder or of a bucket: every file or object with its size and time of change, without reading any.

An object has a number made of its ETag in place of a time: another one for another content. Links to folders are not followed, so
there are no loops. A link to a file counts as that file if it lies in the folder too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from fmaudit_core.imaging.archive.path_text import text_of_path
from fmaudit_core.imaging.bucket_images import is_shown
from fmaudit_core.imaging.errors import ImagingError
from fmaudit_core.storage.bucket import Bucket

_ROWS_PER_PART: Final = 16_384
_SCHEMA: Final = {"path": pl.String, "bytes": pl.Int64, "mtime_ns": pl.Int64, "reason": pl.String}


class Listed(NamedTuple):
    """One entry of a folder.

    Parameters
    ----------
    path : str
        Relative to the folder, as `text_of_path` writes it.
    reason : str
        Why the entry is not read, a key of `reasons.NOT_READ`; empty for a regular file.
    """

    path: str
    bytes: int
    mtime_ns: int
    reason: str


def write_listing(root: Path | Bucket, parts: Path) -> None:
    """Write the listing of a folder or bucket as Parquet parts, so that memory depends on its largest subfolder only.

    Raises
    ------
    ImagingError
        The folder, or the disk it is on, cannot be read.
    StoreError
        The bucket does not answer or refuses.
    """
    rows: list[Listed] = []
    at = 0
    for row in listed(root) if isinstance(root, Path) else listed_objects(root):
        rows.append(row)
        if len(rows) == _ROWS_PER_PART:
            _write(rows, parts, at)
            rows, at = [], at + 1
    _write(rows, parts, at)


def _write(rows: list[Listed], parts: Path, at: int) -> None:
    parts.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=_SCHEMA, orient="row").write_parquet(parts / f"{at:06}.parquet")


def listed(root: Path) -> Iterator[Listed]:
    """Yield the entries of a folder and its subfolders, each subfolder in the order of names.

    Raises
    ------
    ImagingError
        The folder, or the disk it is on, cannot be read.
    """
    top, pending = os.path.realpath(os.fsencode(root)), [b""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(top + b"/" + folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if not folder or error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM):
                raise cannot_read(root, error) from error
            if error.errno != errno.ENOENT:
                yield Listed(text_of_path(folder), 0, 0, "folder_not_listed")
            continue
        inner = []
        for entry in entries:
            path = folder + b"/" + entry.name if folder else entry.name
            if entry.name.startswith(b"."):
                yield Listed(text_of_path(path), 0, 0, "hidden")
            elif entry.is_dir(follow_symlinks=False):
                inner.append(path)
            else:
                yield _entry(entry, path, top)
        pending += reversed(inner)


def listed_objects(bucket: Bucket) -> Iterator[Listed]:
    """Yield the objects of a bucket, sorted as the store sorts them.

    Raises
    ------
    StoreError
        The bucket does not answer or refuses.
    """
    for one in bucket.list(""):
        text = text_of_path(one.name.encode())
        if is_shown(one.name):
            tag = hashlib.sha256(one.tag.encode()).digest()
            yield Listed(text, one.n_bytes, int.from_bytes(tag[:8]) >> 1, "")
        else:
            yield Listed(text, 0, 0, "hidden")


def _entry(entry: os.DirEntry[bytes], path: bytes, top: bytes) -> Listed:
    """Return a file, or what is none, with the reason."""
    text = text_of_path(path)
    try:
        status = entry.stat()
        target = os.path.realpath(entry.path) if entry.is_symlink() else None
    except OSError:  # gone meanwhile, a broken link, or a link to itself
        return Listed(text, 0, 0, "broken_link" if entry.is_symlink() else "not_opened")
    if target is not None and (stat.S_ISDIR(status.st_mode) or not target.startswith(top + b"/")):
        return Listed(text, 0, 0, "link_to_folder" if stat.S_ISDIR(status.st_mode) else "link_outside")
    if not stat.S_ISREG(status.st_mode):
        return Listed(text, 0, 0, "not_a_file")
    return Listed(text, status.st_size, status.st_mtime_ns, "")


def cannot_read(root: Path, error: OSError) -> ImagingError:
    """Return the error of a folder of images that cannot be read, as when a mount is gone."""
    return ImagingError(
        f"cannot be read: {(error.strerror or str(error)).lower()}.",
        where=str(root),
        fix="Give a folder that can be read, or check its disk or mount, then run again: what was read is kept.",
    )

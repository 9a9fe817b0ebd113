"""Digests of values, frames and files. The versions of tables that are computed from them: `pipeline/versions.py`."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel


def digest(*parts: object) -> str:
    """Stable digest of plain values, pydantic models, mappings and sequences (32 hex digits of SHA-256)."""
    text = json.dumps([_plain(part) for part in parts], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def key_of(model: BaseModel, *, added: Sequence[str]) -> dict[str, Any]:
    """Return the values of a model for a digest.

    Fields that later versions `added` are left out at their defaults, so that the digests of earlier versions stay.
    """
    fields = type(model).model_fields
    at_default = {name for name in added if getattr(model, name) == fields[name].default}
    return model.model_dump(mode="json", exclude=at_default)


def frame_digest(frame: pl.DataFrame) -> str:
    """Digest of a frame's column names, types and rows, in their order."""
    seen = hashlib.sha256(repr(list(frame.schema.items())).encode())
    for column in frame.iter_columns():
        cells = column.cast(pl.String) if column.dtype != pl.String else column
        # a length before each cell, so that two cells never read as one
        joined = cells.fill_null("\0").str.len_bytes().cast(pl.String) + ":" + cells.fill_null("\0")
        seen.update(joined.str.join("").item().encode() if len(joined) else b"")
    return seen.hexdigest()[:32]


def files_digest(root: Path, paths: Sequence[str]) -> str:
    """Fingerprint of image files or folders below `root`: relative path, size and time of change of each file.

    Contents are not read: terabytes of CT would be. A file that was rewritten has another time of change.
    """
    seen = hashlib.sha256()
    for relative in sorted(paths):
        for path, status in files_below(root / relative):
            # names are bytes: a patient CD written elsewhere may hold some that are not UTF-8
            seen.update(os.fsencode(path.relative_to(root)) + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return seen.hexdigest()[:32]


def files_below(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files of a folder, or the file itself, in order, each with its status.

    Hidden files and folders are no part of it; a file that has gone meanwhile is passed over.
    """
    for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
        if not any(part.startswith(".") for part in path.relative_to(top).parts):
            with suppress(FileNotFoundError):
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    yield path, status


def stat_texts(paths: Iterable[Path]) -> Iterator[str]:
    """Yield path, size and time of change of each file, or that it is not there."""
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:  # not there yet, or replaced at this moment
            yield f"{path}: none"
        else:
            yield f"{path}: {status.st_size} {status.st_mtime_ns}"


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a {type(value).__name__} has no stable digest")

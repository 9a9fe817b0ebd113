"""One entry of the slice store: a header that identifies its inputs, then zstandard frames with checksums.

An entry appears by rename, so a kill leaves only complete entries. A damaged one is detected by its size or its checksums.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import zstandard

from fmaudit_core.imaging.errors import SliceStoreError
from fmaudit_core.imaging.window import SliceArray
from fmaudit_core.storage.atomic_write import written_beside

_MAGIC: Final = b"FMSLICE1"
_CHUNK_SLICES: Final = 32
_LEVEL: Final = 1
REBUILD: Final = "Run `fmaudit run` to write it again."
#: errors raised by bytes that are not an entry: a header's text and numbers may be anything
_TORN: Final = (ValueError, KeyError, TypeError, OverflowError, MemoryError, struct.error, zstandard.ZstdError)


def is_whole(path: Path, made_of: str) -> bool:
    """Return whether an entry is of these inputs, with correct header and size; checksums are verified when it is read."""
    try:
        with path.open("rb") as file:
            header = _read_header(file.read(12), file)
            return bool(header["made_of"] == made_of and path.stat().st_size == file.tell() + sum(header["chunks"]))
    except (OSError, *_TORN):
        return False


def read_entry(path: Path) -> SliceArray:
    """Return the slices of an entry.

    Raises
    ------
    SliceStoreError
        It does not exist, or is truncated or corrupt.
    """
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
        raise SliceStoreError("does not exist yet.", where=str(path), fix=REBUILD) from error
    except (OSError, *_TORN) as error:
        raise SliceStoreError("is truncated or corrupt.", where=str(path), fix=f"Delete it. {REBUILD}") from error
    return out


def write_entry(path: Path, slices: SliceArray, made_of: str) -> None:
    """Write slices as an entry that records its inputs."""
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
    write_whole(path, _MAGIC + struct.pack("<I", len(text)) + text + b"".join(chunks))


def _read_header(start: bytes, file: Any) -> dict[str, Any]:
    if start[:8] != _MAGIC:
        raise ValueError("not an entry of the slice store")
    (length,) = struct.unpack("<I", start[8:12])
    header: dict[str, Any] = json.loads(file.read(length))
    return header


def write_whole(path: Path, data: bytes) -> None:
    """Write one entry or record; a damaged one is detected by its size or checksum and recreated."""
    with written_beside(path, durable=False) as temporary:
        temporary.write_bytes(data)

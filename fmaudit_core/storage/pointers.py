"""Names of a bucket: small objects that say which objects a table or an encoder's embeddings consist of.

Objects are written once. Then their name is replaced by compare-and-swap, so a reader sees the old version or the new one, whole.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import pyarrow as pa

from fmaudit_core.storage.atomic_write import PublishError, check_publishing
from fmaudit_core.storage.bucket import REQUESTS, Bucket
from fmaudit_core.storage.warehouse import Cell, WarehouseError

#: folder of all names
NAMES: Final = "names"
#: the name of the embeddings of an encoder stands below it, next to those of tables
EMBEDDINGS: Final = "study_embeddings"
_SUFFIX: Final = ".json"
_WHOLE: Final = "whole"


@dataclass(frozen=True)
class Pointer:
    """What a name points to.

    Parameters
    ----------
    version : str
        Digest of the inputs.
    objects : mapping of name to int
        Its objects, with their sizes in bytes.
    n_rows : int
    schema : pyarrow.Schema
        Of the objects of a table; empty for embeddings.
    """

    version: str
    objects: Mapping[str, int]
    n_rows: int
    schema: pa.Schema

    def as_bytes(self) -> bytes:
        """Return the content of the name; its objects make it unlike that of any other publication."""
        content = {
            "version": self.version,
            "objects": dict(self.objects),
            "rows": self.n_rows,
            "made_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
        }
        return json.dumps(content, indent=1).encode()


def pointer_name(table: str, cell: Cell) -> str:
    """Return the name of a cell."""
    return f"{NAMES}/{table}/{'/'.join(cell.folders) or _WHOLE}{_SUFFIX}"


def named_cell(name: str) -> tuple[str, Cell]:
    """Return the table and cell of a name."""
    _, table, *folders = name.removesuffix(_SUFFIX).split("/")
    return table, Cell() if folders == [_WHOLE] else Cell(**dict(part.split("=", 1) for part in folders))


def read_pointer(bucket: Bucket, table: str, cell: Cell) -> Pointer | None:
    """Return what a cell consists of; None if it was never published."""
    name = pointer_name(table, cell)
    content = bucket.read(name)
    return None if content is None else _parsed(bucket, name, content)


def read_pointers(bucket: Bucket, table: str = "") -> dict[str, Pointer]:
    """Return all names, or those of one table, with what they point to. A name that has not changed is not read again."""
    found = list(bucket.list(f"{NAMES}/{table}".rstrip("/")))
    with ThreadPoolExecutor(REQUESTS, "names") as pool:
        pointers = list(pool.map(lambda one: _listed(bucket, one.name, one.tag), found))
    return {one.name: pointer for one, pointer in zip(found, pointers, strict=True) if pointer is not None}


def publish_pointer(bucket: Bucket, table: str, cell: Cell, pointer: Pointer) -> None:
    """Let a cell consist of other objects from now on.

    Raises
    ------
    LeaseLostError
        The lease of the step was taken over.
    PublishError
        Another process published this cell meanwhile.
    """
    name, content = pointer_name(table, cell), pointer.as_bytes()
    seen = bucket.read_tagged(name)
    check_publishing()  # after the name was read: whoever takes the lease over from here on changes the name, or comes later
    swapped = bucket.create(name, content) if seen is None else bucket.replace(name, content, seen[1])
    if not swapped:
        raise PublishError(
            f"{table} ({cell}) was published by another process meanwhile.",
            where=str(bucket),
            fix="Run again: what is finished is kept.",
        )


@lru_cache(maxsize=16_384)
def _listed(bucket: Bucket, name: str, tag: str) -> Pointer | None:  # noqa: ARG001  # another tag is another content
    content = bucket.read(name)
    return None if content is None else _parsed(bucket, name, content)


def _parsed(bucket: Bucket, name: str, content: bytes) -> Pointer:
    try:
        given = json.loads(content)
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(given["schema"])))
        return Pointer(given["version"], given["objects"], given["rows"], schema)
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise WarehouseError(
            "is damaged.", where=f"{bucket}/{name}", fix="Delete it and run `fmaudit run` again."
        ) from error

"""Tables in a bucket: objects that are written once, and one pointer per cell (`pointers.py`). In a folder: `warehouse.py`."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import duckdb
import polars as pl
import pyarrow as pa

from fmaudit_core.storage.bucket import REQUESTS, Bucket, StoredObject
from fmaudit_core.storage.bucket_embeddings import FOLDER, BucketEmbeddings, add_embeddings
from fmaudit_core.storage.object_queries import object_queries
from fmaudit_core.storage.pointers import (
    EMBEDDINGS,
    NAMES,
    Pointer,
    named_cell,
    pointer_name,
    publish_pointer,
    read_pointer,
    read_pointers,
)
from fmaudit_core.storage.warehouse import WHOLE, Cell, Published, WarehouseError, not_made, nothing_published, stacked
from fmaudit_core.tables.schemas import declared

_OBJECTS: Final = "objects"
#: a cell that is published while it is read points to another object
_TRIES: Final = 3


@dataclass(frozen=True)
class BucketWarehouse:
    """All tables of one audit, as `warehouse.Warehouse`. Every method raises `StoreError` if the bucket does not answer."""

    bucket: Bucket

    def __str__(self) -> str:
        return str(self.bucket)

    def embeddings_path(self, encoder: str) -> BucketEmbeddings:
        """Return where the embeddings of an encoder are."""
        return BucketEmbeddings(self.bucket, encoder)

    def publish(self, table: str, frame: pl.DataFrame, *, version: str, cell: Cell = WHOLE) -> Published:
        """Write one cell of a declared table as a new object, then replace the cell's pointer."""
        import pyarrow.parquet as pq  # of a bucket only

        declared(table).check(frame)
        content = io.BytesIO()
        frame.write_parquet(content)
        name = "/".join((_OBJECTS, table, *cell.folders, version, f"{secrets.token_hex(8)}.parquet"))
        self.bucket.create(name, content.getvalue())
        pointer = Pointer(version, {name: content.tell()}, frame.height, pq.read_schema(content))
        publish_pointer(self.bucket, table, cell, pointer)
        return Published(table=table, path=f"{self.bucket}/{name}", n_rows=frame.height, version=version)

    def keep(self, table: str, kept: str, cell: Cell, *, before: str) -> None:
        """Let a cell of another table point to the objects of a published one, unless it is of the version to come."""
        pointer = read_pointer(self.bucket, table, cell)
        if pointer is not None and pointer.version != before:
            publish_pointer(self.bucket, kept, cell, pointer)

    def read(self, table: str, cell: Cell = WHOLE) -> pl.DataFrame:
        """Return one cell of a table."""
        name = ""
        for _ in range(_TRIES):
            pointer = read_pointer(self.bucket, table, cell)
            if pointer is None:
                raise not_made(self, table, cell)
            (name,) = pointer.objects
            if (content := self.bucket.read(name)) is not None:
                return pl.read_parquet(content)
        raise WarehouseError("is lost.", where=f"{self.bucket}/{name}", fix="`fmaudit run` makes it again.")

    def read_cells(self, table: str, cells: Sequence[Cell]) -> pl.DataFrame:
        """Return the rows of several cells, one below the other, in the order given."""
        with ThreadPoolExecutor(REQUESTS, "cells") as pool:
            return stacked(self, table, list(pool.map(lambda cell: self.read(table, cell), cells)))

    def version(self, table: str, cell: Cell = WHOLE) -> str | None:
        """Return the version of a published cell; None if it was never published."""
        pointer = read_pointer(self.bucket, table, cell)
        return None if pointer is None else pointer.version

    def versions(self) -> Callable[[str, Cell], str | None]:
        """Look at all names and objects at once; return what finds the version of a cell, None if an object of it is lost."""
        pointers = read_pointers(
            self.bucket
        )  # before the objects: those of a name that is replaced meanwhile are there still
        there = {one.name for one in self.objects()}

        def version(table: str, cell: Cell) -> str | None:
            found = pointers.get(pointer_name(table, cell))
            return found.version if found is not None and found.objects.keys() <= there else None

        return version

    def cells(self, table: str) -> list[Cell]:
        """Return the published cells of a table, sorted."""
        return sorted(named_cell(one.name)[1] for one in self.bucket.list(f"{NAMES}/{table}"))

    def tables(self) -> list[str]:
        """Return the names of the tables published so far."""
        return sorted({named_cell(one.name)[0] for one in self.bucket.list(NAMES)} - {EMBEDDINGS})

    def refresh_views(self) -> None:
        """Do nothing: `connect` makes the views."""

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open views over all tables, and over each encoder's embeddings in a database of its name."""
        tables: dict[str, list[Pointer]] = {}
        embeddings: dict[str, Pointer] = {}
        for name, pointer in read_pointers(self.bucket).items():
            table, cell = named_cell(name)
            if table == EMBEDDINGS:
                embeddings[cell.encoder] = pointer
            else:
                tables.setdefault(table, []).append(pointer)
        if not tables:
            raise nothing_published(self)
        with object_queries(self.bucket) as queries:
            for table, pointers in tables.items():
                schema = pa.unify_schemas([one.schema for one in pointers], promote_options="permissive")
                objects = {name: size for one in pointers for name, size in one.objects.items()}
                queries.add(table, objects, schema.remove_metadata())
            for encoder, pointer in embeddings.items():
                queries.connection.execute(f"ATTACH ':memory:' AS \"{encoder}\"")
                add_embeddings(queries, pointer, prefix=f"{encoder}.")
                for table in ("study_embeddings", "slice_embeddings", "failed_studies", "provenance"):
                    queries.connection.execute(
                        f'CREATE VIEW "{encoder}"."{table}" AS SELECT * FROM "{encoder}.{table}"'
                    )
            yield queries.connection

    def seen(self) -> Iterator[str]:
        """Yield a text for each published cell, another one whenever it is published anew."""
        yield from (f"{one.name}: {one.tag}" for one in self.bucket.list(NAMES))

    def objects(self) -> Iterator[StoredObject]:
        """Yield the objects of all tables and embeddings, old versions too."""
        for folder in (_OBJECTS, FOLDER):
            yield from self.bucket.list(folder)

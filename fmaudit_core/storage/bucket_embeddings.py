"""Embeddings of one encoder in a bucket: Parquet objects of a few thousand rows, named by one pointer."""

from __future__ import annotations

import io
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from fmaudit_core.storage.bucket import Bucket
from fmaudit_core.storage.object_queries import ObjectQueries, object_queries
from fmaudit_core.storage.pointers import EMBEDDINGS, Pointer, publish_pointer, read_pointer
from fmaudit_core.storage.warehouse import Cell

#: folder of all embeddings
FOLDER: Final = "embeddings"
_OBJECT_BYTES: Final = 64 << 20
_TEXT: Final = pa.string()


def embeddings_schemas(dim: int) -> dict[str, pa.Schema]:
    """Return the tables of embeddings of a dimension."""
    vector = pa.list_(pa.float32(), dim)
    return {
        "study_embeddings": pa.schema({"study_id": _TEXT, "pooling": _TEXT, "embedding": vector}),
        "slice_embeddings": pa.schema({"study_id": _TEXT, "slice_index": pa.int32(), "embedding": vector}),
        "failed_studies": pa.schema({"study_id": _TEXT, "reason": _TEXT}),
        "provenance": pa.schema({"key": _TEXT, "value": _TEXT}),
    }


@dataclass(frozen=True)
class BucketEmbeddings:
    """Where the embeddings of an encoder are in a bucket."""

    bucket: Bucket
    encoder: str

    def __str__(self) -> str:
        return f"{self.bucket}/{FOLDER}/{self.encoder}"

    @property
    def name(self) -> str:
        """Return the name for messages."""
        return f"{FOLDER}/{self.encoder}"

    def exists(self) -> bool:
        """Return whether they were published."""
        return self.pointer() is not None

    def pointer(self) -> Pointer | None:
        """Return the published objects; None if there are none."""
        return read_pointer(self.bucket, EMBEDDINGS, Cell(self.encoder))

    @contextmanager
    def opened(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open views over them, by the names of the tables in a DuckDB file of embeddings.

        Raises
        ------
        FileNotFoundError
            They were never published.
        StoreError
            The bucket does not answer.
        """
        pointer = self.pointer()
        if pointer is None:
            raise FileNotFoundError(self.name)
        with object_queries(self.bucket) as queries:
            add_embeddings(queries, pointer)
            yield queries.connection

    @contextmanager
    def written(self, dim: int) -> Iterator[EmbeddingsObjects]:
        """Yield a sink of rows; on success the pointer is replaced, otherwise the objects are left to `fmaudit gc`."""
        sink = EmbeddingsObjects(self.bucket, f"{FOLDER}/{self.encoder}/{secrets.token_hex(8)}", dim)
        yield sink
        sink.flush()
        self.publish(sink.objects, version=sink.version, n_rows=sink.n_rows["study_embeddings"], dim=dim)

    def publish(self, objects: Mapping[str, int], *, version: str, n_rows: int, dim: int) -> None:
        """Replace the pointer.

        Parameters
        ----------
        objects : mapping of name to int
            Objects that have been written, with their sizes; the folder of each is the name of its table.
        """
        schema = embeddings_schemas(dim)["study_embeddings"]
        publish_pointer(self.bucket, EMBEDDINGS, Cell(self.encoder), Pointer(version, objects, n_rows, schema))


def add_embeddings(queries: ObjectQueries, pointer: Pointer, prefix: str = "") -> None:
    """Add a view over each table of an encoder's embeddings."""
    dim = pointer.schema.field("embedding").type.list_size
    for table, schema in embeddings_schemas(dim).items():
        objects = {name: size for name, size in pointer.objects.items() if name.split("/")[-2] == table}
        queries.add(f"{prefix}{table}", objects, schema)


@dataclass
class EmbeddingsObjects:
    """A sink of rows that writes an object whenever it holds enough of one table and pooling."""

    bucket: Bucket
    folder: str
    dim: int
    version: str = ""
    objects: dict[str, int] = field(default_factory=dict)
    n_rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _held: dict[tuple[str, str], list[pa.Table]] = field(default_factory=lambda: defaultdict(list))

    def add(self, table: str, rows: pa.Table) -> None:
        """Add rows with the columns of a table; study embeddings of one pooling at a time."""
        schema = embeddings_schemas(self.dim)[table]
        rows = rows.rename_columns(schema.names).cast(schema)
        part = rows.column("pooling")[0].as_py() if "pooling" in schema.names else ""
        if table == "provenance":
            self.version = dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))["version"]
        held = self._held[table, part]
        held.append(rows)
        self.n_rows[table] += rows.num_rows
        if sum(one.nbytes for one in held) >= _OBJECT_BYTES:
            self._write(table, part)

    def together(self) -> AbstractContextManager[None]:
        """Do nothing: rows are held until they fill an object."""
        return nullcontext()

    def flush(self) -> None:
        """Write what is held."""
        for table, part in list(self._held):
            self._write(table, part)

    def _write(self, table: str, part: str) -> None:
        import pyarrow.parquet as pq  # of a bucket only

        rows, buffer = pa.concat_tables(self._held.pop((table, part))), io.BytesIO()
        pq.write_table(rows, buffer, use_dictionary=["study_id", "pooling"], compression="zstd")
        name = f"{self.folder}/{table}/{len(self.objects):06d}.parquet"
        self.bucket.create(name, buffer.getvalue())
        self.objects[name] = buffer.tell()


#: a DuckDB file, or objects of a bucket
EmbeddingsPath = Path | BucketEmbeddings

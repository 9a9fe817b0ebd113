"""DuckDB over Parquet objects of a bucket, through `pyarrow.dataset`: a query reads only the columns and row groups it needs."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from fmaudit_core.storage.bucket import Bucket, StoreError


@dataclass(frozen=True)
class ObjectQueries:
    """A connection to views over objects.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
    bucket : Bucket
    failures : list of StoreError
        Of reads in DuckDB's threads, which tells of them as text only.
    """

    connection: duckdb.DuckDBPyConnection
    bucket: Bucket
    failures: list[StoreError] = field(default_factory=list)

    def add(self, view: str, objects: Mapping[str, int], schema: pa.Schema) -> None:
        """Add a view over some objects, given with their sizes; nothing is read yet."""
        import pyarrow.dataset as ds  # imports pandas where it is installed: most of a second

        parquet = ds.ParquetFileFormat()
        files = [_ObjectFile(self.bucket, name, size, self.failures) for name, size in objects.items()]
        fragments = [parquet.make_fragment(pa.PythonFile(file, mode="r")) for file in files]
        self.connection.register(
            view, ds.FileSystemDataset(fragments, schema, parquet) if fragments else schema.empty_table()
        )


@contextmanager
def object_queries(bucket: Bucket) -> Iterator[ObjectQueries]:
    """Open a connection in memory.

    Raises
    ------
    StoreError
        A query failed because the bucket did not answer.
    """
    with duckdb.connect(":memory:") as connection:
        queries = ObjectQueries(connection, bucket)
        try:
            yield queries
        except Exception as error:
            if queries.failures:
                raise queries.failures[0] from error
            raise


class _ObjectFile(io.RawIOBase):
    """An object as a file that is read by range."""

    def __init__(self, bucket: Bucket, name: str, size: int, failures: list[StoreError]) -> None:
        super().__init__()
        self._bucket, self._name, self._size, self._failures = bucket, name, size, failures
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        wanted = self._size - self._at if size < 0 else min(size, self._size - self._at)
        if wanted <= 0:
            return b""
        try:
            content = self._bucket.read_range(self._name, self._at, wanted)
        except StoreError as error:
            self._failures.append(error)
            raise
        self._at += len(content)
        return content

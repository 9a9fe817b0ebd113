"""DuckDB over Parquet objects of a bucket, through `pyarrow.dataset`: a query reads only the columns and row groups it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from fmaudit_core.storage.bucket import Bucket, StoreError
from fmaudit_core.storage.object_file import ObjectFile


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
        files = [ObjectFile(self.bucket, name, size, self.failures) for name, size in objects.items()]
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

"""Writer of embeddings: one DuckDB file per encoder, or objects of a bucket.

The content comes from `extract.py` or `imported.py`; for reading see `embeddings_reader.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.bucket_embeddings import EmbeddingsPath
from fmaudit_core.storage.duckdb_memory import CONFIG

Float32Array = npt.NDArray[np.float32]


class Sink(Protocol):
    """What takes the rows of embeddings."""

    def add(self, table: str, rows: pa.Table) -> None:
        """Add rows with the columns of a table, in order."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """Add what is added inside this context at once, where that saves work."""
        ...


class EmbeddingsWriter:
    """A writer that fills one file of embeddings in blocks of studies, and counts what it has written."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._studies: dict[str, int] = {}
        self.n_slices = self.n_failed = 0
        self.first_failure = ""

    @property
    def n_studies(self) -> int:
        """Return the number of studies with an embedding."""
        return max(self._studies.values(), default=0)

    def together(self) -> AbstractContextManager[None]:
        """Add what is added inside this context at once."""
        return self._sink.together()

    def add_studies(self, pooling: str, study_ids: Sequence[str], embeddings: Float32Array) -> None:
        """Add study embeddings, (studies, d), under one pooling."""
        if study_ids:
            self._append("study_embeddings", study_ids, pa.array([pooling] * len(study_ids)), embeddings)
            self._studies[pooling] = self._studies.get(pooling, 0) + len(study_ids)

    def add_slices(self, study_ids: Sequence[str], counts: Sequence[int], embeddings: Float32Array) -> None:
        """Add slice embeddings, (sum of counts, d), each study's from the feet upwards."""
        if not len(embeddings):
            return
        of_slice = np.repeat(np.array(study_ids, dtype=object), counts).tolist()
        index = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
        self._append("slice_embeddings", of_slice, pa.array(index), embeddings)
        self.n_slices += len(embeddings)

    def add_failed(self, study_ids: Sequence[str], reasons: Sequence[str]) -> None:
        """Add studies without an embedding, with the reasons."""
        if study_ids:
            self._sink.add("failed_studies", _texts(study_id=study_ids, reason=reasons))
            self.first_failure = self.first_failure or reasons[0]
            self.n_failed += len(study_ids)

    def tell(self, provenance: Mapping[str, str]) -> None:
        """Write the provenance of the embeddings, and the counts."""
        counts = {"n_studies": self.n_studies, "n_slices": self.n_slices, "n_failed": self.n_failed}
        recorded = dict(provenance) | {key: str(value) for key, value in counts.items()}
        keys = sorted(recorded)
        self._sink.add("provenance", _texts(key=keys, value=[recorded[key] for key in keys]))

    def _append(self, table: str, ids: Sequence[str], second: pa.Array, matrix: Float32Array) -> None:
        flat = np.ascontiguousarray(matrix, dtype=np.float32).reshape(-1)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat), matrix.shape[1])
        self._sink.add(
            table, pa.table({"study_id": pa.array(ids, pa.string()), "second": second, "embedding": vectors})
        )


@dataclass(frozen=True)
class _File:
    """A sink that is a DuckDB file."""

    connection: duckdb.DuckDBPyConnection

    def add(self, table: str, rows: pa.Table) -> None:
        self.connection.register("batch", rows)
        self.connection.execute(f"INSERT INTO {table} SELECT * FROM batch")
        self.connection.unregister("batch")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Use one transaction: each takes milliseconds of the disk."""
        self.connection.begin()
        yield
        self.connection.commit()


@contextmanager
def written_embeddings(out: EmbeddingsPath, dim: int) -> Iterator[EmbeddingsWriter]:
    """Yield a writer of a temporary file next to `out`; on success it is renamed to `out`, otherwise nothing appears.

    In a bucket, it writes new objects, which are published together. The tables are
    `study_embeddings(study_id, pooling, embedding)`, `slice_embeddings(study_id, slice_index, embedding)` (empty if an encoder
    has none), `failed_studies(study_id, reason)` and `provenance(key, value)`.
    """
    if not isinstance(out, Path):
        with out.written(dim) as objects:
            yield EmbeddingsWriter(objects)
        return
    with written_beside(out) as temporary, duckdb.connect(str(temporary), config=CONFIG) as connection:
        vector = f"FLOAT[{dim}]"
        connection.execute(f"CREATE TABLE study_embeddings(study_id VARCHAR, pooling VARCHAR, embedding {vector})")
        connection.execute(f"CREATE TABLE slice_embeddings(study_id VARCHAR, slice_index INTEGER, embedding {vector})")
        connection.execute("CREATE TABLE failed_studies(study_id VARCHAR, reason VARCHAR)")
        connection.execute("CREATE TABLE provenance(key VARCHAR, value VARCHAR)")
        yield EmbeddingsWriter(_File(connection))


def _texts(**columns: Sequence[str]) -> pa.Table:
    return pa.table({name: pa.array(list(cells), pa.string()) for name, cells in columns.items()})

"""Reader of embeddings: one DuckDB file per encoder, or objects of a bucket, written by `embeddings_writer.py`.

Connections are short-lived: DuckDB keeps one instance per open file and process, and files are replaced by rename.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import le
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fmaudit_core.encoders.errors import EncoderError
from fmaudit_core.storage.bucket_embeddings import EmbeddingsPath
from fmaudit_core.storage.duckdb_memory import CONFIG
from fmaudit_core.storage.warehouse import unreadable

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 8_192


def read_poolings(path: EmbeddingsPath) -> list[str]:
    """Return the poolings of a file's study embeddings, sorted.

    Raises
    ------
    EncoderError
        The file is missing or not a file of embeddings.
    """
    with _opened(path) as connection:
        rows = connection.execute("SELECT DISTINCT pooling FROM study_embeddings ORDER BY pooling").fetchall()
    return [pooling for (pooling,) in rows]


def read_study_embeddings(path: EmbeddingsPath, pooling: str) -> tuple[list[str], Float32Array]:
    """Read the study embeddings of one encoder and pooling.

    Returns
    -------
    study_ids : list of str, sorted
    embeddings : (studies, d) float32

    Raises
    ------
    EncoderError
        The file is missing or not a file of embeddings, or holds nothing for that pooling.
    """
    ids: list[str] = []
    with _opened(path) as connection:
        [(n,)] = connection.execute("SELECT count(*) FROM study_embeddings WHERE pooling = ?", [pooling]).fetchall()
        embeddings = np.empty((0, 0), dtype=np.float32)
        # written in place block by block: a second copy of a million embeddings would not fit
        for some, block in _study_blocks(connection, pooling):
            if not ids:
                embeddings = np.empty((n, block.shape[1]), dtype=np.float32)
            embeddings[len(ids) : len(ids) + len(some)] = block
            ids += some
    if not ids:
        raise EncoderError(f"holds no embeddings pooled by {pooling}.", where=path.name)
    return _sorted_by_study(ids, embeddings)


class PoolingsInTurn(Mapping[str, tuple[Sequence[str], Float32Array]]):
    """Study embeddings of one encoder by pooling, read when they are asked for; only the last is held in memory.

    Parameters
    ----------
    path : EmbeddingsPath
    poolings : sequence of str
        Those that can be asked for, in this order.
    """

    def __init__(self, path: EmbeddingsPath, poolings: Sequence[str]) -> None:
        self._path, self._poolings = path, poolings
        self._held: tuple[str, tuple[list[str], Float32Array]] | None = None

    def __getitem__(self, pooling: str) -> tuple[list[str], Float32Array]:
        """Read one pooling; see `read_study_embeddings`."""
        if pooling not in self._poolings:
            raise KeyError(pooling)
        if self._held is None or self._held[0] != pooling:
            self._held = None  # before the next is read
            self._held = pooling, read_study_embeddings(self._path, pooling)
        return self._held[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._poolings)

    def __len__(self) -> int:
        return len(self._poolings)


def _study_blocks(connection: duckdb.DuckDBPyConnection, pooling: str) -> Iterator[tuple[list[str], Float32Array]]:
    """Yield study ids and embeddings of one pooling, in the order in which they were written."""
    found = connection.sql("SELECT study_id, embedding FROM study_embeddings WHERE pooling = ?", params=[pooling])
    for batch in found.to_arrow_reader(_ROWS_AT_ONCE):
        ids, vectors = batch.columns
        if len(ids):
            yield ids.to_pylist(), vectors.flatten().to_numpy().reshape(len(ids), -1)


def _sorted_by_study(ids: list[str], embeddings: Float32Array) -> tuple[list[str], Float32Array]:
    """Return both sorted by study; they usually are."""
    if all(map(le, ids, islice(ids, 1, None))):
        return ids, embeddings
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [ids[at] for at in order], embeddings[order]


def read_slice_counts(path: EmbeddingsPath) -> dict[str, int]:
    """Return the number of slice embeddings per study, sorted by study; empty if an encoder has none."""
    query = "SELECT study_id, count(*) FROM slice_embeddings GROUP BY study_id ORDER BY study_id"
    with _opened(path) as connection:
        return dict(connection.execute(query).fetchall())


def stream_slice_embeddings(
    path: EmbeddingsPath, rows: int = _ROWS_AT_ONCE
) -> Iterator[tuple[pa.Array, IntArray, Float32Array]]:
    """Yield all slice embeddings in blocks and in no guaranteed order; memory does not grow with their number.

    Returns
    -------
    Iterator of study ids (a dictionary array), their slices' indices from the feet upwards (k,), and embeddings (k, d) float32
    """
    with _opened(path) as connection:
        found = connection.sql("SELECT study_id, slice_index, embedding FROM slice_embeddings")
        for batch in found.to_arrow_reader(rows):
            ids, index, vectors = batch.columns
            flat = vectors.flatten().to_numpy()
            yield ids.dictionary_encode(), index.to_numpy().astype(np.int64), flat.reshape(len(ids), -1)


def read_slice_embeddings(path: EmbeddingsPath, studies: Sequence[str]) -> dict[str, Float32Array]:
    """Return the slice embeddings of some studies, (slices, d) float32 from the feet upwards, by study."""
    query = "SELECT study_id, embedding FROM slice_embeddings WHERE study_id IN (SELECT unnest(?)) ORDER BY study_id, slice_index"
    rows: dict[str, list[npt.NDArray[np.float32]]] = {}
    with _opened(path) as connection:
        for study_id, embedding in connection.execute(query, [list(studies)]).fetchall():
            rows.setdefault(study_id, []).append(np.asarray(embedding, dtype=np.float32))
    return {study_id: np.stack(found) for study_id, found in rows.items()}


def read_study_ids(path: EmbeddingsPath) -> list[str]:
    """Return the studies that have an embedding, sorted.

    Raises
    ------
    EncoderError
        The file is missing or not a file of embeddings.
    """
    with _opened(path) as connection:
        rows = connection.execute("SELECT DISTINCT study_id FROM study_embeddings ORDER BY study_id").fetchall()
    return [study_id for (study_id,) in rows]


def check_embeddings(path: EmbeddingsPath, *, dim: int, studies: Sequence[str]) -> None:
    """Check the guarantees of a published file.

    Parameters
    ----------
    dim : int
        The spec's dimension.
    studies : sequence of str
        Studies that can have an embedding: each must have a vector per pooling, or be recorded as failed.

    Raises
    ------
    EncoderError
        The file holds no study, a vector has another dimension or is not finite, or a study is neither embedded nor recorded as
        failed.
    """
    with _opened(path) as connection:
        failed = {study_id for (study_id,) in connection.execute("SELECT study_id FROM failed_studies").fetchall()}
    poolings = read_poolings(path)
    if not poolings:
        raise EncoderError("has no studies.", where=path.name)
    for pooling in poolings:
        lost = set(studies) - failed
        with _opened(path) as connection:
            for ids, block in _study_blocks(connection, pooling):
                _check_block(block, dim, path)
                lost.difference_update(ids)
        if lost:
            raise EncoderError(f"{len(lost)} usable studies have no vector pooled by {pooling}.", where=path.name)


def _check_block(block: Float32Array, dim: int, path: EmbeddingsPath) -> None:
    if block.shape[1] != dim:
        raise EncoderError(
            f"the vectors have {block.shape[1]} dimensions, but the spec has dim {dim}.", where=path.name
        )
    if not np.isfinite(block).all():
        raise EncoderError("a vector holds NaN or infinite values.", where=path.name)


def read_provenance(path: EmbeddingsPath) -> dict[str, str]:
    """Return the provenance of the embeddings: version, weights, spec, view, counts, libraries.

    Raises
    ------
    EncoderError
        The file is missing or not a file of embeddings.
    """
    with _opened(path) as connection:
        return dict(connection.execute("SELECT key, value FROM provenance ORDER BY key").fetchall())


@contextmanager
def _opened(path: EmbeddingsPath) -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        with _file(path) if isinstance(path, Path) else path.opened() as connection:
            yield connection
    except FileNotFoundError:
        raise EncoderError(
            "does not exist yet.", where=path.name, fix="Materialise study_embeddings, or run `fmaudit run`."
        ) from None
    except duckdb.Error as error:
        raise EncoderError(
            f"is not a readable file of embeddings ({str(error).splitlines()[0]}).",
            where=path.name,
            fix="Delete it and run `fmaudit run` again.",
        ) from error


@contextmanager
def _file(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        with path.open("rb") as file:
            file.read(1)  # DuckDB reports a file that it may not read like one that is torn
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    with duckdb.connect(str(path), read_only=True, config=CONFIG) as connection:
        yield connection

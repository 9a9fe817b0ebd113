"""Reader of embeddings: one DuckDB file per encoder, or objects of a bucket, written by `embeddings_writer.py`.

Connections are short-lived: DuckDB keeps one instance per open file and process, and files are replaced by rename.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fmaudit_core.encoders.errors import EncoderError
from fmaudit_core.storage.bucket_embeddings import EmbeddingsPath
from fmaudit_core.storage.warehouse import unreadable

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


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
    query = "SELECT study_id, embedding FROM study_embeddings WHERE pooling = ? ORDER BY study_id"
    ids, embeddings = _rows(path, query, [pooling])
    if not ids:
        raise EncoderError(f"holds no embeddings pooled by {pooling}.", where=path.name)
    return ids, embeddings


def read_slice_counts(path: EmbeddingsPath) -> dict[str, int]:
    """Return the number of slice embeddings per study, sorted by study; empty if an encoder has none."""
    query = "SELECT study_id, count(*) FROM slice_embeddings GROUP BY study_id ORDER BY study_id"
    with _opened(path) as connection:
        return dict(connection.execute(query).fetchall())


def stream_slice_embeddings(
    path: EmbeddingsPath, rows: int = 8_192
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
        ids, embeddings = read_study_embeddings(path, pooling)
        if embeddings.shape[1] != dim:
            raise EncoderError(
                f"the vectors have {embeddings.shape[1]} dimensions, but the spec has dim {dim}.", where=path.name
            )
        if not np.isfinite(embeddings).all():
            raise EncoderError("a vector holds NaN or infinite values.", where=path.name)
        lost = set(studies) - set(ids) - failed
        if lost:
            raise EncoderError(f"{len(lost)} usable studies have no vector pooled by {pooling}.", where=path.name)


def read_provenance(path: EmbeddingsPath) -> dict[str, str]:
    """Return the provenance of the embeddings: version, weights, spec, view, counts, libraries.

    Raises
    ------
    EncoderError
        The file is missing or not a file of embeddings.
    """
    with _opened(path) as connection:
        return dict(connection.execute("SELECT key, value FROM provenance ORDER BY key").fetchall())


def _rows(path: EmbeddingsPath, query: str, values: list[str]) -> tuple[list[str], Float32Array]:
    with _opened(path) as connection:
        table = connection.sql(query, params=values).to_arrow_table().combine_chunks()
    if table.num_rows == 0:
        return [], np.empty((0, 0), dtype=np.float32)
    flat = table.column("embedding").chunk(0).flatten().to_numpy()
    return table.column("study_id").to_pylist(), flat.reshape(table.num_rows, -1)


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
    with duckdb.connect(str(path), read_only=True) as connection:
        yield connection

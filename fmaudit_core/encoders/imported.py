"""Embeddings computed elsewhere: study id -> vector, read from one file, checked and published like any others.

Layouts, recognised by the suffix:

- Parquet (`.parquet`): a column of ids and a column of lists of numbers.
- NPZ (`.npz`) and HDF5 (`.h5`, `.hdf5`): an array of ids, (n,), and an array of vectors, (n, d); or one array per study, (d,),
  named by its id.

The spec names the columns and arrays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fmaudit_core.common.errors import MissingExtraError, needs_extra
from fmaudit_core.encoders.checksums import sha256_of
from fmaudit_core.encoders.embeddings_writer import written_embeddings
from fmaudit_core.encoders.errors import ImportedFileError, SpecError
from fmaudit_core.encoders.extract import ExtractionResult, provenance
from fmaudit_core.encoders.spec import EncoderSpec, ImportedFile
from fmaudit_core.storage.bucket_embeddings import EmbeddingsPath

Float32Array = npt.NDArray[np.float32]

NOT_IN_FILE: Final = "not in the imported file"
_ROWS_AT_ONCE: Final = 4096


def import_embeddings(
    spec: EncoderSpec, *, studies: Sequence[str], out: EmbeddingsPath, version: str
) -> ExtractionResult:
    """Publish the embeddings of the cohort's studies from a spec's file.

    Parameters
    ----------
    studies : sequence of str
        The cohort's studies. Those that are not in the file are recorded in `failed_studies`; rows of other studies are counted
        in `provenance` and left out.
    out : EmbeddingsPath
        The DuckDB file, replaced in one rename, or its place in a bucket; see `extract.extract`. It holds no slice embeddings.

    Raises
    ------
    ImportedFileError
        The file is missing, has another checksum, cannot be read, holds a study twice, vectors of another dimension or that are
        not finite, or no study of the cohort; then nothing is published.
    """
    started, file = time.monotonic(), _file(spec)
    ids, matrix = read_imported(spec)
    wanted = sorted(set(studies))
    row_of = {study_id: row for row, study_id in enumerate(ids)}
    found = [study_id for study_id in wanted if study_id in row_of]
    missing = [study_id for study_id in wanted if study_id not in row_of]
    if not found:
        raise ImportedFileError(
            f"none of its {len(ids)} studies is among the cohort's {len(wanted)} studies.",
            where=str(file.path),
            fix="Write the ids exactly as in the cohort's study_id.",
        )
    with written_embeddings(out, spec.dim) as writer:
        for start in range(0, len(found), _ROWS_AT_ONCE):
            some = found[start : start + _ROWS_AT_ONCE]
            writer.add_studies(file.pooling, some, matrix[[row_of[one] for one in some]])
        writer.add_failed(missing, [NOT_IN_FILE] * len(missing))
        unknown = len(ids) - len(found)
        writer.tell(provenance(spec, version, "computed elsewhere") | {"n_unknown_studies": str(unknown)})
    speed = len(found) / max(time.monotonic() - started, 1e-9)
    return ExtractionResult(version, writer.n_studies, 0, writer.n_failed, "computed elsewhere", speed)


def read_imported(spec: EncoderSpec) -> tuple[list[str], Float32Array]:
    """Read and check a spec's file of embeddings.

    Returns
    -------
    study_ids : list of str, as written in the file
    embeddings : (studies, dim) float32

    Raises
    ------
    SpecError
        The spec names no file.
    ImportedFileError
        See `import_embeddings`.
    MissingExtraError
        HDF5 without the extra that reads it.
    """
    return read_vectors(_file(spec), spec.dim)


def read_vectors(file: ImportedFile, dim: int | None = None) -> tuple[list[str], Float32Array]:
    """Read and check a file of embeddings, of any length if `dim` is not given; see `read_imported`."""
    where = str(file.path)
    reader = _READERS.get(file.path.suffix.lower())
    if reader is None:
        raise ImportedFileError(f"has an unsupported suffix; the formats are {', '.join(_READERS)}.", where=where)
    if (sha256 := sha256_of(file.located())) != file.sha256:
        raise ImportedFileError(
            f"is not the file named in the spec: its sha256 is {sha256}, not {file.sha256}.",
            where=where,
            fix="Get the right file, or correct the spec if the embeddings changed on purpose.",
        )
    try:
        ids, vectors = reader(file)
    except (ImportedFileError, MissingExtraError):
        raise
    except Exception as error:  # each format's library has its own errors for a damaged file
        message = (str(error).splitlines() or [""])[0][:160]
        raise ImportedFileError(f"cannot be read ({type(error).__name__}: {message}).", where=where) from error
    _check(ids, vectors, dim, where)
    return ids, vectors.astype(np.float32, copy=False)


def _file(spec: EncoderSpec) -> ImportedFile:
    if spec.embeddings is None:
        raise SpecError("it does not name a file of embeddings.", where=spec.name)
    return spec.embeddings


def _check(ids: Sequence[str], vectors: npt.NDArray[Any], dim: int | None, where: str) -> None:
    """Check ids and vectors; messages give row numbers, never study ids."""
    if not len(ids):
        raise ImportedFileError("has no studies.", where=where)
    if vectors.dtype.kind not in "fiu":
        raise ImportedFileError("its vectors are not numbers.", where=where)
    if vectors.ndim != 2 or vectors.shape[1] != (dim or vectors.shape[1]):
        shape = " x ".join(map(str, vectors.shape))
        needed = "" if dim is None else f", but the spec needs {len(ids)} x {dim}"
        raise ImportedFileError(f"its vectors have shape {shape}{needed}.", where=where)
    if len(ids) != len(vectors):
        raise ImportedFileError(f"it has {len(ids)} ids and {len(vectors)} vectors.", where=where)
    blank = [row for row, one in enumerate(ids, start=1) if not one]
    if blank:
        raise ImportedFileError(f"{_rows(blank)} without a study id.", where=where)
    first: dict[str, int] = {}
    twice = [row for row, one in enumerate(ids, start=1) if first.setdefault(one, row) != row]
    if twice:
        raise ImportedFileError(f"{_rows(twice)} of a study that is listed before.", where=where)
    with np.errstate(over="ignore"):  # values beyond the range of float32 become infinite
        blocks = (vectors[at : at + _ROWS_AT_ONCE] for at in range(0, len(vectors), _ROWS_AT_ONCE))
        finite = np.concatenate([np.isfinite(block.astype(np.float32)).all(axis=1) for block in blocks])
    if not finite.all():
        bad = (np.flatnonzero(~finite) + 1).tolist()
        raise ImportedFileError(f"{_rows(bad)} with NaN, infinite or missing values.", where=where)


def _rows(rows: Sequence[int]) -> str:
    shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    return f"{len(rows)} rows (number {shown})"


def _parquet(file: ImportedFile) -> tuple[list[str], npt.NDArray[Any]]:
    """Read block by block: a list of vectors in memory would take several times their size."""
    import pyarrow.parquet as pq  # of this format only

    content, where = pq.ParquetFile(file.path), str(file.path)
    for column in (file.study_id, file.embedding):
        if column not in content.schema_arrow.names:
            raise ImportedFileError(f"has no column {column}.", where=where, fix=_NAMES)
    kind = content.schema_arrow.field(file.embedding).type
    if not _is_list(kind):
        raise ImportedFileError(f"its column {file.embedding} does not hold lists of numbers.", where=where)
    if not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise ImportedFileError("its vectors are not numbers.", where=where)
    ids: list[str] = []
    vectors = np.empty((0, 0), dtype=np.float32)
    for batch in content.iter_batches(_ROWS_AT_ONCE, columns=[file.study_id, file.embedding]):
        block = _block(batch.column(file.embedding))
        if block is None or (ids and block.shape[1] != vectors.shape[1]):
            raise ImportedFileError("its vectors have different lengths, or some are missing.", where=where)
        if not ids:
            vectors = np.empty((content.metadata.num_rows, block.shape[1]), dtype=np.float32)
        vectors[len(ids) : len(ids) + len(block)] = block
        ids += ["" if one is None else one for one in batch.column(file.study_id).cast(pa.string()).to_pylist()]
    return ids, vectors


def _is_list(kind: pa.DataType) -> bool:
    found: bool = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return found


def _block(column: pa.Array) -> npt.NDArray[np.float32] | None:
    """Return lists of numbers as rows, NaN for a missing number; None if a list is missing or they differ in length."""
    lengths = pc.list_value_length(column).unique().to_pylist()
    if len(lengths) != 1 or lengths[0] is None:
        return None
    with np.errstate(over="ignore"):  # values beyond the range of float32 become infinite
        flat = pc.fill_null(column.flatten().cast(pa.float64()), float("nan")).to_numpy()
        block: npt.NDArray[np.float32] = flat.astype(np.float32).reshape(len(column), -1)
    return block


def _npz(file: ImportedFile) -> tuple[list[str], npt.NDArray[Any]]:
    with np.load(file.path, allow_pickle=False) as arrays:
        return _from_arrays(file, {name: arrays[name] for name in arrays.files})


def _hdf5(file: ImportedFile) -> tuple[list[str], npt.NDArray[Any]]:
    with needs_extra("hdf5", "an HDF5 file of embeddings"):
        import h5py
    with h5py.File(file.path, "r") as arrays:
        return _from_arrays(file, {name: one[()] for name, one in arrays.items() if isinstance(one, h5py.Dataset)})


def _from_arrays(file: ImportedFile, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[list[str], npt.NDArray[Any]]:
    """Return ids and vectors from an array of ids and one of vectors, or from one array per study."""
    if (file.study_id in arrays) != (file.embedding in arrays):
        lacking = file.embedding if file.study_id in arrays else file.study_id
        raise ImportedFileError(f"has no array {lacking}.", where=str(file.path), fix=_NAMES)
    if file.study_id in arrays:
        ids = [one.decode() if isinstance(one, bytes) else str(one) for one in arrays[file.study_id].tolist()]
        return ids, arrays[file.embedding]
    if len({one.shape for one in arrays.values()}) > 1:
        raise ImportedFileError("its vectors have different lengths.", where=str(file.path))
    return list(arrays), np.stack(list(arrays.values())) if arrays else np.empty((0, 0))


_NAMES: Final = "Name the ids and the vectors of the file: `embeddings: {study_id: ..., embedding: ...}` in the spec."
_READERS: Final[Mapping[str, Callable[[ImportedFile], tuple[list[str], npt.NDArray[Any]]]]] = {
    ".parquet": _parquet,
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}

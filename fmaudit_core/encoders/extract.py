"""Slices -> embeddings: read ahead, batch across series, pool, resume after a kill, publish by rename.

Work is kept in shards of whole studies, each written by rename under a folder named by the version that is being
made. A run that was killed takes up at the first missing shard; batches never cross shards, so it makes the very
same rows.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from itertools import pairwise
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Final, Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

import fmaudit_core
from fmaudit_core.config import ExtractionSection
from fmaudit_core.encoders.adapter import Encoder, load_encoder
from fmaudit_core.encoders.errors import ExtractionError
from fmaudit_core.encoders.pooling import POOLINGS, pooled
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.errors import SliceStoreError
from fmaudit_core.imaging.window import SliceArray, View
from fmaudit_core.progress import Progress, silent
from fmaudit_core.publish import written_beside

Float32Array = npt.NDArray[np.float32]

#: a shard ends with the study that brings it to this many slices: what a kill can cost
SHARD_SLICES: Final = 512
_STUDIES_AHEAD: Final = 4
_LIBRARIES: Final = ("numpy", "torch", "timm", "open_clip_torch")


class SliceSource(Protocol):
    """Where slices come from; `imaging.slices.SliceStore` is one."""

    def read(self, study_id: str, view: View) -> SliceArray:
        """Slices of one study: (slices, channels, rows, columns)."""
        ...


@dataclass(frozen=True)
class ExtractionResult:
    """What an extraction published."""

    version: str
    n_studies: int
    n_slices: int
    n_failed: int
    device: str
    slices_per_second: float


@dataclass
class _Shard:
    """Studies embedded together: their slice embeddings one below the other."""

    study_ids: list[str]
    counts: list[int]
    embeddings: Float32Array
    failed_ids: list[str]
    failed_reasons: list[str]
    #: how many studies of the run are done once this shard is
    end: int


def extract(
    spec: EncoderSpec,
    *,
    store: SliceSource,
    studies: Sequence[str],
    work: Path,
    out: Path,
    section: ExtractionSection,
    version: str,
    progress: Progress = silent,
) -> ExtractionResult:
    """Embed studies with one encoder and publish its DuckDB file.

    Parameters
    ----------
    spec : EncoderSpec
    store : SliceSource
    studies : sequence of str
        Study ids, in any order; they are embedded in sorted order.
    work : Path
        Folder for unfinished shards.
    out : Path
        The DuckDB file, replaced in one rename: tables `study_embeddings(study_id, pooling, embedding)`,
        `slice_embeddings(study_id, slice_index, embedding)`, `failed_studies(study_id, reason)` and
        `provenance(key, value)`.
    section : ExtractionSection
        Device and batch size.
    version : str
        What the embeddings are made of; kept in `provenance`.

    Raises
    ------
    EncoderError
        The encoder cannot be loaded, or gives non-finite values or another dimension; then nothing is published.
    """
    if not studies:
        raise ExtractionError("there is no study with slices to embed.", where=spec.name)
    ordered, folder = sorted(studies), work / spec.name / version
    shards = _finished_shards(folder)
    done = _load_shard(shards[-1]).end if shards else 0
    progress(done, len(ordered))
    started, encoded, device = time.monotonic(), 0, "none: resumed whole"
    if done < len(ordered):
        encoder = load_encoder(spec, section.device)
        device, batch = encoder.device, section.batch_size or spec.batch_size
        for shard in _encoded_shards(encoder, spec, store, ordered, done, batch):
            path = folder / f"shard-{len(shards):06d}.npz"
            _save_shard(path, shard)
            shards.append(path)
            encoded += len(shard.embeddings)
            progress(shard.end, len(ordered))
    seconds = time.monotonic() - started
    n_studies, n_slices, n_failed = _publish(out, shards, spec, version, device)
    shutil.rmtree(work / spec.name, ignore_errors=True)
    return ExtractionResult(version, n_studies, n_slices, n_failed, device, encoded / max(seconds, 1e-9))


def _encoded_shards(
    encoder: Encoder, spec: EncoderSpec, store: SliceSource, studies: Sequence[str], start: int, batch: int
) -> Iterator[_Shard]:
    ids: list[str] = []
    slices: list[SliceArray] = []
    failed: list[tuple[str, str]] = []
    for index, (study_id, found) in enumerate(_read_ahead(store, spec.view, studies[start:]), start=start + 1):
        if isinstance(found, SliceStoreError):
            failed.append((study_id, found.what))
        else:
            ids.append(study_id)
            slices.append(found)
        if sum(map(len, slices)) >= SHARD_SLICES or index == len(studies):
            embeddings = _checked(_in_batches(encoder, slices, batch), spec)
            counts = [len(one) for one in slices]
            yield _Shard(ids, counts, embeddings, [one for one, _ in failed], [why for _, why in failed], index)
            ids, slices, failed = [], [], []


def _read_ahead(
    store: SliceSource, view: View, studies: Sequence[str]
) -> Iterator[tuple[str, SliceArray | SliceStoreError]]:
    """Read studies in a thread of its own, a few ahead of the encoder."""
    waiting: Queue[tuple[str, SliceArray | BaseException] | None] = Queue(_STUDIES_AHEAD)
    stopped = Event()

    def read_all() -> None:
        for study_id in studies:
            if stopped.is_set():
                return
            try:
                waiting.put((study_id, store.read(study_id, view)))
            except BaseException as error:  # told to the consumer, which decides
                waiting.put((study_id, error))
        waiting.put(None)

    reader = Thread(target=read_all, name="slice reader", daemon=True)
    reader.start()
    try:
        while (item := waiting.get()) is not None:
            study_id, found = item
            if isinstance(found, BaseException) and not isinstance(found, SliceStoreError):
                raise found
            yield study_id, found
    finally:
        stopped.set()
        while reader.is_alive():
            while not waiting.empty():
                waiting.get_nowait()
            reader.join(timeout=0.05)


def _in_batches(encoder: Encoder, slices: Sequence[SliceArray], batch: int) -> Float32Array:
    """Embeddings of all slices in order, encoded `batch` at a time wherever neighbours have one shape."""
    out: list[Float32Array] = []
    at = 0
    while at < len(slices):
        end = at + 1
        while end < len(slices) and slices[end].shape[1:] == slices[at].shape[1:]:
            end += 1
        together: SliceArray = slices[at] if end == at + 1 else np.concatenate(slices[at:end])  # type: ignore[assignment]  # one value type per view
        out += [encoder.encode(together[start : start + batch]) for start in range(0, len(together), batch)]
        at = end
    return np.concatenate(out) if out else np.empty((0, 0), dtype=np.float32)


def _checked(embeddings: Float32Array, spec: EncoderSpec) -> Float32Array:
    if not len(embeddings):
        return np.empty((0, spec.dim), dtype=np.float32)
    if embeddings.shape[1] != spec.dim:
        raise ExtractionError(
            f"the encoder gives {embeddings.shape[1]} dimensions, its spec says {spec.dim}.", where=spec.name
        )
    if not np.isfinite(embeddings).all():
        raise ExtractionError("the encoder gives NaN or infinite values; nothing was published.", where=spec.name)
    return embeddings.astype(np.float32, copy=False)


def _finished_shards(folder: Path) -> list[Path]:
    """Whole shards from the first on, without a hole."""
    found: list[Path] = []
    while (path := folder / f"shard-{len(found):06d}.npz").exists():
        found.append(path)
    return found


def _save_shard(path: Path, shard: _Shard) -> None:
    with written_beside(path) as beside, beside.open("wb") as file:
        np.savez(
            file,
            study_ids=np.array(shard.study_ids, dtype=np.str_),
            counts=np.array(shard.counts, dtype=np.int64),
            embeddings=shard.embeddings,
            failed_ids=np.array(shard.failed_ids, dtype=np.str_),
            failed_reasons=np.array(shard.failed_reasons, dtype=np.str_),
            end=np.array(shard.end),
        )


def _load_shard(path: Path) -> _Shard:
    with np.load(path, allow_pickle=False) as found:
        return _Shard(
            study_ids=found["study_ids"].tolist(),
            counts=found["counts"].tolist(),
            embeddings=found["embeddings"],
            failed_ids=found["failed_ids"].tolist(),
            failed_reasons=found["failed_reasons"].tolist(),
            end=int(found["end"]),
        )


def _publish(out: Path, shards: Sequence[Path], spec: EncoderSpec, made_of: str, device: str) -> tuple[int, int, int]:
    """Stream the shards into a DuckDB file beside `out`, then rename it."""
    n_studies = n_slices = n_failed = 0
    with written_beside(out) as beside, duckdb.connect(str(beside)) as connection:
        vector = f"FLOAT[{spec.dim}]"
        connection.execute(f"CREATE TABLE study_embeddings(study_id VARCHAR, pooling VARCHAR, embedding {vector})")
        connection.execute(f"CREATE TABLE slice_embeddings(study_id VARCHAR, slice_index INTEGER, embedding {vector})")
        connection.execute("CREATE TABLE failed_studies(study_id VARCHAR, reason VARCHAR)")
        connection.execute("CREATE TABLE provenance(key VARCHAR, value VARCHAR)")
        for path in shards:
            shard = _load_shard(path)
            _insert(connection, shard)
            n_studies += len(shard.study_ids)
            n_slices += len(shard.embeddings)
            n_failed += len(shard.failed_ids)
        if not n_studies:
            raise ExtractionError("no study could be embedded; nothing was published.", where=spec.name)
        counts = {"n_studies": n_studies, "n_slices": n_slices, "n_failed": n_failed}
        told = _provenance(spec, made_of, device) | {key: str(value) for key, value in counts.items()}
        connection.executemany("INSERT INTO provenance VALUES (?, ?)", sorted(told.items()))
    return n_studies, n_slices, n_failed


def _insert(connection: duckdb.DuckDBPyConnection, shard: _Shard) -> None:
    ends = np.cumsum([0, *shard.counts])
    spans = list(pairwise(ends))
    for pooling in POOLINGS:
        if spans:
            matrix = np.stack([pooled(shard.embeddings[start:end], pooling) for start, end in spans])
            _append(connection, "study_embeddings", shard.study_ids, pa.array([pooling] * len(spans)), matrix)
    of_slice = np.repeat(np.array(shard.study_ids, dtype=object), shard.counts).tolist()
    index = np.concatenate([np.arange(count, dtype=np.int32) for count in shard.counts] or [np.empty(0, np.int32)])
    if len(index):
        _append(connection, "slice_embeddings", of_slice, pa.array(index), shard.embeddings)
    if shard.failed_ids:
        rows = list(zip(shard.failed_ids, shard.failed_reasons, strict=True))
        connection.executemany("INSERT INTO failed_studies VALUES (?, ?)", rows)


def _append(
    connection: duckdb.DuckDBPyConnection, table: str, ids: list[str], second: pa.Array, matrix: Float32Array
) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
    batch = pa.table({"study_id": pa.array(ids, pa.string()), "second": second, "embedding": vectors})
    connection.register("batch", batch)
    connection.execute(f"INSERT INTO {table} SELECT * FROM batch")
    connection.unregister("batch")


def _provenance(spec: EncoderSpec, made_of: str, device: str) -> dict[str, str]:
    told = {
        "version": made_of,
        "encoder": spec.name,
        "spec": json.dumps(spec.model_dump(mode="json", exclude={"weights": {"path"}}), sort_keys=True),
        "spec_digest": spec.digest(),
        "weights_sha256": spec.weights.sha256 if spec.weights else "",
        "view": spec.view.key(),
        "fmaudit": fmaudit_core.__version__,
        "python": platform.python_version(),
        "device": device,
        "cpus": str(os.cpu_count()),
    }
    for library in _LIBRARIES:
        try:
            told[library] = installed_version(library)
        except PackageNotFoundError:
            continue
    return told

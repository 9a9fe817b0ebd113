"""Extraction of embeddings from slices: read ahead, batch across studies, pool, resume after a kill, publish by rename.

Work is kept in shards of whole studies (`shards.py`) in a folder named by the version being extracted. A run that was killed
resumes at the first missing shard; batches never cross shards, so the resumed run produces identical rows. Forward passes:
`forward.py`. The published file: `embeddings_writer.py`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

import fmaudit_core
from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.config import ExtractionSection
from fmaudit_core.encoders.adapter import Encoder, load_encoder
from fmaudit_core.encoders.embeddings_writer import EmbeddingsWriter, written_embeddings
from fmaudit_core.encoders.errors import ExtractionError
from fmaudit_core.encoders.forward import Forward
from fmaudit_core.encoders.pooling import POOLINGS, VOLUME, pooled
from fmaudit_core.encoders.shards import Shard, finished_shards, load_shard, save_shard, shard_path
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.errors import SliceStoreError
from fmaudit_core.imaging.window import SliceArray, View
from fmaudit_core.storage.bucket_embeddings import EmbeddingsPath

Float32Array = npt.NDArray[np.float32]

#: a shard ends with the study that reaches this many slices or volumes; a kill loses at most this much work
SHARD_SLICES: Final = 512
SHARD_VOLUMES: Final = 16
_STUDIES_AHEAD: Final = 4
#: on a CPU the cores are needed by the network
_READERS: Final = {"cpu": 1, "cuda": 4}
_LIBRARIES: Final = ("numpy", "torch", "torchvision", "timm", "open_clip_torch", "transformers", "onnxruntime")


class SliceSource(Protocol):
    """A source of slices, such as `imaging.slices.SliceStore`."""

    def read(self, study_id: str, view: View) -> SliceArray:
        """Return the slices of one study, (slices, channels, rows, columns)."""
        ...


@dataclass(frozen=True)
class ExtractionResult:
    """The result of a published extraction."""

    version: str
    n_studies: int
    n_slices: int
    n_failed: int
    device: str
    slices_per_second: float
    #: batch size in slices, or volumes; several, joined by ">", if memory ran out and it was halved
    batch_size: str = ""


def extract(
    spec: EncoderSpec,
    *,
    store: SliceSource,
    studies: Sequence[str],
    work: Path,
    out: EmbeddingsPath,
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
        Folder for the shards of an unfinished extraction.
    out : EmbeddingsPath
        The DuckDB file, replaced in one rename, or its place in a bucket: tables
        `study_embeddings(study_id, pooling, embedding)`, `slice_embeddings(study_id, slice_index, embedding)`,
        `failed_studies(study_id, reason)` and `provenance(key, value)`.
    section : ExtractionSection
        Device and batch size.
    version : str
        Version digest of the embeddings' inputs; recorded in `provenance`.

    Raises
    ------
    EncoderError
        The encoder cannot be loaded, its output differs from the spec's dimension, or it fails on every study; then nothing
        is published. A single study that cannot be read or encoded, or whose embedding is not finite, is recorded in
        `failed_studies`.
    """
    if not studies:
        raise ExtractionError("no study has slices to embed.", where=spec.name)
    ordered, folder = sorted(studies), work / spec.name / version
    shards = finished_shards(folder)
    done = load_shard(shards[-1]).end if shards else 0
    progress(done, len(ordered))
    started, encoded, device = time.monotonic(), 0, "none: resumed whole"
    if done < len(ordered):
        encoder = load_encoder(spec, section.device)
        device, batch = encoder.device, section.batch_size or spec.batch_size
        with closing(_encoded_shards(encoder, spec, store, ordered, done, batch)) as made:
            for shard in made:
                path = shard_path(folder, len(shards))
                save_shard(path, shard)
                shards.append(path)
                encoded += len(shard.embeddings)
                progress(shard.end, len(ordered))
    seconds = time.monotonic() - started
    result = _publish(out, shards, spec, version, device, encoded / max(seconds, 1e-9))
    shutil.rmtree(work / spec.name, ignore_errors=True)
    return result


def _encoded_shards(
    encoder: Encoder, spec: EncoderSpec, store: SliceSource, studies: Sequence[str], start: int, batch: int
) -> Generator[Shard, None, None]:
    of_volumes = spec.view.volume is not None
    full = SHARD_VOLUMES if of_volumes else SHARD_SLICES
    readers = _READERS["cuda" if encoder.device.startswith("cuda") else "cpu"]
    forward = Forward(encoder, spec, batch)
    unread: list[tuple[str, str]] = []
    read, batches = 0, [forward.batch]
    try:
        with closing(_read_ahead(store, spec.view, studies[start:], readers)) as ahead:
            for index, (study_id, found) in enumerate(ahead, start=start + 1):
                if isinstance(found, SliceStoreError):
                    unread.append((study_id, found.what))
                else:
                    items: SliceArray = found[None] if of_volumes else found
                    forward.add(study_id, items)
                    read += len(items)
                if forward.batch != batches[-1]:
                    batches.append(forward.batch)
                if read >= full or index == len(studies):
                    ids, embeddings, failed = forward.taken()
                    if forward.batch != batches[-1]:
                        batches.append(forward.batch)
                    rows = np.concatenate(embeddings) if embeddings else np.empty((0, spec.dim), dtype=np.float32)
                    failed = sorted(unread + failed)
                    yield Shard(
                        study_ids=ids,
                        counts=[len(one) for one in embeddings],
                        embeddings=rows,
                        failed_ids=[one for one, _ in failed],
                        failed_reasons=[why for _, why in failed],
                        batches=batches,
                        end=index,
                    )
                    unread, read, batches = [], 0, [forward.batch]
    finally:
        forward.close()


def _read_ahead(
    store: SliceSource, view: View, studies: Sequence[str], readers: int
) -> Generator[tuple[str, SliceArray | SliceStoreError], None, None]:
    """Yield studies in order, read and decoded by separate threads a few studies ahead of the encoder."""

    def read(study_id: str) -> SliceArray | SliceStoreError:
        try:
            return store.read(study_id, view)
        except SliceStoreError as error:
            return error

    waiting: deque[tuple[str, Future[SliceArray | SliceStoreError]]] = deque()
    with ThreadPoolExecutor(readers, "slice reader") as pool:
        try:
            for study_id in studies:
                waiting.append((study_id, pool.submit(read, study_id)))
                if len(waiting) > max(_STUDIES_AHEAD, readers):
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _publish(
    out: EmbeddingsPath, shards: Sequence[Path], spec: EncoderSpec, made_of: str, device: str, speed: float
) -> ExtractionResult:
    """Stream the shards into a temporary DuckDB file next to `out`, then rename it."""
    batches: list[int] = []
    with written_embeddings(out, spec.dim) as writer:
        for path in shards:
            shard = load_shard(path)
            with writer.together():
                _insert(writer, shard, of_volumes=spec.view.volume is not None)
            batches += shard.batches
        if not writer.n_studies:
            why = f" ({writer.first_failure})" if writer.first_failure else ""
            raise ExtractionError(f"no study could be embedded{why}; nothing was published.", where=spec.name)
        batch_size = " > ".join(str(size) for size, _ in groupby(batches))
        writer.tell(provenance(spec, made_of, device) | {"batch_size": batch_size})
    return ExtractionResult(
        made_of, writer.n_studies, writer.n_slices, writer.n_failed, device, speed, batch_size=batch_size
    )


def _insert(writer: EmbeddingsWriter, shard: Shard, *, of_volumes: bool) -> None:
    if of_volumes:
        writer.add_studies(VOLUME, shard.study_ids, shard.embeddings)
    elif shard.study_ids:
        spans = list(pairwise(np.cumsum([0, *shard.counts])))
        for pooling in POOLINGS:
            matrix = np.stack([pooled(shard.embeddings[start:end], pooling) for start, end in spans])
            writer.add_studies(pooling, shard.study_ids, matrix)
        writer.add_slices(shard.study_ids, shard.counts, shard.embeddings)
    writer.add_failed(shard.failed_ids, shard.failed_reasons)


def provenance(spec: EncoderSpec, made_of: str, device: str) -> dict[str, str]:
    """Return the provenance of embeddings: their inputs, the software and the device."""
    recorded = {
        "version": made_of,
        "encoder": spec.name,
        "spec": json.dumps(
            spec.model_dump(mode="json", exclude={"weights": {"path"}, "embeddings": {"path"}}), sort_keys=True
        ),
        "spec_digest": spec.digest(),
        "weights_sha256": spec.weights.sha256 if spec.weights else "",
        "embeddings_sha256": spec.embeddings.sha256 if spec.embeddings else "",
        "view": spec.view.key() if spec.sees_images else "",
        "fmaudit": fmaudit_core.__version__,
        "python": platform.python_version(),
        "device": device,
        "cpus": str(os.cpu_count()),
    }
    for library in _LIBRARIES:
        try:
            recorded[library] = installed_version(library)
        except PackageNotFoundError:
            continue
    return recorded

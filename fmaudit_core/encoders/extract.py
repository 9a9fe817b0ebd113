"""Extraction of embeddings from slices: planned in shards, made by an engine, resumed after a kill, published by rename.

Shards are kept in a folder named by the version being extracted, and what is in one depends on the list of studies alone. A
run that was killed makes the missing ones, so the rows are identical. Engines: `shard_encoder.encode_here` for one process, and
the package `engines`. The published file: `embeddings_writer.py`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

import fmaudit_core
from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.config import ComputeSection, ExtractionSection
from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.embeddings_writer import EmbeddingsWriter, written_embeddings
from fmaudit_core.encoders.errors import ExtractionError
from fmaudit_core.encoders.pooling import POOLINGS, VOLUME, pooled
from fmaudit_core.encoders.shard_encoder import Encode, Encoding, SliceSource, encode_here
from fmaudit_core.encoders.shards import PlannedShard, Shard, finished_shards, load_shard, planned_shards, shard_path
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.storage.bucket_embeddings import EmbeddingsPath

_LIBRARIES: Final = ("numpy", "torch", "torchvision", "timm", "open_clip_torch", "transformers", "onnxruntime")


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
    shard_studies: int = ComputeSection().shard_studies,
    encode: Encode = encode_here,
    also: Sequence[tuple[EncoderSpec, str]] = (),
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
    shard_studies : int
        Number of studies of a shard.
    encode : Encode
        The engine; the rows do not depend on it.
    also : sequence of (EncoderSpec, version)
        Other encoders of the same studies, whose shards are made from the same slices, for their own extraction to find.

    Raises
    ------
    EncoderError
        The encoder cannot be loaded, its output differs from the spec's dimension, or it fails on every study; then nothing
        is published. A single study that cannot be read or encoded, or whose embedding is not finite, is recorded in
        `failed_studies`.
    """
    if not studies:
        raise ExtractionError("no study has slices to embed.", where=spec.name)
    folder, shards = work / spec.name / version, planned_shards(studies, shard_studies)
    finished = finished_shards(folder)
    missing = [shard for shard in shards if shard.name not in finished]
    done = len(studies) - sum(len(shard.study_ids) for shard in missing)
    progress(done, len(studies))
    started, encoded, device = time.monotonic(), 0, ""
    if missing:
        given = section.batch_size

        def encoding_of(one: EncoderSpec, into: Path, also: tuple[Encoding, ...] = ()) -> Encoding:
            batch = given if isinstance(given, int) else one.batch_size
            return Encoding(one, store, into, section.device, batch, load_encoder, given == "auto", also)

        encoding = encoding_of(spec, folder, tuple(encoding_of(one, work / one.name / of) for one, of in also))
        with closing(encode(encoding, missing)) as making:
            for made in making:
                device, encoded, done = made.device, encoded + made.n_items, done + len(made.shard.study_ids)
                progress(done, len(studies))
    device = device or load_shard(shard_path(folder, shards[0])).device or "none: resumed whole"
    speed = encoded / max(time.monotonic() - started, 1e-9)
    result = _publish(out, folder, shards, spec, version, device, speed)
    shutil.rmtree(work / spec.name, ignore_errors=True)
    return result


def _publish(
    out: EmbeddingsPath,
    folder: Path,
    shards: Sequence[PlannedShard],
    spec: EncoderSpec,
    made_of: str,
    device: str,
    speed: float,
) -> ExtractionResult:
    """Stream the shards into a temporary DuckDB file next to `out`, then rename it."""
    batches: set[int] = set()
    with written_embeddings(out, spec.dim) as writer:
        for planned in shards:
            shard = load_shard(shard_path(folder, planned))
            with writer.together():
                _insert(writer, shard, of_volumes=not spec.has_slices)
            batches.update(shard.batches)
        if not writer.n_studies:
            shutil.rmtree(folder, ignore_errors=True)  # or the next run would find the same failures
            why = f" ({writer.first_failure})" if writer.first_failure else ""
            raise ExtractionError(f"no study could be embedded{why}; nothing was published.", where=spec.name)
        batch_size = " > ".join(map(str, sorted(batches, reverse=True)))
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
    return {
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
    } | library_versions()


def library_versions() -> dict[str, str]:
    """Return the versions of the installed libraries that embeddings may depend on."""
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = installed_version(library)
        except PackageNotFoundError:
            continue
    return found

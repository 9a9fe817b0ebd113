"""Shards of an extraction: the unit of work, of resumption, and of what engines share out.

A shard is a number of consecutive studies of the sorted list. Its name contains its place and the digest of its studies, so
every engine and every restart plan the same shards, and a shard of another list or size is never taken for one of this list.
Each is written by rename: what is there is complete, and a kill loses at most the shards in progress.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.digests import digest

Float32Array = npt.NDArray[np.float32]


@dataclass
class Shard:
    """Studies embedded together: their slice embeddings concatenated, and the studies that failed.

    Parameters
    ----------
    counts : list of int
        Slices of each study; 1 if the encoder reads whole volumes.
    embeddings : (sum of counts, d) float32
    batches : list of int
        Batch sizes used, in order: more than one if the device ran out of memory.
    device : str
        Where it was made; empty in a shard of an earlier version.
    """

    study_ids: list[str]
    counts: list[int]
    embeddings: Float32Array
    failed_ids: list[str]
    failed_reasons: list[str]
    batches: list[int]
    device: str = ""


@dataclass(frozen=True)
class PlannedShard:
    """A shard to make: its name, and the ids of its studies."""

    name: str
    study_ids: tuple[str, ...]


def planned_shards(studies: Sequence[str], size: int) -> list[PlannedShard]:
    """Return the shards of a list of studies, `size` studies each, in sorted order."""
    ordered = sorted(studies)
    parts = [tuple(ordered[start : start + size]) for start in range(0, len(ordered), size)]
    return [PlannedShard(f"shard-{at:06d}-{digest(ids)[:12]}", ids) for at, ids in enumerate(parts)]


def finished_shards(folder: Path) -> Collection[str]:
    """Return the names of the shards that a folder holds."""
    return {path.stem for path in folder.glob("shard-*.npz")}


def shard_path(folder: Path, shard: PlannedShard) -> Path:
    """Return the path of a shard."""
    return folder / f"{shard.name}.npz"


def save_shard(path: Path, shard: Shard) -> None:
    """Write one shard by rename."""
    with written_beside(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            study_ids=np.array(shard.study_ids, dtype=np.str_),
            counts=np.array(shard.counts, dtype=np.int64),
            embeddings=shard.embeddings,
            failed_ids=np.array(shard.failed_ids, dtype=np.str_),
            failed_reasons=np.array(shard.failed_reasons, dtype=np.str_),
            batches=np.array(shard.batches, dtype=np.int64),
            device=np.array(shard.device, dtype=np.str_),
        )


def load_shard(path: Path) -> Shard:
    """Read one shard."""
    with np.load(path, allow_pickle=False) as found:
        return Shard(
            study_ids=found["study_ids"].tolist(),
            counts=found["counts"].tolist(),
            embeddings=found["embeddings"],
            failed_ids=found["failed_ids"].tolist(),
            failed_reasons=found["failed_reasons"].tolist(),
            batches=found["batches"].tolist(),
            device=str(found["device"]) if "device" in found else "",
        )

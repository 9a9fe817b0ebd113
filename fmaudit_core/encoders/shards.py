"""Unfinished extractions: shards of whole studies, each written by rename, so that a kill loses at most one shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fmaudit_core.storage.atomic_write import written_beside

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
    end : int
        Number of studies of the run that are done including this shard.
    """

    study_ids: list[str]
    counts: list[int]
    embeddings: Float32Array
    failed_ids: list[str]
    failed_reasons: list[str]
    batches: list[int]
    end: int


def finished_shards(folder: Path) -> list[Path]:
    """Return the finished shards, consecutive from the first."""
    found: list[Path] = []
    while (path := shard_path(folder, len(found))).exists():
        found.append(path)
    return found


def shard_path(folder: Path, index: int) -> Path:
    """Return the path of a shard."""
    return folder / f"shard-{index:06d}.npz"


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
            end=np.array(shard.end),
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
            end=int(found["end"]),
        )

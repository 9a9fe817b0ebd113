"""Encoding of shards: slices are read ahead, batched across the studies of a shard, and its embeddings saved.

Every engine makes a shard by `ShardEncoder`; `encode_here` is the engine of one process. Before and after it: `extract.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np

from fmaudit_core.encoders.adapter import Encoder
from fmaudit_core.encoders.errors import ExtractionError
from fmaudit_core.encoders.forward import Forward
from fmaudit_core.encoders.shards import PlannedShard, Shard, save_shard, shard_path
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.errors import SliceStoreError
from fmaudit_core.imaging.window import SliceArray, View

_STUDIES_AHEAD: Final = 4
#: on a CPU the cores are needed by the network
_READERS: Final = {"cpu": 1, "cuda": 4}

#: a study with its slices, or the error that makes it a failed study
ReadStudy = tuple[str, SliceArray | SliceStoreError]


class SliceSource(Protocol):
    """A source of slices, such as `imaging.slices.SliceStore`."""

    def read(self, study_id: str, view: View) -> SliceArray:
        """Return the slices of one study, (slices, channels, rows, columns).

        Raises
        ------
        SliceStoreError
            The study has no readable slices: it is a failed study. Any other error stops the extraction.
        """
        ...

    def of(self, study_ids: Sequence[str]) -> Self:
        """Return the source of some studies only, to be sent to another process."""
        ...


@dataclass(frozen=True)
class Encoding:
    """The work on the shards of one encoder; it may be sent to other processes.

    Parameters
    ----------
    spec : EncoderSpec
    source : SliceSource
    folder : Path
        Folder of the shards.
    device : str
        See `adapter.load_encoder`.
    batch : int
        Slices, volumes or patches per forward pass.
    load : callable
        Loads the encoder.
    find_batch : bool
        On a GPU, find the fastest batch size, from `batch` upwards.
    """

    spec: EncoderSpec
    source: SliceSource
    folder: Path
    device: str
    batch: int
    load: Callable[[EncoderSpec, str], Encoder]
    find_batch: bool = False


@dataclass(frozen=True)
class MadeShard:
    """A shard that is complete on disk, its number of slices or volumes, and the device it was made on."""

    shard: PlannedShard
    n_items: int
    device: str


#: an engine: makes shards of one encoder, and yields each once it is complete, in any order
Encode = Callable[[Encoding, Sequence[PlannedShard]], Generator[MadeShard, None, None]]


class ShardEncoder:
    """A loaded encoder that makes one shard after another."""

    def __init__(self, work: Encoding) -> None:
        encoder = work.load(work.spec, work.device)
        self.device = encoder.device
        self._work = work
        self._forward = Forward(encoder, work.spec, work.batch, find_batch=work.find_batch)
        self._in_doubt: list[Path] = []

    def make(self, shard: PlannedShard, studies: Iterable[ReadStudy]) -> MadeShard:
        """Encode the studies of a shard and save it.

        Raises
        ------
        ExtractionError
            The output differs from the spec's dimension, or the encoder, or its device, fails on everything.
        """
        path = shard_path(self._work.folder, shard)
        try:
            made = self._encoded(studies)
        except ExtractionError:  # failures before it in the same row of failures were not the studies' either
            for one in self._in_doubt:
                one.unlink(missing_ok=True)
            raise
        save_shard(path, made)
        self._in_doubt = [*self._in_doubt, path] if self._forward.is_failing else []
        return MadeShard(shard, len(made.embeddings), self.device)

    def close(self) -> None:
        """Wait for the threads to finish."""
        self._forward.close()

    def _encoded(self, studies: Iterable[ReadStudy]) -> Shard:
        spec, forward = self._work.spec, self._forward
        unread: list[tuple[str, str]] = []
        batches = [] if forward.finds_batch else [forward.batch]
        for study_id, found in studies:
            if isinstance(found, SliceStoreError):
                unread.append((study_id, found.what))
            else:
                forward.add(study_id, *spec.view.items(found))
            _note(batches, forward.batch)
        ids, embeddings, failed = forward.taken()
        _note(batches, forward.batch)
        failed = sorted(unread + failed)
        return Shard(
            study_ids=ids,
            counts=[len(one) for one in embeddings],
            embeddings=np.concatenate(embeddings) if embeddings else np.empty((0, spec.dim), dtype=np.float32),
            failed_ids=[one for one, _ in failed],
            failed_reasons=[why for _, why in failed],
            batches=batches,
        )


def encode_here(work: Encoding, shards: Sequence[PlannedShard]) -> Generator[MadeShard, None, None]:
    """Make shards in this process, one after another; threads read ahead, also across shards."""
    with closing(ShardEncoder(work)) as encoder:
        readers = _READERS["cuda" if encoder.device.startswith("cuda") else "cpu"]
        studies = (study_id for shard in shards for study_id in shard.study_ids)
        with closing(_read_ahead(work.source, work.spec.view, studies, readers)) as ahead:
            for shard in shards:
                yield encoder.make(shard, islice(ahead, len(shard.study_ids)))


def read_study(source: SliceSource, study_id: str, view: View) -> ReadStudy:
    """Return a study with its slices, or with the error that makes it a failed study."""
    try:
        return study_id, source.read(study_id, view)
    except SliceStoreError as error:
        return study_id, error


def _note(batches: list[int], batch: int) -> None:
    """Add a batch size that differs from the last."""
    if not batches or batch != batches[-1]:
        batches.append(batch)


def _read_ahead(
    source: SliceSource, view: View, studies: Iterator[str], readers: int
) -> Generator[ReadStudy, None, None]:
    """Yield studies in order, read and decoded by separate threads a few studies ahead of the encoder."""
    waiting: deque[Future[ReadStudy]] = deque()
    with ThreadPoolExecutor(readers, "slice reader") as pool:
        try:
            for study_id in studies:
                waiting.append(pool.submit(read_study, source, study_id, view))
                if len(waiting) > max(_STUDIES_AHEAD, readers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

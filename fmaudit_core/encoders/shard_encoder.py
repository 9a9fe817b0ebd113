"""Encoding of shards: slices are read ahead, batched across the studies of a shard, and its embeddings saved.

Every engine makes a shard by `ShardEncoder`; `encode_here` is the engine of one process. Before and after it: `extract.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np

from fmaudit_core.common.errors import FmauditError
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

#: a study with its slices by the key of their view, or the error that makes it a failed study
ReadStudy = tuple[str, dict[str, SliceArray] | SliceStoreError]


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

    def read_views(self, study_id: str, views: Sequence[View]) -> list[SliceArray]:
        """Return the slices of one study in several views, for which its CT is read at most once; see `read`."""
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
    also : tuple of Encoding
        Other encoders that make the same shards of the same slices, each in its own folder, so that every study is read once. One
        that fails is left out: it makes its shards by itself later, and then reports the error.
    """

    spec: EncoderSpec
    source: SliceSource
    folder: Path
    device: str
    batch: int
    load: Callable[[EncoderSpec, str], Encoder]
    find_batch: bool = False
    also: tuple[Encoding, ...] = ()

    @property
    def views(self) -> list[View]:
        """Return the views of all its encoders, each once."""
        return list({one.spec.view.key(): one.spec.view for one in (self, *self.also)}.values())

    def of(self, study_ids: Sequence[str]) -> Encoding:
        """Return the work with the source of some studies only, to be sent to another process."""
        return replace(self, source=self.source.of(study_ids), also=tuple(one.of(()) for one in self.also))


@dataclass(frozen=True)
class MadeShard:
    """A shard that is complete on disk, its number of slices or volumes, and the device it was made on."""

    shard: PlannedShard
    n_items: int
    device: str


#: an engine: makes shards of one encoder, and yields each once it is complete, in any order
Encode = Callable[[Encoding, Sequence[PlannedShard]], Generator[MadeShard, None, None]]


class ShardEncoder:
    """A loaded encoder, and those that encode along with it, which make one shard after another."""

    def __init__(self, work: Encoding) -> None:
        encoder = work.load(work.spec, work.device)
        self.device = encoder.device
        self._work = work
        self._forward = Forward(encoder, work.spec, work.batch, find_batch=work.find_batch)
        self._in_doubt: list[Path] = []
        self._unread: list[tuple[str, str]] = []
        self._batches: list[int] = []
        self._others: list[ShardEncoder] = []
        for other in work.also:
            with suppress(FmauditError):  # which its own extraction reports
                self._others.append(ShardEncoder(other))

    def make(self, shard: PlannedShard, studies: Iterable[ReadStudy]) -> MadeShard:
        """Encode the studies of a shard and save it.

        Raises
        ------
        ExtractionError
            The output differs from the spec's dimension, or the encoder, or its device, fails on everything.
        """
        others = [one for one in self._others if not shard_path(one._work.folder, shard).exists()]
        try:
            for study in studies:
                self._add(study)
                self._attempted(others, partial(ShardEncoder._add, study=study))
            made = self._taken()
        except ExtractionError:  # failures before it in the same row of failures were not the studies' either
            self._doubt()
            raise
        self._save(shard, made)
        self._attempted(others, partial(ShardEncoder._finish, shard=shard))
        return MadeShard(shard, len(made.embeddings), self.device)

    def close(self) -> None:
        """Wait for the threads to finish."""
        self._forward.close()
        for one in self._others:
            one.close()

    def _attempted(self, others: list[ShardEncoder], act: Callable[[ShardEncoder], None]) -> None:
        """Let the others act; one that fails on everything is left out from now on."""
        for one in list(others):
            try:
                act(one)
            except ExtractionError:
                one._doubt()
                one.close()
                others.remove(one)
                self._others.remove(one)

    def _finish(self, shard: PlannedShard) -> None:
        self._save(shard, self._taken())

    def _save(self, shard: PlannedShard, made: Shard) -> None:
        path = shard_path(self._work.folder, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_shard(path, made)
        self._in_doubt = [*self._in_doubt, path] if self._forward.is_failing else []

    def _doubt(self) -> None:
        """Remove the shards whose last studies failed: the encoder was the cause."""
        for one in self._in_doubt:
            one.unlink(missing_ok=True)

    def _add(self, study: ReadStudy) -> None:
        spec, forward, (study_id, found) = self._work.spec, self._forward, study
        if not self._batches and not forward.finds_batch:
            self._batches.append(forward.batch)
        if isinstance(found, SliceStoreError):
            self._unread.append((study_id, found.what))
        else:
            forward.add(study_id, *spec.view.items(found[spec.view.key()]))
        _note(self._batches, forward.batch)

    def _taken(self) -> Shard:
        """Return the studies since the last call."""
        ids, embeddings, failed = self._forward.taken()
        _note(self._batches, self._forward.batch)
        failed, batches = sorted(self._unread + failed), self._batches
        self._unread, self._batches = [], []
        return Shard(
            study_ids=ids,
            counts=[len(one) for one in embeddings],
            embeddings=np.concatenate(embeddings)
            if embeddings
            else np.empty((0, self._work.spec.dim), dtype=np.float32),
            failed_ids=[one for one, _ in failed],
            failed_reasons=[why for _, why in failed],
            batches=batches,
            device=self.device,
        )


def encode_here(work: Encoding, shards: Sequence[PlannedShard]) -> Generator[MadeShard, None, None]:
    """Make shards in this process, one after another; threads read ahead, also across shards."""
    with closing(ShardEncoder(work)) as encoder:
        readers = _READERS["cuda" if encoder.device.startswith("cuda") else "cpu"]
        studies = (study_id for shard in shards for study_id in shard.study_ids)
        with closing(_read_ahead(work.source, work.views, studies, readers)) as ahead:
            for shard in shards:
                yield encoder.make(shard, islice(ahead, len(shard.study_ids)))


def read_study(source: SliceSource, study_id: str, views: Sequence[View]) -> ReadStudy:
    """Return a study with its slices in some views, or with the error that makes it a failed study."""
    try:
        found = [source.read(study_id, views[0])] if len(views) == 1 else source.read_views(study_id, views)
        return study_id, {view.key(): slices for view, slices in zip(views, found, strict=True)}
    except SliceStoreError as error:
        return study_id, error


def _note(batches: list[int], batch: int) -> None:
    """Add a batch size that differs from the last."""
    if not batches or batch != batches[-1]:
        batches.append(batch)


def _read_ahead(
    source: SliceSource, views: Sequence[View], studies: Iterator[str], readers: int
) -> Generator[ReadStudy, None, None]:
    """Yield studies in order, read and decoded by separate threads a few studies ahead of the encoder."""
    waiting: deque[Future[ReadStudy]] = deque()
    with ThreadPoolExecutor(readers, "slice reader") as pool:
        try:
            for study_id in studies:
                waiting.append(pool.submit(read_study, source, study_id, views))
                if len(waiting) > max(_STUDIES_AHEAD, readers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

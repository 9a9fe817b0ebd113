"""Shards on a Ray cluster: read by tasks on CPUs, encoded by actors on GPUs.

Slices of a shard go from a task to an actor through Ray's object store, never through this process, which holds only references:
at most `encoders * slicing_cpus` shards are in memory. An actor writes its shard to the workspace by rename. Whatever dies (task,
actor, node, this process), a shard is either complete there or made again with the same content, so nothing is lost or doubled.
Ray's own restarts are not used: a shard whose processes die is made again `DEATHS` times, then it is named.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import ray

from fmaudit_core.config import ComputeSection
from fmaudit_core.encoders.shard_encoder import Encoding, MadeShard, ReadStudy, ShardEncoder, SliceSource, read_study
from fmaudit_core.encoders.shards import PlannedShard, shard_path
from fmaudit_core.engines.errors import ClusterError
from fmaudit_core.engines.ray_results import DEATHS, DIED, check_shared, not_shared, result, too_many_deaths
from fmaudit_core.imaging.window import SliceArray, View

#: shards given to an actor: one that it encodes, and one whose slices come to its node meanwhile
_GIVEN: Final = 2
#: time for the first actor to start, which includes that of a cluster that adds machines on demand
_START_S: Final = 900.0
_LOOK_S: Final = 30.0


@dataclass
class _Actor:
    """An actor with the shards given to it, the one that it encodes first."""

    handle: Any
    given: deque[PlannedShard] = field(default_factory=deque)
    is_loaded: bool = False


@dataclass
class ShardRun:
    """The shards on their way: to read -> being read -> read -> being encoded; and the actors."""

    compute: ComputeSection
    work: Encoding
    to_read: deque[PlannedShard]
    reading: dict[Any, tuple[PlannedShard, Any]] = field(default_factory=dict)
    read: deque[tuple[PlannedShard, Any]] = field(default_factory=deque)
    encoding: dict[Any, tuple[PlannedShard, _Actor]] = field(default_factory=dict)
    loading: dict[Any, _Actor] = field(default_factory=dict)
    actors: list[_Actor] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Declare the task and the actor once: Ray sends each declaration to all nodes."""
        gpus, remote = self.compute.gpus, ray.remote
        self.slicing = remote(_read_shard).options(num_cpus=1, num_returns=2, max_retries=0, enable_task_events=False)
        self.encoder = remote(_Encoder).options(
            num_gpus=gpus, num_cpus=0 if gpus else 1, scheduling_strategy="SPREAD", enable_task_events=False
        )

    def step(self) -> list[MadeShard]:
        """Submit what may be submitted, wait until something ends, and return the shards made; none when all are."""
        made: list[MadeShard] = []
        while not made and (self.to_read or self.reading or self.read or self.encoding):
            self._submit()
            ended, _ = ray.wait([*self.reading, *self.encoding, *self.loading], timeout=_LOOK_S)
            for ref in ended:
                if ref in self.loading:
                    self._loaded(ref)
                elif ref in self.reading:
                    self._read(ref)
                else:
                    made += self._encoded(ref)
            self._check_started()
        return made

    def close(self) -> None:
        """Stop the actors and cancel the tasks."""
        for actor in self.actors:
            ray.kill(actor.handle)
        for ref in self.reading:
            ray.cancel(ref, force=True)

    def _submit(self) -> None:
        room = self.compute.encoders * self.compute.slicing_cpus
        while self.to_read and len(self.reading) + len(self.read) < room:
            shard = self.to_read.popleft()
            source = self.work.source.of(shard.study_ids)
            ended, studies = self.slicing.remote(source, self.work.views, shard.study_ids)
            self.reading[ended] = shard, studies
        while len(self.actors) < min(self.compute.encoders, len(self.read) + len(self.reading) + len(self.encoding)):
            self._start()
        for _ in range(_GIVEN):
            for actor in self.actors:
                if self.read and actor.is_loaded and len(actor.given) < _GIVEN:
                    shard, studies = self.read.popleft()
                    actor.given.append(shard)
                    self.encoding[actor.handle.make.remote(shard, studies)] = shard, actor

    def _start(self) -> None:
        actor = _Actor(self.encoder.remote(self.work.of(())))
        self.actors.append(actor)
        self.loading[actor.handle.load.remote()] = actor

    def _loaded(self, ref: Any) -> None:
        actor = self.loading.pop(ref)
        actor.is_loaded = result(ref) is not DIED
        if not actor.is_loaded:
            self.actors.remove(actor)
            self._count_death("the loading of the encoder")

    def _read(self, ref: Any) -> None:
        shard, studies = self.reading.pop(ref)
        if result(ref) is DIED:
            self._again(shard)
        else:
            self.read.append((shard, studies))

    def _encoded(self, ref: Any) -> list[MadeShard]:
        shard, actor = self.encoding.pop(ref)
        made = result(ref)
        is_first = actor.given[0] is shard
        actor.given.remove(shard)
        if made is DIED:
            if actor in self.actors:
                self.actors.remove(actor)
                ray.kill(actor.handle)
            self._again(shard, is_cause=is_first)
            return []
        if not shard_path(self.work.folder, shard).exists():
            raise not_shared(self.work.folder)
        return [made]

    def _again(self, shard: PlannedShard, *, is_cause: bool = True) -> None:
        if is_cause:
            self._count_death(shard.name)
        self.to_read.appendleft(shard)

    def _count_death(self, of: str) -> None:
        self.deaths[of] += 1
        if self.deaths[of] > DEATHS:
            raise too_many_deaths(of)

    def _check_started(self) -> None:
        if any(actor.is_loaded for actor in self.actors):
            self.started = time.monotonic()
        elif time.monotonic() - self.started > _START_S:
            there = ray.cluster_resources()
            raise ClusterError(
                f"no encoder could be started within {_START_S / 60:.0f} minutes: each needs {self.compute.gpus:g} GPUs, and the "
                f"cluster has {there.get('GPU', 0):g} GPUs and {there.get('CPU', 0):g} CPUs.",
                where="compute: gpus",
                fix="Add nodes with GPUs, or set `gpus: 0` to encode on CPUs.",
            )


class _Encoder:
    """The actor: one loaded encoder."""

    def __init__(self, work: Encoding) -> None:
        self._work = work

    def load(self) -> None:
        check_shared(self._work.folder)
        self._encoder = ShardEncoder(self._work)

    def make(self, shard: PlannedShard, studies: Sequence[ReadStudy]) -> MadeShard:
        check_shared(self._work.folder)
        # arrays from the object store are read-only, and a network may want to write to its input
        writable = ((one, found if isinstance(found, Exception) else _copied(found)) for one, found in studies)
        return self._encoder.make(shard, writable)


def _copied(slices: Mapping[str, SliceArray]) -> dict[str, SliceArray]:
    return {view: one.copy() for view, one in slices.items()}


def _read_shard(source: SliceSource, views: Sequence[View], study_ids: Sequence[str]) -> tuple[None, list[ReadStudy]]:
    """Return that the slices of a shard were read, and them: who waits for the former does not fetch the latter."""
    return None, [read_study(source, study_id, views) for study_id in study_ids]

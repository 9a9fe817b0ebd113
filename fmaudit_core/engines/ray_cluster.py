"""The engine on a Ray cluster: tasks on CPUs read slices, next to actors on GPUs that encode them.

Slices of a shard go from a task to an actor through Ray's object store, never through this process, which holds only references:
at most `encoders * slicing_cpus` shards are in memory. An actor writes its shard to the workspace by rename. Whatever dies (task,
actor, node, this process), a shard is either complete there or made again with the same content, so nothing is lost or doubled.
Ray's own restarts are not used: a shard whose processes die is made again `_DEATHS` times, then it is named.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import ray

from fmaudit_core.common.worker_pool import perform_all
from fmaudit_core.config import ComputeSection
from fmaudit_core.encoders.shard_encoder import Encoding, MadeShard, ReadStudy, ShardEncoder, SliceSource, read_study
from fmaudit_core.encoders.shards import PlannedShard, shard_path
from fmaudit_core.engines.errors import ClusterError
from fmaudit_core.imaging.window import View

Job = TypeVar("Job")

#: times that processes of the same work may die
_DEATHS: Final = 8
#: shards given to an actor: one that it encodes, and one whose slices come to its node meanwhile
_GIVEN: Final = 2
_QUEUED_PER_CPU: Final = 4
#: time for the first actor to start, which includes that of a cluster that adds machines on demand
_START_S: Final = 900.0
_LOOK_S: Final = 30.0


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a running cluster; none is ever started here, because Ray would listen on all of this machine's addresses.

    Raises
    ------
    ClusterError
        It cannot be reached, or has another version of Ray or Python.
    """
    of_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    # Ray adds the current folder to the import path of every worker: an audit's folder may hold any Python file
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # it has one error for each way to be out of reach
            what = (str(error).splitlines() or [type(error).__name__])[0]
            raise ClusterError(
                f"the Ray cluster cannot be used: {what}",
                where=f"compute: address: {address}",
                fix="Start this machine as a node (`ray start --address=HEAD:PORT`), with the same versions of Ray and Python.",
            ) from ConnectionError(what)
    try:
        if of_main_thread:  # Ray's handler would replace Dagster's
            signal.signal(signal.SIGTERM, handler)
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class RayCluster:
    """A connected cluster.

    Parameters
    ----------
    compute : ComputeSection
    home : Path
        The workspace, which every node must have at the same path.
    """

    compute: ComputeSection
    home: Path

    def perform(self, function: Callable[[Job], None], jobs: Iterable[Job], *, chunk: int) -> Iterator[Job]:
        """Run jobs as tasks of one CPU, `chunk` at a time, and yield each, in order, when it is done.

        Raises
        ------
        ClusterError
            Processes of the same jobs died repeatedly, or a node does not have the workspace.
        """
        task = ray.remote(_perform).options(num_cpus=1, max_retries=_DEATHS, enable_task_events=False)
        pending, queued = iter(jobs), _QUEUED_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: deque[tuple[Any, list[Job]]] = deque()
        while True:
            while len(waiting) < queued and (batch := list(islice(pending, chunk))):
                waiting.append((task.remote(self.home, function, batch), batch))
            if not waiting:
                return
            ref, batch = waiting.popleft()
            if _result(ref) is _DIED:
                raise _deaths("the reading of some studies")
            yield from batch

    def encode(self, work: Encoding, shards: Sequence[PlannedShard]) -> Generator[MadeShard, None, None]:
        """Make shards, and yield each once it is complete, in any order.

        Raises
        ------
        ClusterError
            Processes of the same shard died repeatedly, no actor starts, or a node does not have the workspace.
        Exception
            What a task or an actor raised: an error of the encoder, a disk or a device.
        """
        if self.compute.gpus == 0 and ray.cluster_resources().get("CPU", 0) <= self.compute.encoders:
            raise ClusterError(
                f"{self.compute.encoders} encoders on CPUs leave no CPU of the cluster to read slices.",
                where="compute: encoders",
                fix="Set a smaller number, or add nodes.",
            )
        work.folder.mkdir(parents=True, exist_ok=True)
        run = _Run(self.compute, work, deque(shards))
        try:
            while made := run.step():
                yield from made
        finally:
            run.close()


@dataclass
class _Actor:
    """An actor with the shards given to it, the one that it encodes first."""

    handle: Any
    given: deque[PlannedShard] = field(default_factory=deque)
    is_loaded: bool = False


@dataclass
class _Run:
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
            ended, studies = self.slicing.remote(source, self.work.spec.view, shard.study_ids)
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
        actor = _Actor(self.encoder.remote(replace(self.work, source=self.work.source.of(()))))
        self.actors.append(actor)
        self.loading[actor.handle.load.remote()] = actor

    def _loaded(self, ref: Any) -> None:
        actor = self.loading.pop(ref)
        actor.is_loaded = _result(ref) is not _DIED
        if not actor.is_loaded:
            self.actors.remove(actor)
            self._count_death("the loading of the encoder")

    def _read(self, ref: Any) -> None:
        shard, studies = self.reading.pop(ref)
        if _result(ref) is _DIED:
            self._again(shard)
        else:
            self.read.append((shard, studies))

    def _encoded(self, ref: Any) -> list[MadeShard]:
        shard, actor = self.encoding.pop(ref)
        made = _result(ref)
        is_first = actor.given[0] is shard
        actor.given.remove(shard)
        if made is _DIED:
            if actor in self.actors:
                self.actors.remove(actor)
                ray.kill(actor.handle)
            self._again(shard, is_cause=is_first)
            return []
        if not shard_path(self.work.folder, shard).exists():
            raise _not_shared(self.work.folder)
        return [made]

    def _again(self, shard: PlannedShard, *, is_cause: bool = True) -> None:
        if is_cause:
            self._count_death(shard.name)
        self.to_read.appendleft(shard)

    def _count_death(self, of: str) -> None:
        self.deaths[of] += 1
        if self.deaths[of] > _DEATHS:
            raise _deaths(of)

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
        _check_shared(self._work.folder)
        self._encoder = ShardEncoder(self._work)

    def make(self, shard: PlannedShard, studies: Sequence[ReadStudy]) -> MadeShard:
        _check_shared(self._work.folder)  # a folder that is not there must not be made on this machine's own disk
        # arrays from the object store are read-only, and a network may want to write to its input
        writable = ((one, found if isinstance(found, Exception) else found.copy()) for one, found in studies)
        return self._encoder.make(shard, writable)


def _read_shard(source: SliceSource, view: View, study_ids: Sequence[str]) -> tuple[None, list[ReadStudy]]:
    """Return that the slices of a shard were read, and them: who waits for the former does not fetch the latter."""
    return None, [read_study(source, study_id, view) for study_id in study_ids]


def _perform(home: Path, function: Callable[[Job], None], jobs: Sequence[Job]) -> None:
    _check_shared(home)
    perform_all(function, jobs)


#: the result of work whose process, node or object was lost
_DIED: Final = object()


def _result(ref: Any) -> Any:
    """Return the result of a task, or `_DIED`; raise what it raised."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        # whose slices were lost on their way to an actor
        if isinstance(error.cause, ray.exceptions.RayError):
            return _DIED
        raise error.cause from None
    except (
        ray.exceptions.RayActorError,
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.ObjectLostError,
        ray.exceptions.OutOfMemoryError,
    ):
        return _DIED


def _deaths(of: str) -> ClusterError:
    return ClusterError(
        f"{of}: its process died {_DEATHS + 1} times, often because of insufficient memory.",
        fix="Finished work is kept: set fewer `compute: slicing_cpus` or `shard_studies`, then run again.",
    )


def _check_shared(folder: Path) -> None:
    if not folder.is_dir():
        raise _not_shared(folder)


def _not_shared(folder: Path) -> ClusterError:
    return ClusterError(
        "the workspace is not the same folder on all nodes.",
        where=f"{folder} on {socket.gethostname()}",
        fix="Mount its disk at the same path on every node, then run again: finished work is kept.",
    )

"""The engine on a Ray cluster: independent jobs as tasks, shards by `ray_shards.py`. Ray is started by others, never here."""

from __future__ import annotations

import contextlib
import signal
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import ray

from fmaudit_core.common.worker_pool import perform_all
from fmaudit_core.config import ComputeSection
from fmaudit_core.encoders.shard_encoder import Encoding, MadeShard
from fmaudit_core.encoders.shards import PlannedShard
from fmaudit_core.engines.errors import ClusterError
from fmaudit_core.engines.ray_results import DEATHS, DIED, check_shared, result, too_many_deaths
from fmaudit_core.engines.ray_shards import ShardRun

Job = TypeVar("Job")

_QUEUED_PER_CPU: Final = 4
_CONNECT_S: Final = 10.0


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a running cluster; none is ever started here, because Ray would listen on all of this machine's addresses.

    Raises
    ------
    ClusterError
        It cannot be reached, or has another version of Ray or Python.
    """
    try:
        if address != "auto":  # Ray itself tries for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        # Ray adds the current folder to the import path of every worker: an audit's folder may hold any Python file
        with _sigterm_kept(), tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # it has one error for each way to be out of reach
        ray.shutdown()
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise ClusterError(
            f"the Ray cluster cannot be used ({what.rstrip('.')}).",
            where=f"compute: address: {address}",
            fix="Start this machine as a node (`ray start --address=HEAD:PORT`), with the same versions of Ray and Python.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Put back the handler of SIGTERM, such as Dagster's, that Ray replaces."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


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
        task = ray.remote(_perform).options(num_cpus=1, max_retries=DEATHS, enable_task_events=False)
        pending, queued = iter(jobs), _QUEUED_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: deque[tuple[Any, list[Job]]] = deque()
        while True:
            while len(waiting) < queued and (batch := list(islice(pending, chunk))):
                waiting.append((task.remote(self.home, function, batch), batch))
            if not waiting:
                return
            ref, batch = waiting.popleft()
            if result(ref) is DIED:
                raise too_many_deaths("the reading of some studies")
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
        run = ShardRun(self.compute, work, deque(shards))
        try:
            while made := run.step():
                yield from made
        finally:
            run.close()


def _perform(home: Path, function: Callable[[Job], None], jobs: Sequence[Job]) -> None:
    check_shared(home)
    perform_all(function, jobs)

"""Independent jobs in worker processes, in order, with a bounded queue. Few jobs run in the current process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Protocol, TypeVar

from fmaudit_core.common.errors import FmauditError

Job = TypeVar("Job")

_QUEUED_PER_WORKER = 4


class Perform(Protocol):
    """A way to run independent jobs, such as `performed` with its `workers` given."""

    def __call__(self, function: Callable[[Job], None], jobs: Iterable[Job], *, chunk: int) -> Iterator[Job]:
        """Run jobs, `chunk` at a time, and yield each, in order, when it is done."""
        ...


class WorkerDiedError(FmauditError):
    """A worker process was killed from outside, often for lack of memory."""


def performed(function: Callable[[Job], None], jobs: Iterable[Job], *, workers: int, chunk: int) -> Iterator[Job]:
    """Run jobs and yield each, in order, when it is done.

    Parameters
    ----------
    function : callable
        Must be at the top level of a module, because processes are spawned: a fork would copy the locks of the threads of
        polars and torch.
    jobs : iterable
        Taken as they are needed, so that they may be too many for memory.
    workers : int
        Number of processes; 0 means one per core. With fewer than `chunk` jobs per worker, fewer processes are used, or none.
    chunk : int
        Number of jobs that a process takes at a time.

    Raises
    ------
    WorkerDiedError
        A process died. Results of completed jobs are kept.
    """
    pending = iter(jobs)
    workers = workers or os.cpu_count() or 1
    first = list(islice(pending, workers * chunk))
    workers, pending = min(workers, -(-len(first) // chunk)), chain(first, pending)
    if workers <= 1:
        for job in pending:
            function(job)
            yield job
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        waiting: deque[tuple[Future[None], Sequence[Job]]] = deque()
        try:
            while batch := list(islice(pending, chunk)):
                waiting.append((pool.submit(perform_all, function, batch), batch))
                if len(waiting) >= _QUEUED_PER_WORKER * workers:
                    yield from _oldest(waiting)
            while waiting:
                yield from _oldest(waiting)
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                "a worker process died, often because of insufficient memory.",
                fix="Finished work is kept: run again, with fewer `imaging: workers` in audit.yaml. "
                'Your own script must start its work below `if __name__ == "__main__":`.',
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def end_with_parent() -> None:
    """End this worker process when its parent ends, even if that is killed: its work would be done by two."""

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, name="end with parent", daemon=True).start()


def perform_all(function: Callable[[Job], None], jobs: Sequence[Job]) -> None:
    """Run jobs one after another."""
    for job in jobs:
        function(job)


def _oldest(waiting: deque[tuple[Future[None], Sequence[Job]]]) -> Sequence[Job]:
    future, batch = waiting.popleft()
    future.result()
    return batch

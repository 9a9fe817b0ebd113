"""Steps of `fmaudit run` made in several worker processes.

Two in-process runs in threads hang on this version of Dagster, so each worker process has its own instance and makes one step
at a time. Leases keep processes apart, whoever started them.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.queues import Queue
from threading import Thread

import dagster as dg
from threadpoolctl import threadpool_limits

from fmaudit_core.common.progress import Progress
from fmaudit_core.common.worker_pool import end_with_parent
from fmaudit_core.config import audit_path_from_environment
from fmaudit_core.pipeline.stale_steps import StaleStep
from fmaudit_core.pipeline.steps import GPU, step_of
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.warehouse import Cell
from fmaudit_dagster.execution.step_executors import Made, made
from fmaudit_dagster.progress import draw_bars

_KILLED = "its process was killed, often for lack of memory; run again, with `--jobs 1` if memory is short."

#: (name of a bar, steps done, steps in total)
_Report = tuple[str, int, int]


class WorkerProcesses:
    """Steps made in worker processes, which start with the first of them."""

    def __init__(self, capacity: int, reports: "Queue[_Report]") -> None:
        self.capacity, self._reports = capacity, reports
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, step: StaleStep, *, forced: bool) -> Future[Made]:
        """Queue a step; a process that died is replaced."""
        if self._pool is None:
            self._pool = self._started()
        make = partial(_made_in_worker, step.step.name, step.cell, step.assets, step.version, forced=forced)
        try:
            begun = self._pool.submit(make)
        except BrokenProcessPool:
            self._pool = self._started()
            begun = self._pool.submit(make)
        return _without_broken_pool(begun)

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.capacity,
            multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self._reports, self.capacity),
        )


@contextmanager
def worker_processes(capacity: int, bars: Callable[[str], Progress]) -> Iterator[WorkerProcesses]:
    """Make steps in `capacity` processes, whose progress is sent to bars of this one."""
    reports: Queue[_Report] = multiprocessing.get_context("spawn").Queue()
    drawing = Thread(target=_draw, args=(reports, bars), daemon=True)
    drawing.start()
    workers = WorkerProcesses(capacity, reports)
    try:
        yield workers
    finally:
        workers.close()
        reports.put(("", 0, 0))
        drawing.join()


def _draw(reports: "Queue[_Report]", bars: Callable[[str], Progress]) -> None:
    drawn: dict[str, Progress] = {}
    while (report := reports.get())[0]:
        name, done, total = report
        if name not in drawn:
            drawn[name] = bars(name)
        drawn[name](done, total)


def _without_broken_pool(begun: Future[Made]) -> Future[Made]:
    """Return a future that names the death of a process as the step's failure."""
    named: Future[Made] = Future()

    def tell(done: Future[Made]) -> None:
        error = done.exception()
        if isinstance(error, BrokenProcessPool):
            named.set_result(Made(_KILLED, (), 0.0, 0.0))
        elif error is not None:
            named.set_exception(error)
        else:
            named.set_result(done.result())

    begun.add_done_callback(tell)
    return named


#: of a worker process, set when it starts: what makes a step, all threads, and its share of them
_make: Callable[..., Made] | None = None
_threads = _share = 1


def _start_worker(reports: "Queue[_Report]", processes: int) -> None:
    """Open Dagster's instance and the definitions of the audit; the environment names both."""
    global _make, _threads, _share  # one process, one instance
    _threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    _share = max(1, _threads // processes)
    end_with_parent()
    from fmaudit_dagster.definitions import defs

    def bar(name: str) -> Progress:
        return lambda done, total: reports.put((name, done, total))

    draw_bars(bar)
    root = open_workspace(audit_path_from_environment()).root
    _make = partial(made, defs.resolve_implicit_global_asset_job_def(), dg.DagsterInstance.get(), root)


def _made_in_worker(name: str, cell: Cell, assets: tuple[str, ...], version: str, *, forced: bool) -> Made:
    assert _make is not None
    step = step_of(name)
    # one step of the pool is made at a time, and it takes longest; threads of the others would only wait for each other
    threads = _threads if step.pool == GPU else _share
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for libraries that the step loads
    with threadpool_limits(threads):
        return _make(StaleStep(step, cell, assets, version), forced=forced)

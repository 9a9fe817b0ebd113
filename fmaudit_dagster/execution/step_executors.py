"""Where `fmaudit run` makes its steps: in its own process one at a time, or in several worker processes.

Two in-process runs in threads hang on this version of Dagster, so each worker process has its own instance and makes one step
at a time. Leases keep processes apart, whoever started them.
"""

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import dagster as dg

from fmaudit_core.common.progress import Progress
from fmaudit_core.common.worker_pool import end_with_parent
from fmaudit_core.config import audit_path_from_environment
from fmaudit_core.pipeline.stale_steps import StaleStep
from fmaudit_core.pipeline.steps import step_of
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.warehouse import Cell
from fmaudit_dagster.execution.run_history import ATTENDED_TAG, FORCED_TAG, step_tags, why_failed
from fmaudit_dagster.partitions import partition_key
from fmaudit_dagster.progress import draw_bars
from fmaudit_dagster.run_leases import process_tags

_KILLED = "its process was killed, often for lack of memory; run again, with `--jobs 1` if memory is short."

#: (name of a bar, steps done, steps in total)
_Report = tuple[str, int, int]


@dataclass(frozen=True)
class Made:
    """What became of one step.

    Parameters
    ----------
    error : str, None if it succeeded
    assets : tuple of str
        Those that were made; none if another run had made them.
    seconds, cpu_seconds : float
        On the clock, and of processor time in the process that made it.
    """

    error: str | None
    assets: tuple[str, ...]
    seconds: float
    cpu_seconds: float


class StepExecutor(Protocol):
    """Something that makes steps."""

    #: number of steps made at the same time
    capacity: int

    def submit(self, step: StaleStep, *, forced: bool) -> Future[Made]:
        """Begin a step; `forced` makes it although it may be fresh."""
        ...


class InProcess:
    """Steps made in this process, each before `submit` returns."""

    capacity = 1

    def __init__(self, job: dg.JobDefinition, instance: dg.DagsterInstance, home: Path) -> None:
        self._make = partial(_made, job, instance, home)

    def submit(self, step: StaleStep, *, forced: bool) -> Future[Made]:
        """Make a step."""
        done: Future[Made] = Future()
        done.set_result(self._make(step, forced=forced))
        return done


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
            made = self._pool.submit(make)
        except BrokenProcessPool:
            self._pool = self._started()
            made = self._pool.submit(make)
        return _without_broken_pool(made)

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.capacity, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(self._reports,)
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


def _without_broken_pool(made: Future[Made]) -> Future[Made]:
    """Return a future that names the death of a process as the step's failure."""
    told: Future[Made] = Future()

    def tell(done: Future[Made]) -> None:
        error = done.exception()
        if isinstance(error, BrokenProcessPool):
            told.set_result(Made(_KILLED, (), 0.0, 0.0))
        elif error is not None:
            told.set_exception(error)
        else:
            told.set_result(done.result())

    made.add_done_callback(tell)
    return told


#: of a worker process, set when it starts
_make: Callable[..., Made] | None = None


def _start_worker(reports: "Queue[_Report]") -> None:
    """Open Dagster's instance and the definitions of the audit; the environment names both."""
    global _make  # one process, one instance
    end_with_parent()
    from fmaudit_dagster.definitions import defs

    def bar(name: str) -> Progress:
        return lambda done, total: reports.put((name, done, total))

    draw_bars(bar)
    home = open_workspace(audit_path_from_environment()).home
    _make = partial(_made, defs.resolve_implicit_global_asset_job_def(), dg.DagsterInstance.get(), home)


def _made_in_worker(name: str, cell: Cell, assets: tuple[str, ...], version: str, *, forced: bool) -> Made:
    assert _make is not None
    return _make(StaleStep(step_of(name), cell, assets, version), forced=forced)


def _made(job: dg.JobDefinition, instance: dg.DagsterInstance, home: Path, step: StaleStep, *, forced: bool) -> Made:
    """Run one step in this process."""
    started, cpu = time.monotonic(), time.process_time()
    tags = process_tags(home) | ({FORCED_TAG: "true"} if forced else {})
    error, assets = _executed(job, instance, step, tags)
    return Made(error, assets, time.monotonic() - started, time.process_time() - cpu)


def _executed(
    job: dg.JobDefinition, instance: dg.DagsterInstance, step: StaleStep, tags: Mapping[str, str]
) -> tuple[str | None, tuple[str, ...]]:
    """Return what went wrong as one sentence, or None, and the assets that were made."""
    key = partition_key(step.cell)
    logging.disable(logging.CRITICAL)  # Dagster's events go to its storage; the terminal has bars
    try:
        result: Any = job.execute_in_process(
            instance=instance,
            partition_key=None if key is None else str(key),
            asset_selection=[dg.AssetKey(name) for name in step.assets],
            raise_on_error=False,
            tags={ATTENDED_TAG: "true", **step_tags(step), **tags},
        )
    finally:
        logging.disable(logging.NOTSET)
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}
    error = None if result.success else why_failed(instance, result.run_id)
    return error, tuple(asset for asset in step.assets if asset in made)

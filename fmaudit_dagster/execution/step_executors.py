"""How `fmaudit run` makes a step, and in its own process one after the other; in several processes: `cli/step_workers.py`."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import dagster as dg

from fmaudit_core.pipeline.stale_steps import StaleStep
from fmaudit_core.storage.root import Root
from fmaudit_dagster.execution.run_history import ATTENDED_TAG, FORCED_TAG, step_tags, why_failed
from fmaudit_dagster.partitions import partition_key
from fmaudit_dagster.run_leases import process_tags


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

    def __init__(self, job: dg.JobDefinition, instance: dg.DagsterInstance, root: Root) -> None:
        self._make = partial(made, job, instance, root)

    def submit(self, step: StaleStep, *, forced: bool) -> Future[Made]:
        """Make a step."""
        done: Future[Made] = Future()
        done.set_result(self._make(step, forced=forced))
        return done


def made(job: dg.JobDefinition, instance: dg.DagsterInstance, root: Root, step: StaleStep, *, forced: bool) -> Made:
    """Make one step in this process; `forced` makes it although it may be fresh."""
    started, cpu = time.monotonic(), time.process_time()
    tags = process_tags(root) | ({FORCED_TAG: "true"} if forced else {})
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

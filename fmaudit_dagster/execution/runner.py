"""`fmaudit run`: materialise what is missing or stale, in this process and one run at a time.

Two in-process runs in threads hang on this version of Dagster, so there is one thread; the steps inside use the cores.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import dagster as dg

from fmaudit_core.common.errors import UnknownNameError, did_you_mean
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.pipeline.changed_sources import source_changed
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.stale_steps import StaleStep, next_steps
from fmaudit_core.pipeline.steps import STEPS
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.warehouse import WHOLE, Cell
from fmaudit_dagster.execution.run_history import (
    ATTENDED_TAG,
    FORCED_TAG,
    asset_history,
    running_steps,
    step_tags,
    why_failed,
)
from fmaudit_dagster.partitions import partition_key
from fmaudit_dagster.run_leases import end_killed_runs, process_tags


class Listener(Protocol):
    """Called with each step as it starts."""

    def __call__(self, name: str, cell: Cell, at: int, of: int) -> None:
        """Hear of one step: its name and cell, how many of those that can be made now are done, and how many there are."""


_PATIENCE_S = 1.0


@dataclass(frozen=True)
class StepTime:
    """How long one step took: seconds on the clock, and of processor time in this process."""

    name: str
    cell: Cell
    seconds: float
    cpu_seconds: float


@dataclass
class Outcome:
    """What a run did: steps made, what failed where, and how long each step took."""

    made: list[StaleStep] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    times: list[StepTime] = field(default_factory=list)


def run_audit(
    workspace: Workspace,
    instance: dg.DagsterInstance,
    defs: dg.Definitions,
    *,
    encoders: Sequence[str] = (),
    tasks: Sequence[str] = (),
    everything: bool = False,
    listener: Listener | None = None,
) -> Outcome:
    """Bring the audit up to date.

    Parameters
    ----------
    encoders, tasks : sequence of str
        Partitions to look at; all where empty.
    everything : bool
        Make every step again, stale or not.
    listener : callable
        Called with each step before it runs.

    Raises
    ------
    UnknownNameError
        An encoder or task is not there. A step that fails while it runs is reported in the outcome: what descends from it is left
        out and the others go on; a failed cohort or failed slices end the run.
    """
    specs = workspace.registry.specs()
    chosen = _chosen(encoders, list(specs), "encoder")
    chosen_tasks = _chosen(tasks, list(workspace.audit.tasks), "task")
    run = _Run(workspace, instance, defs.resolve_implicit_global_asset_job_def(), specs, everything, listener)
    if run.sources():
        run.descendants(chosen, chosen_tasks)
    return run.outcome


@dataclass
class _Run:
    """One call of `run_audit`."""

    workspace: Workspace
    instance: dg.DagsterInstance
    job: dg.JobDefinition
    specs: Mapping[str, EncoderSpec]
    everything: bool
    listener: Listener | None
    outcome: Outcome = field(default_factory=Outcome)
    #: why a step is not made again in this run, by its name
    ended: dict[str, str] = field(default_factory=dict)
    #: (asset, cell) that were made again, where everything is
    again: set[tuple[str, Cell]] = field(default_factory=set)

    def sources(self) -> bool:
        """Make the cohort and the slices if their files changed; return whether what descends from them can be made."""
        for step in (step for step in STEPS if step.sources):
            if step.when(self.look(), WHOLE) and not self._source(StaleStep(step, WHOLE, step.assets)):
                return False
        return True

    def descendants(self, encoders: Sequence[str], tasks: Sequence[str]) -> None:
        """Make what is stale, until nothing is left or pending."""
        while True:
            found = next_steps(
                self.look(), encoders=encoders, tasks=tasks, is_running=running_steps(self.instance),
                failure_reason=lambda step: self.ended.get(step.name),
            )  # fmt: skip
            # what gathers the cells of all encoders is made once, after them
            steps = [one for one in found.steps if not one.step.gathers] or found.steps
            for at, one in enumerate(steps):
                self._make(one, at, len(steps), forced=self.everything)
            if not steps:
                if not found.pending:
                    return
                self._wait(found.pending[0])

    def look(self) -> Snapshot:
        """Look at the workspace; a step to make again counts as never made."""
        history = asset_history(self.instance)
        if not self.everything:
            return Snapshot(self.workspace, self.specs, history)
        return Snapshot(
            self.workspace,
            self.specs,
            lambda asset, cell: history(asset, cell) if (asset, cell) in self.again else None,
        )

    def _source(self, step: StaleStep) -> bool:
        """Make a step if its files changed; look again after another run that began while they were looked at."""
        while True:
            while running_steps(self.instance)(step):
                self._wait(step)
            if not self.everything and not source_changed(self.look(), step.step):
                return True
            if not running_steps(self.instance)(step):
                return self._make(step, 0, 1, forced=True)

    def _make(self, step: StaleStep, at: int, of: int, *, forced: bool) -> bool:
        """Make one step; return whether it was made."""
        if self.listener is not None:
            self.listener(step.name, step.cell, at, of)
        tags = process_tags(self.workspace.root) | ({FORCED_TAG: "true"} if forced else {})
        started, cpu = time.monotonic(), time.process_time()
        error, assets = _execute(self.job, self.instance, step, tags)
        self.outcome.times.append(
            StepTime(step.step.name, step.cell, time.monotonic() - started, time.process_time() - cpu)
        )
        # a step that is stale again at once would be made for ever
        self.ended[step.name] = error or "it was made, and is stale again: its inputs change, or what it makes is lost."
        if error is not None:
            self.outcome.failures[f"{step.step.name} ({step.cell})"] = error
            return False
        self.again |= {(asset, step.cell) for asset in step.assets}
        if assets:  # another run may have made it meanwhile
            self.outcome.made.append(replace(step, assets=assets))
        return True

    def _wait(self, step: StaleStep) -> None:
        """Wait a moment for a run of the daemon, the UI or another command line."""
        if self.listener is not None:
            self.listener(f"waiting for another run of {step.step.name}", step.cell, 0, 1)
        time.sleep(_PATIENCE_S)
        end_killed_runs(self.instance, self.workspace.root)


def _chosen(asked: Sequence[str], there: list[str], kind: str) -> list[str]:
    unknown = [name for name in asked if name not in there]
    if unknown:
        named = ", ".join(did_you_mean(name, there) for name in unknown)
        raise UnknownNameError(f"There is no {kind} {named}.", fix=f"There are: {', '.join(there) or 'none'}.")
    return list(asked) or there


def _execute(
    job: dg.JobDefinition, instance: dg.DagsterInstance, step: StaleStep, tags: Mapping[str, str]
) -> tuple[str | None, tuple[str, ...]]:
    """Run one step; return what went wrong as one sentence, or None, and the assets that were made."""
    key = partition_key(step.cell)
    logging.disable(logging.CRITICAL)  # Dagster's events go to its storage; the terminal has bars
    try:
        result = job.execute_in_process(
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

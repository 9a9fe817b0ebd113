"""`fmaudit run`: materialise what is missing or stale, one step after the other or several at a time (`step_executors.py`)."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import Protocol

import dagster as dg

from fmaudit_core.common.errors import UnknownNameError, did_you_mean
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.pipeline.changed_sources import source_changed
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.stale_steps import IsRunning, Next, StaleStep, next_steps
from fmaudit_core.pipeline.steps import STEPS
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.warehouse import WHOLE, Cell
from fmaudit_dagster.execution.recorded_cells import unrecorded_empty_cells
from fmaudit_dagster.execution.run_history import asset_history, running_steps
from fmaudit_dagster.execution.step_executors import InProcess, Made, StepExecutor
from fmaudit_dagster.run_leases import end_killed_runs


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
    workers: StepExecutor | None = None,
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
    workers : StepExecutor, optional
        What makes several steps at a time; by default this process makes one after the other.

    Raises
    ------
    UnknownNameError
        An encoder or task is not there. A step that fails while it runs is reported in the outcome: what descends from it is left
        out and the others go on; a failed cohort or failed slices end the run.
    """
    specs = workspace.registry.specs()
    chosen = _chosen(encoders, list(specs), "encoder")
    chosen_tasks = _chosen(tasks, list(workspace.audit.tasks), "task")
    here = InProcess(defs.resolve_implicit_global_asset_job_def(), instance, workspace.root)
    run = _Run(workspace, instance, here, workers or here, specs, everything, listener)
    if run.sources():
        run.descendants(chosen, chosen_tasks)
    for event in unrecorded_empty_cells(Snapshot(workspace, specs, asset_history(instance))):
        instance.report_runless_asset_event(event)
    return run.outcome


@dataclass
class _Run:
    """One call of `run_audit`."""

    workspace: Workspace
    instance: dg.DagsterInstance
    #: what makes the steps that read the cohort's files, and a step that is alone
    here: StepExecutor
    workers: StepExecutor
    specs: Mapping[str, EncoderSpec]
    everything: bool
    listener: Listener | None
    outcome: Outcome = field(default_factory=Outcome)
    #: why a step is not made again in this run, by its name
    ended: dict[str, str] = field(default_factory=dict)
    #: (asset, cell) that were made again, where everything is
    again: set[tuple[str, Cell]] = field(default_factory=set)
    making: dict[Future[Made], StaleStep] = field(default_factory=dict)

    def sources(self) -> bool:
        """Make the cohort and the slices if their files changed; return whether what descends from them can be made."""
        for step in (step for step in STEPS if step.sources):
            if step.when(self.look(), WHOLE) and not self._source(StaleStep(step, WHOLE, step.assets)):
                return False
        return True

    def descendants(self, encoders: Sequence[str], tasks: Sequence[str]) -> None:
        """Make what is stale, until nothing is left or pending."""
        queue: list[StaleStep] = []
        of, look_again = 0, True
        while True:
            if look_again and not self._next_of(queue):
                found = next_steps(
                    self.look(), encoders=encoders, tasks=tasks, is_running=self._is_running(),
                    failure_reason=lambda step: self.ended.get(step.name),
                )  # fmt: skip
                queue = [one for one in found.steps if not _awaits_cells(one, found)]
                if not queue and not self.making:
                    queue = found.steps
                of, look_again = len(queue), False
                if not queue and not self.making:
                    if not found.pending:
                        return
                    self._wait(found.pending[0])
                    look_again = True
            while (one := self._next_of(queue)) is not None:
                queue.remove(one)
                self._begin(one, of - len(queue) - 1, of, forced=self.everything, alone=of == 1 and not self.making)
            look_again |= self._collect()

    def _next_of(self, queue: Sequence[StaleStep]) -> StaleStep | None:
        """Return the first step that can begin now: there is a free place, and no other step of its pool is being made."""
        if len(self.making) >= self.workers.capacity:
            return None
        taken = {one.step.pool for one in self.making.values()} - {""}
        return next((one for one in queue if one.step.pool not in taken), None)

    def _is_running(self) -> IsRunning:
        running, making = running_steps(self.instance), {one.name for one in self.making.values()}
        return lambda step: step.name in making or running(step)

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
                self._begin(step, 0, 1, forced=True, alone=True)
                self._collect()
                return _place(step) not in self.outcome.failures

    def _begin(self, step: StaleStep, at: int, of: int, *, forced: bool, alone: bool) -> None:
        if self.listener is not None:
            self.listener(step.name, step.cell, at, of)
        made = (self.here if alone else self.workers).submit(step, forced=forced)
        self.making[made] = step

    def _collect(self) -> bool:
        """Wait until a step that is being made ends, and record it; return whether there was one."""
        done, _ = wait(self.making, return_when=FIRST_COMPLETED)
        for one in done:
            self._record(self.making.pop(one), one.result())
        return bool(done)

    def _record(self, step: StaleStep, made: Made) -> None:
        self.outcome.times.append(StepTime(step.step.name, step.cell, made.seconds, made.cpu_seconds))
        # a step that is stale again at once would be made for ever
        self.ended[step.name] = (
            made.error or "it was made, and is stale again: its inputs change, or what it makes is lost."
        )
        if made.error is not None:
            self.outcome.failures[_place(step)] = made.error
            return
        self.again |= {(asset, step.cell) for asset in step.assets}
        if made.assets:  # another run may have made it meanwhile
            self.outcome.made.append(replace(step, assets=made.assets))

    def _wait(self, step: StaleStep) -> None:
        """Wait a moment for a run of the daemon, the UI or another command line."""
        if self.listener is not None:
            self.listener(f"waiting for another run of {step.step.name}", step.cell, 0, 1)
        time.sleep(_PATIENCE_S)
        end_killed_runs(self.instance, self.workspace.root)


def _awaits_cells(step: StaleStep, found: Next) -> bool:
    """Return whether a step gathers cells of which some are still to be made: it is made once, after them."""
    names = {one.step.name for one in (*found.steps, *found.pending)}
    return step.step.gathers and not step.step.ancestors.isdisjoint(names)


def _place(step: StaleStep) -> str:
    """Return a step and its cell as a failure names them."""
    return f"{step.step.name} ({step.cell})"


def _chosen(asked: Sequence[str], there: list[str], kind: str) -> list[str]:
    unknown = [name for name in asked if name not in there]
    if unknown:
        named = ", ".join(did_you_mean(name, there) for name in unknown)
        raise UnknownNameError(f"There is no {kind} {named}.", fix=f"There are: {', '.join(there) or 'none'}.")
    return list(asked) or there

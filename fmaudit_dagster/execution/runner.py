"""`fmaudit run`: materialise what is missing or stale, level by level, in this process and one run at a time.

Two in-process runs in threads hang on this version of Dagster, so there is one thread; the steps inside use the cores.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import dagster as dg

from fmaudit_core.common.errors import UnknownNameError, did_you_mean
from fmaudit_core.pipeline.stale_steps import LEVELS, Step, stale_steps
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.warehouse import Cell
from fmaudit_dagster.execution.instance import end_killed_runs
from fmaudit_dagster.execution.run_history import at_work, recorded, step_lock, step_tags, why_failed
from fmaudit_dagster.partitions import partition_key
from fmaudit_dagster.processes import PROCESS_TAG, this_process


class Listener(Protocol):
    """Told each step as it starts: the step, how many of its level are done, and how many there are."""

    def __call__(self, step: Step, at: int, of: int) -> None:
        """Hear of one step."""


_PATIENCE_S = 1.0


@dataclass
class Outcome:
    """What a run did: steps made, and what failed where."""

    made: list[Step] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


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
        Told each step before it runs.

    Raises
    ------
    UnknownNameError
        An encoder or task is not there. What fails while it runs is told in the outcome: a failed encoder is left out of
        later levels and the others go on; a failed cohort, slices or findings end the run.
    """
    specs = workspace.registry.specs()
    chosen = _chosen(encoders, list(specs), "encoder")
    chosen_tasks = _chosen(tasks, list(workspace.audit.tasks), "task")
    outcome, failed = Outcome(), set[str]()
    version_of = _never if everything else recorded(workspace, instance)
    job = defs.resolve_implicit_global_asset_job_def()
    for level in LEVELS:

        def stale(level: tuple[str, ...] = level) -> list[Step]:
            return stale_steps(
                workspace,
                level,
                recorded=version_of,
                encoders=specs,
                only_encoders=[name for name in chosen if name not in failed],
                only_tasks=chosen_tasks,
            )

        steps = stale()
        for at, step in enumerate(steps):
            with step_lock(workspace, instance, step):
                waited = _waited(instance, step, None if listener is None else partial(listener, at=at, of=len(steps)))
                if waited and not everything and all(one.name != step.name for one in stale()):
                    continue  # another run has made it meanwhile
                if listener is not None:
                    listener(step, at, len(steps))
                error = _execute(job, instance, step)
            if error is None:
                outcome.made.append(step)
                continue
            outcome.failures[f"{', '.join(step.assets)} ({step.cell})"] = error
            failed.add(step.cell.encoder)
        if "" in failed:  # what every later level needs
            break
    return outcome


def _waited(instance: dg.DagsterInstance, step: Step, tell: Callable[[Step], None] | None) -> bool:
    """Wait while a run of the daemon, the UI or another command line makes the same; whether there was one."""
    waited = False
    while at_work(instance)(step):
        if tell is not None and not waited:
            tell(Step((f"waiting for another run of {step.assets[0]}",), step.cell))
        waited = True
        time.sleep(_PATIENCE_S)
        end_killed_runs(instance)
    return waited


def _chosen(asked: Sequence[str], there: list[str], kind: str) -> list[str]:
    unknown = [name for name in asked if name not in there]
    if unknown:
        named = ", ".join(did_you_mean(name, there) for name in unknown)
        raise UnknownNameError(f"There is no {kind} {named}.", fix=f"There are: {', '.join(there) or 'none'}.")
    return list(asked) or there


def _never(asset: str, cell: Cell) -> str | None:  # noqa: ARG001
    return None


def _execute(job: dg.JobDefinition, instance: dg.DagsterInstance, step: Step) -> str | None:
    """Run one step; what went wrong as one sentence, None where nothing did."""
    key = partition_key(step.cell)
    logging.disable(logging.CRITICAL)  # Dagster's events go to its storage; the terminal has bars
    try:
        result = job.execute_in_process(
            instance=instance,
            partition_key=None if key is None else str(key),
            asset_selection=[dg.AssetKey(name) for name in step.assets],
            raise_on_error=False,
            tags={PROCESS_TAG: this_process(), **step_tags(step)},
        )
    finally:
        logging.disable(logging.NOTSET)
    if result.success:
        return None
    return why_failed(instance, result.run_id)

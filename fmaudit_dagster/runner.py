"""`fmaudit run`: materialise what is missing or stale, level by level, in this process and one run at a time.

Two in-process runs in threads hang on this version of Dagster, so there is one thread; the steps inside use the cores.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import dagster as dg

from fmaudit_core.errors import FmauditError
from fmaudit_core.lineage import digest
from fmaudit_core.plan import LEVELS, Recorded, Step, recorded_in_warehouse, stale_steps
from fmaudit_core.warehouse import Cell
from fmaudit_core.workspace import Workspace
from fmaudit_dagster.instance import PROCESS_TAG, this_process
from fmaudit_dagster.partitions import partition_key

#: told each step as it starts: its assets and its cell
Listener = Callable[[Step], None]


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
    FmauditError
        An encoder or task is not there. What fails while it runs is told in the outcome: a failed encoder is left out of
        later levels and the others go on; a failed cohort, slices or findings end the run.
    """
    specs = workspace.registry.specs()
    chosen = _chosen(encoders, list(specs), "encoder")
    chosen_tasks = _chosen(tasks, list(workspace.audit.tasks), "task")
    outcome, failed = Outcome(), set[str]()
    recorded = _never if everything else _recorded(workspace, instance)
    job = defs.resolve_implicit_global_asset_job_def()
    for level in LEVELS:
        steps = stale_steps(
            workspace,
            level,
            recorded=recorded,
            encoders=specs,
            only_encoders=[name for name in chosen if name not in failed],
            only_tasks=chosen_tasks,
        )
        for step in steps:
            if listener is not None:
                listener(step)
            error = _execute(job, instance, step)
            if error is None:
                outcome.made.append(step)
                continue
            outcome.failures[f"{', '.join(step.assets)} ({step.cell})"] = error
            failed.add(step.cell.encoder)
        if "" in failed:  # what every later level needs
            break
    return outcome


def _chosen(asked: Sequence[str], there: list[str], kind: str) -> list[str]:
    unknown = [name for name in asked if name not in there]
    if unknown:
        raise FmauditError(f"there is no {kind} {', '.join(unknown)}.", fix=f"There are: {', '.join(there) or 'none'}.")
    return list(asked) or there


def _never(asset: str, cell: Cell) -> str | None:  # noqa: ARG001
    return None


def _recorded(workspace: Workspace, instance: dg.DagsterInstance) -> Recorded:
    """Version by which a cell counts as made: what its file says, if Dagster knows of it too."""
    in_warehouse = recorded_in_warehouse(workspace)

    def recorded(asset: str, cell: Cell) -> str | None:
        version = in_warehouse(asset, cell)
        if version is None:
            return None
        key = partition_key(cell)
        filters = dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(asset), asset_partitions=None if key is None else [str(key)]
        )
        found = instance.fetch_materializations(filters, limit=1).records
        materialization = found[0].asset_materialization if found else None
        known = (materialization.tags or {}).get("dagster/data_version") if materialization else None
        return version if known == version else None

    return recorded


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
            tags={
                PROCESS_TAG: this_process(),
                "fmaudit/step": digest(step.assets, str(step.cell))[:12],
                **_named(step.cell),
            },
        )
    finally:
        logging.disable(logging.NOTSET)
    if result.success:
        return None
    return _why(result)


def _named(cell: Cell) -> dict[str, str]:
    return {f"fmaudit/{name}": value for name, value in (("encoder", cell.encoder), ("task", cell.task)) if value}


def _why(result: dg.ExecuteInProcessResult) -> str:
    """The innermost cause of a failed step, or the check that did not pass."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            if error is not None:
                kind, _, text = error.message.strip().partition(": ")
                return text if kind.endswith("Error") and text else error.message.strip()
    failed = [one for one in result.get_asset_check_evaluations() if not one.passed]
    said = [
        f"check {one.check_name} of {one.asset_key.to_user_string()}: {one.description or 'failed'}" for one in failed
    ]
    return "; ".join(said) or "the run failed; see it in `fmaudit ui`."

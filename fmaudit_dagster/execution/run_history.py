"""Dagster's records of a step: the version of its last run, whether it is running, whether it has failed."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import dagster as dg

from fmaudit_core.pipeline.snapshot import RunHistory
from fmaudit_core.pipeline.stale_steps import StaleStep
from fmaudit_core.pipeline.steps import By, step_of_asset
from fmaudit_core.storage.warehouse import WHOLE, Cell
from fmaudit_dagster.partitions import partition_key
from fmaudit_dagster.run_leases import KILLED_TAG

STEP_TAG = "fmaudit/step"
VERSION_TAG = "fmaudit/version"
#: marks a run that makes its step again though it may be fresh
FORCED_TAG = "fmaudit/forced"
#: marks a run that a command line waits for: its failure is reported at once
ATTENDED_TAG = "fmaudit/attended"
#: marks a failed run whose disk, mount, memory or device failed, not its data
SURROUNDINGS_TAG = "fmaudit/surroundings"
DATA_VERSION_TAG = "dagster/data_version"

_AT_WORK = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_NO_FAULT_OF_THE_STEP = ("START_TIMEOUT", "UNEXPECTED_TERMINATION", "RUN_WORKER_RESTART")
#: how often a step is tried for one version, if its runs were killed, their surroundings failed, or its tables were lost
_ATTEMPTS = 3
#: backfills that may not have ended, the latest first
_RECENT_BACKFILLS = 20


def step_tags(step: StaleStep) -> dict[str, str]:
    """Tags by which a run of a step is found again."""
    named = {"encoder": step.cell.encoder, "task": step.cell.task}
    named_tags = {f"fmaudit/{name}": value for name, value in named.items() if value}
    return {STEP_TAG: step.name, VERSION_TAG: step.version, **named_tags}


def asset_history(instance: dg.DagsterInstance) -> RunHistory:
    """Return the versions that Dagster recorded for each asset and cell; each asset is asked for once."""

    @functools.cache
    def recorded(asset: str) -> Mapping[str, str]:
        if step_of_asset(asset).by == By.WHOLE:
            found = latest_materialization(instance, asset, WHOLE)
            materialization = found.asset_materialization if found else None
            return {"": ((materialization.tags or {}) if materialization else {}).get(DATA_VERSION_TAG, "")}
        tags = instance.event_log_storage.get_latest_tags_by_partition(
            dg.AssetKey(asset), dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
        )
        return {partition: of.get(DATA_VERSION_TAG, "") for partition, of in tags.items()}

    return lambda asset, cell: recorded(asset).get(str(partition_key(cell) or "")) or None


def runs_behind(instance: dg.DagsterInstance, encoders: Iterable[str]) -> dict[str, str]:
    """Return the run that last materialised the cohort, the findings and each encoder's embeddings: asset -> run id.

    What was made without Dagster, and what has no such asset, is left out.
    """
    asked = [(name, Cell()) for name in ("studies", "labels", "audit_findings")]
    asked += [("study_embeddings", Cell(name)) for name in encoders]
    found = {
        f"{asset} ({cell})" if cell.encoder else asset: latest_materialization(instance, asset, cell)
        for asset, cell in asked
    }
    return {what: record.run_id for what, record in found.items() if record is not None}


def runs_of_cells(
    instance: dg.DagsterInstance, tables: Iterable[str], cells: Sequence[Cell]
) -> dict[tuple[str, str, str], str]:
    """Return the run that last made each table of each cell: (table, encoder, task) -> run id."""
    latest = {(table, cell): latest_materialization(instance, table, cell) for table in tables for cell in cells}
    return {
        (table, cell.encoder, cell.task): record.run_id
        for (table, cell), record in latest.items()
        if record is not None
    }


def latest_materialization(instance: dg.DagsterInstance, asset: str, cell: Cell) -> dg.EventLogRecord | None:
    """Return the last materialisation of a cell."""
    key = partition_key(cell)
    filters = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=None if key is None else [str(key)])
    return next(iter(instance.fetch_materializations(filters, limit=1).records), None)


@dataclass(frozen=True)
class RunningSteps:
    """Runs that have not ended, as they were at one moment."""

    run_ids: tuple[str, ...]
    #: (asset, partition) of each; the partition is empty for a whole asset, `*` where a run makes a range of them
    making: frozenset[tuple[str, str]]

    def __call__(self, step: StaleStep) -> bool:
        """Whether some asset of the step is being made."""
        key = str(partition_key(step.cell) or "")
        return any({(asset, key), (asset, "*")} & self.making for asset in step.assets)


def running_steps(instance: dg.DagsterInstance) -> RunningSteps:
    """Return the steps that are running, whoever requested them."""
    runs = instance.get_runs(dg.RunsFilter(statuses=_AT_WORK))
    return RunningSteps(tuple(sorted(run.run_id for run in runs)), frozenset(_made_by(runs)))


def with_backfills(running: RunningSteps, instance: dg.DagsterInstance) -> RunningSteps:
    """Return what is running, with the assets of backfills that have not ended: the daemon has runs of them still to request."""
    active = (one for one in instance.get_backfills(limit=_RECENT_BACKFILLS) if one.status.value == "REQUESTED")
    awaited = {(key.to_user_string(), "*") for one in active for key in one.asset_selection or ()}
    return replace(running, making=running.making | awaited)


def _made_by(runs: Iterable[dg.DagsterRun]) -> Iterable[tuple[str, str]]:
    for run in runs:
        whole = "*" if "dagster/asset_partition_range_start" in run.tags else run.tags.get("dagster/partition", "")
        for key in run.asset_selection or ():
            yield key.to_user_string(), whole


def times_ended(instance: dg.DagsterInstance, step: StaleStep) -> int:
    """How many runs of a step have ended, for any version of it."""
    return instance.get_runs_count(dg.RunsFilter(tags={STEP_TAG: step.name}, statuses=_ENDED))


def why_spent(instance: dg.DagsterInstance, step: StaleStep) -> str | None:
    """Why a step is not tried again for its version: it failed, or its runs were killed too often. None where it may be."""
    ended = instance.get_runs(dg.RunsFilter(tags={STEP_TAG: step.name}, statuses=_ENDED), limit=_ATTEMPTS)
    of_version = []
    for run in ended:  # the latest first, back to where it had another version
        if run.tags.get(VERSION_TAG) != step.version:
            break
        of_version.append(run)
    if not of_version:
        return None
    last = of_version[0]
    if last.status == dg.DagsterRunStatus.CANCELED:
        return "its run was cancelled."
    if last.status == dg.DagsterRunStatus.FAILURE and not _was_no_fault(last):
        return why_failed(instance, last.run_id)
    if len(of_version) == _ATTEMPTS:
        return f"it was tried {_ATTEMPTS} times, each time killed, short of disk, memory or device, or what it made was lost."
    return None


def why_failed(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return why a run failed: the step's own sentence, else its innermost cause, or the checks that did not pass."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        failure = event.step_failure_data.user_failure_data if event is not None else None
        if failure is not None and failure.description:  # causes below it are a library's words, which may quote a cell
            return failure.description
        error = event.step_failure_data.error if event is not None else None
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            kind, _, text = error.message.strip().partition(": ")
            return text if kind.endswith("Error") and text else error.message.strip()
    reasons = []
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        event = entry.dagster_event
        check = event.asset_check_evaluation_data if event is not None else None
        if check is not None and not check.passed:
            asset = check.asset_key.to_user_string()
            reasons.append(f"check {check.check_name} of {asset}: {check.description or 'failed'}")
    return "; ".join(reasons) or "the run failed; see it in `fmaudit ui`."


def _was_no_fault(run: dg.DagsterRun) -> bool:
    return (
        KILLED_TAG in run.tags
        or SURROUNDINGS_TAG in run.tags
        or run.tags.get("dagster/failure_reason") in _NO_FAULT_OF_THE_STEP
    )

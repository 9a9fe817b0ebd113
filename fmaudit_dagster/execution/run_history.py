"""What Dagster's records say of a step: the version it was last made with, whether it is at work, whether it has failed."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from fmaudit_core.pipeline.stale_steps import Recorded, Step, recorded_in_warehouse
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.digests import digest
from fmaudit_core.storage.warehouse import Cell
from fmaudit_dagster.execution.instance import KILLED_TAG
from fmaudit_dagster.partitions import partition_key
from fmaudit_dagster.processes import this_process

STEP_TAG = "fmaudit/step"
VERSION_TAG = "fmaudit/version"

_AT_WORK = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_NO_FAULT_OF_THE_STEP = ("START_TIMEOUT", "UNEXPECTED_TERMINATION", "RUN_WORKER_RESTART")
#: how often a step is tried for one version, where its runs were killed or what it made was lost again
_ATTEMPTS = 3


def step_tags(step: Step) -> dict[str, str]:
    """Tags by which a run of a step is found again."""
    named = {"encoder": step.cell.encoder, "task": step.cell.task}
    told = {f"fmaudit/{name}": value for name, value in named.items() if value}
    return {STEP_TAG: step.name, VERSION_TAG: step.version, **told}


def recorded(workspace: Workspace, instance: dg.DagsterInstance) -> Recorded:
    """Version by which a cell counts as made: what its file says, if Dagster knows of it too."""
    in_warehouse = recorded_in_warehouse(workspace)

    def version_of(asset: str, cell: Cell) -> str | None:
        version = in_warehouse(asset, cell)
        if version is None:
            return None
        found = _latest(instance, asset, cell)
        materialization = found.asset_materialization if found else None
        known = (materialization.tags or {}).get("dagster/data_version") if materialization else None
        return version if known == version else None

    return version_of


def runs_behind(instance: dg.DagsterInstance, encoders: Iterable[str]) -> dict[str, str]:
    """The run that last made the cohort, the findings, and the embeddings of each encoder: what was made -> run id.

    What was made without Dagster, and what has no such asset, is left out.
    """
    asked = [(name, Cell()) for name in ("studies", "labels", "audit_findings")]
    asked += [("study_embeddings", Cell(name)) for name in encoders]
    found = {f"{asset} ({cell})" if cell.encoder else asset: _latest(instance, asset, cell) for asset, cell in asked}
    return {what: record.run_id for what, record in found.items() if record is not None}


def _latest(instance: dg.DagsterInstance, asset: str, cell: Cell) -> dg.EventLogRecord | None:
    """The last materialisation of a cell."""
    key = partition_key(cell)
    filters = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=None if key is None else [str(key)])
    return next(iter(instance.fetch_materializations(filters, limit=1).records), None)


@dataclass(frozen=True)
class AtWork:
    """Runs that have not ended, as they were at one moment."""

    run_ids: tuple[str, ...]
    #: (asset, partition) of each; the partition is empty for a whole asset, `*` where a run makes a range of them
    making: frozenset[tuple[str, str]]

    def __call__(self, step: Step) -> bool:
        """Whether some asset of the step is being made."""
        key = str(partition_key(step.cell) or "")
        return any({(asset, key), (asset, "*")} & self.making for asset in step.assets)


def at_work(instance: dg.DagsterInstance, *, but: str | None = None) -> AtWork:
    """What is being made now, whoever asked for it.

    Parameters
    ----------
    but : str, optional
        A run to pass over.
    """
    runs = [run for run in instance.get_runs(dg.RunsFilter(statuses=_AT_WORK)) if run.run_id != but]
    return AtWork(tuple(sorted(run.run_id for run in runs)), frozenset(_made_by(runs)))


def _made_by(runs: Iterable[dg.DagsterRun]) -> Iterable[tuple[str, str]]:
    for run in runs:
        whole = "*" if "dagster/asset_partition_range_start" in run.tags else run.tags.get("dagster/partition", "")
        for key in run.asset_selection or ():
            yield key.to_user_string(), whole


def times_ended(instance: dg.DagsterInstance, step: Step) -> int:
    """How many runs of a step have ended, for any version of it."""
    return instance.get_runs_count(dg.RunsFilter(tags={STEP_TAG: step.name}, statuses=_ENDED))


def why_spent(instance: dg.DagsterInstance, step: Step) -> str | None:
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
    if last.status == dg.DagsterRunStatus.FAILURE and not _was_killed(last):
        return why_failed(instance, last.run_id)
    if len(of_version) == _ATTEMPTS:
        return f"it was tried {_ATTEMPTS} times, and each time its process was killed or what it made was lost."
    return None


def why_failed(instance: dg.DagsterInstance, run_id: str) -> str:
    """The innermost cause of a failed run, or the checks that did not pass, as a sentence."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        error = event.step_failure_data.error if event is not None else None
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            kind, _, text = error.message.strip().partition(": ")
            return text if kind.endswith("Error") and text else error.message.strip()
    said = []
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        event = entry.dagster_event
        check = event.asset_check_evaluation_data if event is not None else None
        if check is not None and not check.passed:
            asset = check.asset_key.to_user_string()
            said.append(f"check {check.check_name} of {asset}: {check.description or 'failed'}")
    return "; ".join(said) or "the run failed; see it in `fmaudit ui`."


def _was_killed(run: dg.DagsterRun) -> bool:
    return KILLED_TAG in run.tags or run.tags.get("dagster/failure_reason") in _NO_FAULT_OF_THE_STEP


#: name of the sensor whose ticks ask for steps
REGISTRY_SENSOR = "registry_sensor"
#: seconds a claim holds: by then its run stands in the records, or its process was killed
_HOLDS_S = 60.0


@contextmanager
def step_lock(workspace: Workspace, instance: dg.DagsterInstance, step: Step) -> Iterator[None]:
    """Claim a step; on return no tick is at work that has not seen the claim."""
    path = workspace.home / "claims" / f"{digest(this_process(), step.name)}.json"
    key = str(partition_key(step.cell) or "")
    with written_beside(path, durable=False) as beside:
        beside.write_text(json.dumps([[asset, key] for asset in step.assets]), encoding="utf-8")
    try:
        _outlast_ticks(instance)
        yield
    finally:
        path.unlink(missing_ok=True)


def claims(workspace: Workspace) -> frozenset[tuple[str, str]]:
    """Assets and partitions that are claimed now."""
    found = []
    for path in (workspace.home / "claims").glob("[!.]*.json"):
        try:
            if time.time() - path.stat().st_mtime < _HOLDS_S:
                found += [(asset, key) for asset, key in json.loads(path.read_text(encoding="utf-8"))]
        except FileNotFoundError:  # given up meanwhile
            continue
    return frozenset(found)


def stale_claims(workspace: Workspace) -> list[Path]:
    """Files of claims that hold no longer: their processes were killed."""
    found = (workspace.home / "claims").glob("[!.]*.json")
    return sorted(path for path in found if time.time() - path.stat().st_mtime >= _HOLDS_S)


def _outlast_ticks(instance: dg.DagsterInstance) -> None:
    """Wait until the sensor's tick of this moment has ended; one that outlasts a claim was killed."""
    started = time.time()
    states = [state for state in instance.all_instigator_state() if state.instigator_name == REGISTRY_SENSOR]
    for state in states:
        while _is_ticking(instance, state.instigator_origin_id, state.selector_id, started):
            time.sleep(0.1)


def _is_ticking(instance: dg.DagsterInstance, origin_id: str, selector_id: str, started: float) -> bool:
    ticks = instance.get_ticks(origin_id, selector_id, before=started, after=time.time() - _HOLDS_S, limit=1)
    return any(tick.status.value == "STARTED" for tick in ticks)

"""The audit that starts by itself: what landed in the registry, and the re-audit by the clock or when the cohort changed; and
the end of runs whose process is gone.

Core decides what is stale (`fmaudit_core/pipeline/stale_steps.py`); here it becomes runs. A step that is running is not
asked for, one that has failed for a version is reported once and left until its inputs change.
"""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.pipeline.changed_sources import fingerprint, source_changed, source_fingerprint, usable_specs
from fmaudit_core.pipeline.run_cohort import is_drawn
from fmaudit_core.pipeline.snapshot import Snapshot, snapshot_of
from fmaudit_core.pipeline.stale_steps import StaleStep, next_steps
from fmaudit_core.pipeline.steps import STEPS, step_of
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.digests import digest
from fmaudit_dagster.configured import automation, gpu_run_tags
from fmaudit_dagster.execution.instance import partition_changes
from fmaudit_dagster.execution.recorded_cells import unrecorded_empty_cells
from fmaudit_dagster.execution.run_history import (
    asset_history,
    running_steps,
    step_tags,
    times_ended,
    why_spent,
    with_backfills,
)
from fmaudit_dagster.partitions import ENCODER, partition_key
from fmaudit_dagster.resources import AuditWorkspace
from fmaudit_dagster.run_leases import end_killed_runs

#: assets that a cluster gives a GPU
ON_GPU = frozenset(asset for step in STEPS if step.gpu for asset in step.assets)
#: marks the runs of a re-audit
REAUDIT_TAG = "fmaudit/reaudit"
_SETTINGS = automation()
_Cursor = dict[str, Any]


def _status(on: bool, kind: Any) -> Any:
    return kind.RUNNING if on else kind.STOPPED


@dg.sensor(
    name="registry_sensor",
    asset_selection=dg.AssetSelection.all(),
    minimum_interval_seconds=_SETTINGS.landing_interval_s,
    default_status=_status(_SETTINGS.landing or _SETTINGS.reaudit, dg.DefaultSensorStatus),
)
def registry_sensor(context: dg.SensorEvaluationContext, audit: AuditWorkspace) -> dg.SensorResult | dg.SkipReason:
    """Request stale steps once their inputs are fresh: a new encoder, a changed spec, changes found by a re-audit."""
    cursor: _Cursor = json.loads(context.cursor or "{}")
    try:
        return _look(context, audit.open(), cursor)
    except FmauditError as error:  # not a failure of the sensor: at the next tick audit.yaml may be fixed
        return dg.SkipReason(str(error))


def _look(
    context: dg.SensorEvaluationContext, workspace: Workspace, cursor: _Cursor
) -> dg.SensorResult | dg.SkipReason:
    instance = context.instance
    running = with_backfills(running_steps(instance), instance)
    specs, usable, problems = usable_specs(workspace.registry)
    new, retired = partition_changes(instance, specs, problems)
    due = _last_reaudit(instance)
    if not workspace.audit.automation.landing and due == cursor.get("done"):
        return dg.SkipReason("landing is off in audit.yaml, and no re-audit is due.")
    seen = digest(
        fingerprint(workspace, usable.values()), problems, running.run_ids, sorted(running.making), new, retired, due
    )
    if cursor.get("quiet") == seen:
        return dg.SkipReason(_skip_message(cursor.get("reported", {}), waits=bool(running.run_ids)))

    snapshot = Snapshot(workspace, specs, asset_history(instance))
    found = next_steps(
        snapshot,
        encoders=list(usable),
        tasks=workspace.audit.tasks,
        is_running=running,
        failure_reason=lambda step: why_spent(instance, step),
    )
    reported = problems | found.failure_reasons
    _report(context, cursor.get("reported", {}), reported, new, retired)
    later: _Cursor = {"reported": reported, "quiet": None if found.steps else seen, "done": cursor.get("done")}
    if found.idle:
        later["done"] = due
    return dg.SensorResult(
        run_requests=[_request(instance, step) for step in found.steps],
        dynamic_partitions_requests=_partition_requests(new, retired),
        asset_events=unrecorded_empty_cells(snapshot),
        skip_reason=None if found.steps else _skip_message(reported, waits=not found.idle),
        cursor=json.dumps(later),
    )


def _partition_requests(new: list[str], retired: list[str]) -> list[Any]:
    requests: list[Any] = []
    if new:
        requests.append(ENCODER.build_add_request(new))
    if retired:
        requests.append(ENCODER.build_delete_request(retired))
    return requests


def _request(instance: dg.DagsterInstance, step: StaleStep) -> dg.RunRequest:
    """Request a run of one step. The key counts previous runs, so that a version that returns is produced again."""
    key = partition_key(step.cell)
    on_gpu = not ON_GPU.isdisjoint(step.assets)
    return dg.RunRequest(
        run_key=f"{step.name}:{step.version}:{times_ended(instance, step)}",
        asset_selection=[dg.AssetKey(name) for name in step.assets],
        partition_key=None if key is None else str(key),
        tags={**step_tags(step), **(gpu_run_tags() if on_gpu else {})},
    )


def _report(
    context: dg.SensorEvaluationContext,
    before: Mapping[str, str],
    reported: Mapping[str, str],
    new: list[str],
    retired: list[str],
) -> None:
    """Log what is news: each problem once, by the name of its file, encoder or step."""
    for name, why in reported.items():
        if before.get(name) != why:
            context.log.warning(f"{name} is passed over until it changes: {why}")
    for name in new:
        context.log.info(f"the encoder {name} has landed")
    for name in retired:
        context.log.info(f"the encoder {name} is retired; its results are kept")


def _skip_message(reported: Mapping[str, str], *, waits: bool) -> str:
    standing = "waiting for running runs" if waits else "everything is up to date"
    return f"{standing}; passed over until they change: {', '.join(sorted(reported))}" if reported else standing


def _last_reaudit(instance: dg.DagsterInstance) -> str | None:
    """Return the latest successful run of a re-audit."""
    ended = dg.RunsFilter(tags={REAUDIT_TAG: "true"}, statuses=[dg.DagsterRunStatus.SUCCESS])
    runs = instance.get_runs(ended, limit=1)
    return runs[0].run_id if runs else None


_SOURCES = [dg.AssetKey(name) for step in STEPS if step.sources for name in step.assets]


@dg.schedule(
    name="reaudit_schedule",
    target=dg.AssetSelection.assets(*_SOURCES),
    cron_schedule=_SETTINGS.reaudit_cron,
    default_status=_status(_SETTINGS.reaudit, dg.DefaultScheduleStatus),
)
def reaudit_schedule(context: dg.ScheduleEvaluationContext, audit: AuditWorkspace) -> dg.RunRequest | dg.SkipReason:
    """Request a new look at the cohort and every image; the sensor then runs only what depends on a change."""
    if not audit.open().audit.automation.reaudit:
        return dg.SkipReason("the re-audit is off in audit.yaml.")
    return _reaudit(f"reaudit:{context.scheduled_execution_time.isoformat()}")


@dg.sensor(
    name="cohort_sensor",
    target=dg.AssetSelection.assets(*_SOURCES),
    minimum_interval_seconds=_SETTINGS.cohort_interval_s,
    default_status=_status(_SETTINGS.reaudit, dg.DefaultSensorStatus),
)
def cohort_sensor(context: dg.SensorEvaluationContext, audit: AuditWorkspace) -> dg.SensorResult | dg.SkipReason:
    """Asks for a re-audit when the cohort's table holds something else than was audited."""
    workspace = audit.open()
    if not workspace.audit.automation.reaudit:
        return dg.SkipReason("the re-audit is off in audit.yaml.")
    if not is_drawn(workspace) or workspace.warehouse.version("studies") is None:
        return dg.SkipReason("there is no audit yet.")
    try:
        seen = source_fingerprint(workspace)
        if seen == context.cursor:
            return dg.SkipReason("the cohort's table is as it was.")
        changed = source_changed(snapshot_of(workspace), step_of("cohort"))
    except (FmauditError, OSError) as error:
        return dg.SkipReason(str(error))
    if not changed:
        return dg.SensorResult(skip_reason="the cohort is the one that was audited.", cursor=seen)
    return dg.SensorResult(run_requests=[_reaudit(f"cohort:{seen}")], cursor=seen)


@dg.sensor(name="killed_runs_sensor", minimum_interval_seconds=10, default_status=dg.DefaultSensorStatus.RUNNING)
def killed_runs_sensor(context: dg.SensorEvaluationContext, audit: AuditWorkspace) -> dg.SkipReason:
    """End runs whose process is gone, so that queued runs do not wait for their places."""
    try:
        end_killed_runs(context.instance, audit.open().root)
    except FmauditError as error:
        return dg.SkipReason(str(error))
    return dg.SkipReason("runs whose process is gone were looked for.")


def _reaudit(key: str) -> dg.RunRequest:
    """One run that makes the cohort and the slices again; their pool lets it wait for one that is at it."""
    return dg.RunRequest(run_key=key, asset_selection=_SOURCES, tags={REAUDIT_TAG: "true"})


SENSORS = [registry_sensor, cohort_sensor, killed_runs_sensor]
SCHEDULES = [reaudit_schedule]

"""One look of each automation at a time, without a daemon: what it asks for, and when it keeps quiet."""

from __future__ import annotations

import json

import dagster as dg
import polars as pl

from fmaudit_core.pipeline.steps import COHORT_TABLES
from tests.platform.conftest import made, reconfigured, run
from tests.platform.test_next_steps import land


def look(workspace, name, cursor=None):
    """One tick: what it returned, and its log's warnings."""
    from fmaudit_dagster.execution import sensors
    from fmaudit_dagster.execution.instance import opened
    from fmaudit_dagster.resources import AuditWorkspace

    resources = {"audit": AuditWorkspace(audit_yaml=str(workspace.audit_yaml))}
    with (
        opened(workspace) as instance,
        dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context,
    ):
        return getattr(sensors, name)(context)


def test_the_registry_is_looked_at_once_while_nothing_changes(copied):
    first = look(copied, "registry_sensor")
    assert isinstance(first, dg.SensorResult)
    assert not first.run_requests
    second = look(copied, "registry_sensor", first.cursor)
    assert isinstance(second, dg.SkipReason)
    land(copied, "second", variant="other")
    third = look(copied, "registry_sensor", first.cursor)
    (request,) = third.run_requests
    assert request.partition_key == "second"
    assert json.loads(request.tags["dagster-k8s/config"])["container_config"]["resources"]["limits"]
    assert json.loads(third.cursor)["quiet"] is None


def test_a_version_that_comes_back_is_made_again(small):
    keys = []
    for variant in ("a", "b", "a"):
        land(small, "second", variant=variant)
        (request,) = look(small, "registry_sensor").run_requests
        keys.append(request.run_key)
        if len(keys) == 3:
            break
        assert "study_embeddings second" in made(run(small, encoders=["second"], tasks=["pe"]))
    assert len(set(keys)) == 3
    assert keys[0].rsplit(":", 1)[0] == keys[2].rsplit(":", 1)[0]


def test_what_failed_by_the_command_line_is_not_tried_again_but_told(copied):
    land(copied, "failing", dim=81)
    assert run(copied).failures
    asked = look(copied, "registry_sensor")
    assert not asked.run_requests
    assert "study_embeddings/failing" in json.loads(asked.cursor)["reported"]
    land(copied, "failing", dim=82)  # its inputs changed
    assert [one.partition_key for one in look(copied, "registry_sensor").run_requests] == ["failing"]


def test_switched_off_in_the_audit_neither_acts(copied):
    land(copied, "second", variant="other")
    off = reconfigured(copied, automation={"landing": False, "reaudit": False})
    assert isinstance(look(off, "registry_sensor"), dg.SkipReason)
    assert isinstance(look(off, "cohort_sensor"), dg.SkipReason)


def test_a_changed_cohort_is_audited_again_and_an_untouched_one_is_not(copied):
    first = look(copied, "cohort_sensor")
    assert first.skip_reason.skip_message == "the cohort is the one that was audited."
    assert look(copied, "cohort_sensor", first.cursor).skip_message == "the cohort's table is as it was."
    table = pl.read_csv(copied.table.table, infer_schema=False)
    table.with_columns(sex=pl.lit("male")).with_columns(
        sex=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("female")).otherwise("sex")
    ).write_csv(copied.table.table)
    (request,) = look(copied, "cohort_sensor", first.cursor).run_requests
    assert {key.to_user_string() for key in request.asset_selection} == {*COHORT_TABLES, "acquisition", "ct_slices"}
    assert request.tags == {"fmaudit/reaudit": "true"}


def test_the_clock_asks_once_for_each_of_its_times(copied):
    from datetime import UTC, datetime

    from fmaudit_dagster.execution.sensors import reaudit_schedule
    from fmaudit_dagster.resources import AuditWorkspace

    asked, resources = [], {"audit": AuditWorkspace(audit_yaml=str(copied.audit_yaml))}
    for month in (1, 1, 2):
        at = datetime(2026, month, 1, 3, tzinfo=UTC)
        with dg.build_schedule_context(scheduled_execution_time=at, resources=resources) as context:
            asked.append(reaudit_schedule(context).run_key)
    assert asked[0] == asked[1] != asked[2]

"""Steps as assets: made again on request, locked meanwhile, retried by what failed; and every check of what they make."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from unittest import mock

import dagster as dg
import polars as pl
import pytest
import yaml

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.encoders.errors import EncoderError
from fmaudit_core.pipeline.steps import STEPS, step_of
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.atomic_write import PublishError
from fmaudit_core.storage.warehouse import WHOLE, Cell
from fmaudit_core.tables.schemas import TABLES
from fmaudit_core.tables.table import Table
from tests.platform.conftest import made, run

CELL = Cell("hu_histogram", "pe")


def resource(workspace):
    from fmaudit_dagster.resources import AuditWorkspace

    return AuditWorkspace(audit_yaml=str(workspace.audit_yaml))


def test_making_everything_makes_every_step_again_and_ends_in_a_report(small):
    assert (small.reports / "index.html").stat().st_size > 100_000  # of an empty workspace too
    again = {line.split()[0] for line in made(run(small, everything=True))}
    absent = {
        "neural_fits",
        "adjusted_gaps",
        "demographic_probes",
        "mitigation_scores",
        "mitigation_results",
        "mitigation_capacity",
    }
    assert again == {asset for step in STEPS if step.name not in absent for asset in step.assets}
    assert run(small).made == []


def test_dagster_has_every_declared_step_with_its_inputs_and_partitions():
    from fmaudit_dagster.definitions import defs
    from fmaudit_dagster.partitions import PARTITIONS

    graph = defs.resolve_asset_graph()
    for step in STEPS:
        for asset in step.assets:
            node = graph.get(dg.AssetKey(asset))
            assert {key.to_user_string() for key in node.parent_keys} == set(step.input_assets), asset
            assert node.partitions_def == PARTITIONS[step.by]
            (reference,) = node.metadata["dagster/code_references"].code_references
            assert reference.file_path.endswith(".py")
            assert "step_asset.py" not in reference.file_path


def test_the_folded_graph_has_a_dozen_boxes_at_most_in_the_order_of_the_data():
    groups = list(dict.fromkeys(step.group for step in STEPS))
    assert len(groups) <= 12
    for step in STEPS:
        for source in step.input_steps.values():
            assert groups.index(source.group) <= groups.index(step.group), f"{step.name} reads {source.name}"


def failing(monkeypatch, error):
    tried = []

    def fit(*_, **__):
        tried.append(error)
        raise error

    monkeypatch.setattr("fmaudit_dagster.assets.probes.fit_encoder", fit)
    return tried


def daemon_run(workspace, step, *, asset=None, **tags):
    """What a run of the daemon does, in this process."""
    from fmaudit_dagster.definitions import definitions_for
    from fmaudit_dagster.execution.instance import opened
    from fmaudit_dagster.execution.run_history import STEP_TAG, VERSION_TAG, why_spent
    from fmaudit_dagster.execution.sensors import StaleStep

    one = StaleStep(step_of(step), Cell("hu_histogram"), (step,), "wanted")
    with opened(workspace) as instance:
        result = (
            definitions_for(workspace.audit_yaml)
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                instance=instance, partition_key="hu_histogram", asset_selection=[dg.AssetKey(asset or step)],
                raise_on_error=False, tags={STEP_TAG: one.name, VERSION_TAG: one.version, **tags},
            )
        )  # fmt: skip
        return result, instance.get_run_by_id(result.run_id), why_spent(instance, one)


def test_a_failure_of_the_data_is_told_and_waits_for_other_data(small, monkeypatch):
    small.warehouse.path("probe_fits", Cell("hu_histogram")).unlink()
    tried = failing(monkeypatch, EncoderError("12 studies have no embedding."))
    _, _, why = daemon_run(small, "probe_fits")
    assert len(tried) == 1
    assert why == "12 studies have no embedding."


def test_a_failure_of_the_surroundings_is_tried_again_in_its_run_and_in_later_ones(small, monkeypatch):
    import fmaudit_dagster.assets.step_asset as step_asset

    assert step_asset.RETRIES.max_retries == 2
    small.warehouse.path("probe_fits", Cell("hu_histogram")).unlink()
    failing(monkeypatch, PublishError("no space left on device."))
    _, record, why = daemon_run(small, "probe_fits", **{"fmaudit/attended": "true"})
    assert "fmaudit/surroundings" in record.tags
    assert why is None
    for _ in range(2):
        _, _, why = daemon_run(small, "probe_fits", **{"fmaudit/attended": "true"})
    assert "it was tried 3 times" in why


@pytest.mark.parametrize(
    ("error", "of_surroundings"),
    [
        (OSError(5, "Input/output error"), True),
        (PublishError("the disk is full."), True),
        (MemoryError(), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), True),
        (FmauditError("a patient is in two splits."), False),
        (ValueError("no such column"), False),
    ],
)
def test_what_failed_is_told_from_the_error(error, of_surroundings):
    from fmaudit_dagster.assets import failures

    assert failures.of_surroundings(error) == of_surroundings


def test_a_run_that_was_asked_for_staleness_makes_nothing_where_another_was_first(small):
    from fmaudit_dagster.execution.run_history import FORCED_TAG

    result, _, _ = daemon_run(small, "probe_fits")
    assert result.success
    assert result.get_asset_materialization_events() == []
    result, _, _ = daemon_run(small, "probe_fits", **{FORCED_TAG: "true"})
    assert len(result.get_asset_materialization_events()) == 1


def test_a_step_is_made_by_one_process_at_a_time_however_long_it_takes(small):
    from fmaudit_dagster.execution.step_lock import step_lock

    step, entered = step_of("probe_fits"), threading.Event()
    code = (
        "import sys, pathlib\nfrom fmaudit_core.pipeline.workspace import open_workspace\n"
        "from fmaudit_core.pipeline.steps import step_of\nfrom fmaudit_core.storage.warehouse import Cell\n"
        "from fmaudit_dagster.execution.step_lock import step_lock\n"
        f"workspace = open_workspace(pathlib.Path({str(small.audit_yaml)!r}))\n"
        "with step_lock(workspace, step_of('probe_fits'), Cell('hu_histogram'), 'one'):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"

        def enter():
            with step_lock(small, step, Cell("hu_histogram"), "two"):
                entered.set()

        waiting = threading.Thread(target=enter)
        waiting.start()
        with step_lock(small, step, Cell("another"), "two"):  # another cell waits for nobody
            pass
        time.sleep(0.5)
        assert not entered.is_set()
        other.kill()  # a killed process holds nothing
        waiting.join(timeout=60)
        assert entered.is_set()


def test_the_command_line_waits_for_a_running_step_and_tells_which(small, monkeypatch):
    from fmaudit_dagster.execution import runner

    small.warehouse.path("probe_fits", Cell("hu_histogram")).unlink()
    looks = iter([{"probe_fits"}, {"probe_fits"}])

    def running_steps(_):
        busy = next(looks, set())
        return lambda step: bool(busy & set(step.assets))

    heard = []
    monkeypatch.setattr(runner, "running_steps", running_steps)
    monkeypatch.setattr(runner, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(runner._Run, "sources", lambda _: True)
    outcome = run(small, listener=lambda name, cell, at, of: heard.append(name))
    assert outcome.failures == {}
    assert heard[0] == "waiting for another run of probe_fits"
    assert "probe_fits hu_histogram" in made(outcome)


def test_the_cohort_sensor_looks_at_an_inspect_release_without_raising(tmp_path):
    from tests.platform.test_sensors import look

    (tmp_path / "release").mkdir()
    (tmp_path / "encoders").mkdir()
    raw = {"name": "x", "cohort": {"kind": "inspect", "root": "release"}, "tasks": ["pe"]}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(raw))
    workspace = open_workspace(tmp_path / "audit.yaml")
    assert look(workspace, "cohort_sensor").skip_message == "there is no audit yet."
    workspace.warehouse.publish("studies", TABLES["studies"].frame(), version="1")
    assert "is not a complete INSPECT download" in look(workspace, "cohort_sensor").skip_message


def test_what_failed_in_a_cohort_is_tried_again_when_its_table_changed(small):
    """By the daemon: the version of the step, under which its failure is remembered, follows the table."""
    from tests.platform.test_sensors import look

    small.warehouse.path("studies").unlink()
    keys = []
    for text in ("study_id\n", "study_id,patient_id\n"):
        small.table.table.write_text(text)
        (request,) = look(small, "registry_sensor").run_requests
        keys.append(request.run_key)
    assert keys[0] != keys[1]


def check(workspace, name):
    from fmaudit_dagster import checks

    of_cells = {"embeddings_are_finite_and_whole": Cell("hu_histogram"), "every_known_label_is_scored": CELL}
    if name in of_cells:
        return getattr(checks, name)(workspace, of_cells[name])
    return getattr(checks, name)(audit=resource(workspace))


def test_every_check_passes_on_an_audit_that_is_whole(small):
    from fmaudit_dagster.checks import CHECKS

    names = [spec.name for one in CHECKS for spec in one.check_specs]
    assert sorted(names) == [
        "embeddings_are_finite_and_whole", "encoders_beat_the_control", "every_encoder_is_audited",
        "every_known_label_is_scored", "features_are_of_the_past", "most_series_are_readable", "no_patient_in_two_splits",
        "no_subgroup_got_worse", "one_label_per_study_and_task",
    ]  # fmt: skip
    for name in names:
        assert check(small, name).passed, name


def tamper(workspace, table, change, cell=WHOLE):
    """Publish rows that a step could not: what a defect of a step, or another program, would leave."""
    frame = workspace.warehouse.read(table, cell)
    with mock.patch.object(Table, "check"):
        workspace.warehouse.publish(table, change(frame), version="tampered", cell=cell)


@pytest.mark.parametrize(
    ("name", "table", "cell", "change"),
    [
        ("no_patient_in_two_splits", "studies", WHOLE, lambda frame: frame.with_columns(patient_id=pl.lit("one"))),
        ("one_label_per_study_and_task", "labels", WHOLE, lambda frame: pl.concat([frame, frame.head(1)])),
        ("most_series_are_readable", "slice_quality", WHOLE, lambda frame: frame.with_columns(used=pl.int_range(pl.len()) > 20)),
        ("features_are_of_the_past", "ehr_rows", WHOLE, lambda frame: frame.with_columns(last_event_time="cutoff_time")),
        ("every_known_label_is_scored", "probe_predictions", CELL, lambda frame: frame.head(frame.height - 5)),
    ],
)  # fmt: skip
def test_a_check_fails_on_what_it_is_there_for(small, name, table, cell, change):
    tamper(small, table, change, cell)
    assert not check(small, name).passed


def test_a_subgroup_that_got_worse_fails_the_gate_of_a_re_audit(small, monkeypatch):
    monkeypatch.setattr("fmaudit_dagster.checks.worsenings", lambda _: ["UDR in Female is worse."])
    found = check(small, "no_subgroup_got_worse")
    assert (found.passed, found.description) == (False, "UDR in Female is worse.")


def test_embeddings_that_lack_a_study_and_encoders_that_lack_findings_fail_their_checks(small):
    import duckdb

    with duckdb.connect(str(small.warehouse.embeddings_path("hu_histogram"))) as connection:
        connection.execute("DELETE FROM study_embeddings WHERE study_id = (SELECT min(study_id) FROM study_embeddings)")
    assert not check(small, "embeddings_are_finite_and_whole").passed
    small.warehouse.path("fairness_gaps", CELL).unlink()
    found = check(small, "every_encoder_is_audited")
    assert (found.passed, found.description) == (False, "hu_histogram lacks statistics for 1 task(s)")


@pytest.mark.parametrize(("value", "passed"), [(None, True), (0.4, False), (0.99, True)])
def test_an_encoder_is_held_against_the_control_where_there_is_an_estimate(small, value, passed):
    """Under ten positives of the test part there is none: a pilot's first run ends in a report all the same."""
    spec = yaml.safe_load((small.audit.encoders / "hu_histogram.yaml").read_text())
    (small.audit.encoders / "other.yaml").write_text(yaml.safe_dump(spec | {"name": "other", "control": False}))
    other = Cell("other", "pe")
    for table in ("subgroup_metrics", "fairness_gaps"):
        frame = small.warehouse.read(table, CELL).with_columns(encoder=pl.lit("other"))
        if table == "subgroup_metrics":
            frame = frame.with_columns(value=pl.lit(value, pl.Float64))
        small.warehouse.publish(table, frame, version="1", cell=other)
    assert check(small, "encoders_beat_the_control").passed == passed

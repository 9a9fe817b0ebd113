"""Runs and steps under leases: whoever waits goes on, whatever became of the process it waited for."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from unittest import mock

import dagster as dg
import pytest

from fmaudit_core.pipeline.steps import step_of
from fmaudit_core.storage.leases import LeaseTimes
from fmaudit_core.storage.warehouse import Cell
from tests.platform.conftest import made, run

CELL = Cell("hu_histogram")
CLAIM = "probe_fits/encoder=hu_histogram"
ELSEWHERE = "anotherhost0:17:99"
AWAY = {"process": ELSEWHERE, "host": "node-7"}
#: of tests that wait for a machine that is gone
SHORT = LeaseTimes(renew_s=0.2, expire_s=1.0, poll_s=0.05, watch_s=0.1)


@pytest.fixture
def clock(small):
    """A clock of the lookout of this workspace that goes on by hand."""
    from fmaudit_dagster.run_leases import leases_of

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    leases_of(small.root).lookout.clock = Clock()
    return leases_of(small.root).lookout.clock


def begun_elsewhere(instance, workspace, *, status=dg.DagsterRunStatus.STARTED, leased=True, **tags):
    """A run as another machine left it: started, its lease and a step's taken, a place in the pool taken."""
    from fmaudit_dagster.definitions import definitions_for
    from fmaudit_dagster.run_leases import PROCESS_TAG, WORKSPACE_TAG, leases_of, process_tags

    found = instance.create_run_for_job(
        job_def=definitions_for(workspace.audit_yaml).resolve_implicit_global_asset_job_def(),
        asset_selection=frozenset({dg.AssetKey("probe_fits")}),
        tags=process_tags(workspace.root) | {PROCESS_TAG: ELSEWHERE, "dagster/partition": "hu_histogram"} | tags,
        status=status,
    )
    assert WORKSPACE_TAG in found.tags
    if leased:
        claims = leases_of(workspace.root).claims
        for name in (f"runs/{found.run_id}", CLAIM):
            claims.replace(name, claims.read(name).number, AWAY | {"run": found.run_id})
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default("gpu")
    assert storage.claim_concurrency_slot("gpu", found.run_id, "study_embeddings").is_claimed
    return found.run_id


def look(instance, workspace, clock, seconds, step=5.0):
    from fmaudit_dagster.run_leases import end_killed_runs

    end_killed_runs(instance, workspace.root)
    for _ in range(int(seconds / step)):
        clock.now += step
        end_killed_runs(instance, workspace.root)


@pytest.mark.parametrize(
    ("status", "ends"), [("STARTED", "FAILURE"), ("STARTING", "FAILURE"), ("CANCELING", "CANCELED")]
)
def test_a_run_of_a_machine_that_is_gone_is_ended_within_ninety_seconds(small, clock, status, ends):
    from fmaudit_dagster.execution.instance import opened
    from fmaudit_dagster.execution.run_history import running_steps
    from fmaudit_dagster.run_leases import KILLED_TAG, leases_of

    with opened(small) as instance:
        run_id = begun_elsewhere(instance, small, status=dg.DagsterRunStatus[status])
        look(instance, small, clock, 55)
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus[status]
        assert running_steps(instance).run_ids == (run_id,)
        look(instance, small, clock, 10)
        found = instance.get_run_by_id(run_id)
        assert found.status == dg.DagsterRunStatus[ends]
        assert KILLED_TAG in found.tags
        (reason,) = [one.dagster_event.message for one in instance.all_logs(run_id) if "lease" in str(one.message)]
        assert reason.startswith("Its process on node-7 did not renew its lease for 60 s")
        assert instance.event_log_storage.get_concurrency_info("gpu").claimed_slots == []
        assert running_steps(instance).run_ids == ()
        claims = leases_of(small.root).claims
        assert claims.read(CLAIM).holder is None
        assert not any(name.startswith("runs/") for name in claims.names())


def test_a_run_that_renews_its_lease_is_not_ended(small, clock):
    from fmaudit_dagster.execution.instance import opened
    from fmaudit_dagster.run_leases import leases_of

    with opened(small) as instance:
        run_id = begun_elsewhere(instance, small)
        claims, name = leases_of(small.root).claims, f"runs/{run_id}"
        for _ in range(10):
            look(instance, small, clock, 20)
            claims.replace(name, claims.read(name).number, AWAY | {"run": run_id})
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.STARTED


def test_a_run_killed_before_it_had_a_lease_is_ended_too(small, clock):
    from fmaudit_dagster.execution.instance import opened

    with opened(small) as instance:
        run_id = begun_elsewhere(instance, small, leased=False)
        look(instance, small, clock, 65)
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE


def test_runs_of_another_audit_and_of_other_code_are_left_alone(small, clock):
    """One Dagster may hold runs of many code locations."""
    from fmaudit_dagster.execution.instance import opened
    from fmaudit_dagster.run_leases import WORKSPACE_TAG

    with opened(small) as instance:
        theirs = begun_elsewhere(instance, small, leased=False, **{WORKSPACE_TAG: "another"})
        other = instance.create_run_for_job(
            job_def=dg.job(name="other")(lambda: None), status=dg.DagsterRunStatus.STARTED
        )
        look(instance, small, clock, 200)
        for run_id in (theirs, other.run_id):
            assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.STARTED


def test_a_run_that_ended_meanwhile_is_not_reported_again(small, clock, monkeypatch):
    from fmaudit_dagster import run_leases
    from fmaudit_dagster.execution.instance import opened

    with opened(small) as instance:
        run_id = begun_elsewhere(instance, small)
        seen = [
            run_leases.Killed(
                instance.get_run_by_id(run_id), run_leases.leases_of(small.root).claims.read(f"runs/{run_id}"), ""
            )
        ]
        monkeypatch.setattr(run_leases, "killed_runs", lambda *_: seen)
        instance.report_run_canceled(instance.get_run_by_id(run_id))
        run_leases.end_killed_runs(instance, small.root)
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.CANCELED


def test_of_two_that_wait_one_ends_the_run(small, clock, monkeypatch):
    from fmaudit_dagster import run_leases
    from fmaudit_dagster.execution.instance import opened

    with opened(small) as instance:
        run_id = begun_elsewhere(instance, small)
        look(instance, small, clock, 55)
        clock.now += 10
        seen = run_leases.killed_runs(instance, small.root)
        assert [one.run.run_id for one in seen] == [run_id]
        monkeypatch.setattr(run_leases, "killed_runs", lambda *_: seen)  # as the second has seen it
        leases = run_leases.leases_of(small.root)
        assert leases.take_over(f"runs/{run_id}", seen[0].claim) is not None  # by the first
        run_leases.end_killed_runs(instance, small.root)
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.STARTED


def killed_here(instance, workspace):
    """A run of a process of this machine that is gone."""
    from fmaudit_core.storage.processes import process_space
    from fmaudit_dagster.run_leases import PROCESS_TAG

    gone = f"{process_space()}:{2**22 + 1}:1"  # above the highest process id of Linux
    return begun_elsewhere(instance, workspace, leased=False, **{PROCESS_TAG: gone}), gone


def test_a_run_killed_on_this_machine_is_ended_at_once_and_by_one(small, clock):
    from fmaudit_core.storage.processes import this_process
    from fmaudit_dagster import run_leases
    from fmaudit_dagster.execution.instance import opened

    with opened(small) as instance:
        run_id, gone = killed_here(instance, small)
        claims, name = run_leases.leases_of(small.root).claims, f"runs/{run_id}"
        claims.replace(name, 0, {"process": gone})
        claims.replace(name, 1, {"process": this_process()})  # another thread is ending it
        look(instance, small, clock, 300)
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.STARTED
        claims.replace(name, 2, {"process": gone})
        run_leases.end_killed_runs(instance, small.root)
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE


def test_a_database_that_fails_while_a_run_is_ended_is_asked_again(small, clock, monkeypatch):
    from fmaudit_dagster import run_leases
    from fmaudit_dagster.execution.instance import opened

    with opened(small) as instance:
        run_id, _ = killed_here(instance, small)
        with monkeypatch.context() as patch:
            patch.setattr(type(instance), "report_run_failed", mock.Mock(side_effect=ConnectionError))
            with pytest.raises(ConnectionError):
                run_leases.end_killed_runs(instance, small.root)
        run_leases.end_killed_runs(instance, small.root)
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE


def test_the_daemon_ends_runs_whatever_automation_is_off(small, clock, monkeypatch):
    from fmaudit_dagster.execution.instance import opened
    from fmaudit_dagster.execution.sensors import killed_runs_sensor
    from tests.platform.test_sensors import look as tick

    assert killed_runs_sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert killed_runs_sensor.minimum_interval_seconds == 10
    with opened(small) as instance:
        run_id = begun_elsewhere(instance, small)
    monkeypatch.setattr("fmaudit_dagster.execution.instance.end_killed_runs", lambda *_: None)  # of who opens it
    for _ in range(8):
        assert isinstance(tick(small, "killed_runs_sensor"), dg.SkipReason)
        clock.now += 10
    with opened(small) as instance:
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE


@pytest.fixture
def hurried(small, monkeypatch):
    """Leases of this workspace that expire within a second."""
    from fmaudit_dagster import run_leases

    monkeypatch.setattr(run_leases, "TIMES", SHORT)
    run_leases.leases_of.cache_clear()
    yield small
    run_leases.leases_of.cache_clear()


def test_the_command_line_goes_on_after_a_run_of_a_machine_that_is_gone(hurried):
    """It waits for the run, for the step's claim, and for the place in the pool."""
    from fmaudit_dagster.execution.instance import opened

    hurried.warehouse.path("probe_fits", CELL).unlink()
    hurried.warehouse.embeddings_path("hu_histogram").unlink()
    with opened(hurried) as instance:
        run_id = begun_elsewhere(instance, hurried)
    heard = []
    outcome = run(hurried, listener=lambda name, cell, at, of: heard.append(name))
    assert outcome.failures == {}
    assert "study_embeddings hu_histogram" in made(outcome)
    assert "probe_fits hu_histogram" in made(outcome)
    with opened(hurried) as instance:
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE


def test_a_holder_that_comes_back_late_publishes_nothing(small, monkeypatch):
    """A laptop that slept while it fitted: another machine has ended its run and taken its claim."""
    from fmaudit_dagster.assets import probes
    from fmaudit_dagster.execution.instance import opened
    from fmaudit_dagster.execution.run_history import SURROUNDINGS_TAG
    from fmaudit_dagster.run_leases import leases_of

    small.warehouse.path("probe_fits", CELL).unlink()
    fit, tried = probes.fit_encoder, []

    def slept(*args, **options):
        claims = leases_of(small.root).claims
        claims.replace(CLAIM, claims.read(CLAIM).number, AWAY)
        tried.append(1)
        return fit(*args, **options)

    monkeypatch.setattr("fmaudit_dagster.assets.probes.fit_encoder", slept)
    outcome = run(small)
    assert list(outcome.failures) == ["probe_fits (hu_histogram)"]
    assert f"{CLAIM} was taken over by node-7" in outcome.failures["probe_fits (hu_histogram)"]
    assert len(tried) == 1
    assert not small.warehouse.path("probe_fits", CELL).exists()
    with opened(small) as instance:
        (record,) = instance.get_runs(limit=1)
        assert SURROUNDINGS_TAG in record.tags  # no fault of the step: the daemon tries it again


def test_a_run_has_a_lease_while_it_is_executed_and_leaves_none(small, monkeypatch):
    from fmaudit_dagster.assets import probes
    from fmaudit_dagster.run_leases import leases_of

    small.warehouse.path("probe_fits", CELL).unlink()
    fit, seen = probes.fit_encoder, []

    def noting(*args, **options):
        claims = leases_of(small.root).claims
        seen.extend(
            (name.split("/")[0], claims.read(name).holder["run"]) for name in claims.names() if claims.read(name).holder
        )
        return fit(*args, **options)

    monkeypatch.setattr("fmaudit_dagster.assets.probes.fit_encoder", noting)
    assert run(small).failures == {}
    (first, second) = sorted(seen)
    assert (first[0], second[0]) == ("probe_fits", "runs")
    assert first[1] == second[1]
    claims = leases_of(small.root).claims
    assert [name for name in claims.names() if claims.read(name).holder is not None] == []


def test_source_files_that_another_run_reads_meanwhile_are_not_read_twice(small, monkeypatch):
    """Two command lines that start together: both find the table changed, one reads it."""
    from fmaudit_dagster.execution import runner

    small.table.table.write_text(small.table.table.read_text().replace("Male", "male"))
    busy, heard = iter([set(), {"studies"}, {"studies"}]), []  # another begins while this one looks
    changes = iter([True, False])
    found = runner.running_steps

    def running_steps(instance):
        running = next(busy, None)
        return found(instance) if running is None else lambda step: bool(running & set(step.assets))

    monkeypatch.setattr(runner, "running_steps", running_steps)
    monkeypatch.setattr(runner, "source_changed", lambda look, step: step == step_of("cohort") and next(changes))
    monkeypatch.setattr(runner, "_PATIENCE_S", 0.01)
    outcome = run(small, listener=lambda name, cell, at, of: heard.append(name))
    assert heard == ["waiting for another run of cohort"]
    assert outcome.made == []


OTHER = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from fmaudit_core.pipeline.workspace import open_workspace
    from fmaudit_dagster.execution.instance import prepare
    workspace = open_workspace(Path(sys.argv[1]))
    prepare(workspace)
    from fmaudit_dagster.assets import probes
    from tests.platform.conftest import made, run
    fit = probes.fit_encoder
    def slow(*args, **options):
        print("fitting", flush=True)
        sys.stdin.readline()
        return fit(*args, **options)
    probes.fit_encoder = slow
    outcome = run(workspace)
    print(len(outcome.failures), "probe_fits hu_histogram" in made(outcome), flush=True)
    """
)


@pytest.mark.parametrize("killed", [False, True])
def test_of_two_command_lines_on_one_workspace_one_waits_and_goes_on(small, killed):
    """Two processes. What the first makes is not made again; what it was killed at is."""
    from fmaudit_dagster.execution.instance import opened

    small.warehouse.path("probe_fits", CELL).unlink()
    command = [sys.executable, "-c", OTHER, str(small.audit_yaml)]
    root, heard = Path(__file__).parents[2], []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as other:
        assert other.stdout.readline() == "fitting\n"

        def listen(name, cell, at, of):
            if not heard and name == "waiting for another run of probe_fits":
                if killed:
                    other.kill()
                else:
                    other.stdin.write("go on\n")
                    other.stdin.flush()
            heard.append(name)

        outcome = run(small, listener=listen)
        assert heard[0] == "waiting for another run of probe_fits"
        assert outcome.failures == {}
        assert ("probe_fits hu_histogram" in made(outcome)) == killed
        if not killed:
            assert other.stdout.readline() == "0 True\n"
    with opened(small) as instance:
        versions = [
            one.asset_materialization.tags["dagster/data_version"]
            for one in instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=dg.AssetKey("probe_fits")), limit=9
            ).records
        ]
        assert len(versions) == 2  # of the audit before, and of one of the two
    assert run(small).made == []

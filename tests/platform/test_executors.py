"""Steps made in worker processes: the same tables as one after the other, and a process that dies fails its step alone."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor

from fmaudit_core.common.progress import silent
from fmaudit_core.pipeline.stale_steps import Next, StaleStep
from fmaudit_core.pipeline.steps import step_of
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.warehouse import WHOLE, Cell
from tests.platform.conftest import made, reconfigured, run


def with_two_tasks(workspace):
    return reconfigured(workspace, tasks=["pe", "mortality_12m"])


def test_several_steps_at_a_time_make_the_tables_of_one_after_the_other(small, tmp_path, monkeypatch):
    from fmaudit_dagster.cli.step_workers import worker_processes
    from fmaudit_dagster.execution.instance import prepare

    shutil.copytree(small.audit_yaml.parent, tmp_path / "other", copy_function=shutil.copy2)
    one, other = with_two_tasks(small), with_two_tasks(open_workspace(tmp_path / "other" / "audit.yaml"))
    first = run(one)
    prepare(other)  # the workers find it through the environment
    said = []
    with worker_processes(2, lambda name: said.append(name) or silent) as workers:
        second = run(other, workers=workers)
    assert (first.failures, second.failures) == ({}, {})
    assert made(first) == made(second)
    assert any("statistics" in name for name in said)
    for name in one.warehouse.tables():
        for cell in one.warehouse.cells(name):
            if name not in ("ct_views", "report_files"):
                assert one.warehouse.read(name, cell).equals(other.warehouse.read(name, cell)), (name, cell)


def test_what_gathers_cells_begins_once_those_it_is_made_from_are_made():
    from fmaudit_dagster.execution.runner import _awaits_cells

    findings, capacity, scores = (
        StaleStep(step_of(name), cell, (name,))
        for name, cell in (("audit_findings", WHOLE), ("mitigation_capacity", WHOLE), ("mitigation_scores", Cell("a")))
    )
    for left in (Next(steps=[scores]), Next(pending=[scores])):
        assert _awaits_cells(capacity, left)
        assert not _awaits_cells(findings, left)
        assert not _awaits_cells(scores, left)


def test_a_step_in_one_of_several_processes_takes_its_share_of_the_threads(monkeypatch):
    from fmaudit_dagster.cli import step_workers

    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setattr(step_workers, "_threads", 8)
    monkeypatch.setattr(step_workers, "_share", 4)
    monkeypatch.setattr(step_workers, "_make", lambda step, forced: os.environ["OMP_NUM_THREADS"])
    for name, threads in (("fairness", "4"), ("study_embeddings", "8")):
        assert step_workers._made_in_worker(name, Cell("a", "pe"), (name,), "", forced=False) == threads


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_fails_its_step_and_is_replaced(monkeypatch):
    from fmaudit_dagster.cli import step_workers

    workers = step_workers.WorkerProcesses(1, multiprocessing.get_context("spawn").Queue())
    monkeypatch.setattr(
        workers, "_started", lambda: ProcessPoolExecutor(1, multiprocessing.get_context("spawn")), raising=True
    )
    monkeypatch.setattr(step_workers, "_made_in_worker", die)
    step = StaleStep(step_of("fairness"), Cell("a", "pe"), ("fairness_gaps",))
    for _ in range(2):
        assert "its process was killed" in workers.submit(step, forced=False).result(timeout=60).error
    workers.close()

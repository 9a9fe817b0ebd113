"""Dagster's own storage for one workspace: where it lies and how it is set up."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import psutil

from fmaudit_core.workspace import Workspace
from fmaudit_dagster.partitions import ENCODER

#: which process executes a run of the command line
PROCESS_TAG = "fmaudit/process"

_SETTINGS = """\
# written by fmaudit where missing; yours to change
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 2
  pools:
    # one encoder at a time on one GPU
    default_limit: 1
    granularity: op
"""


def environment(workspace: Workspace) -> dict[str, str]:
    """What a process of this workspace finds in its environment."""
    return {
        **os.environ,
        "FMAUDIT_CONFIG": str(workspace.audit_yaml),
        "DAGSTER_HOME": str(workspace.dagster_home),
        # idle OpenMP threads that spin take the cores from the ones that work
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
    }


def prepare(workspace: Workspace) -> None:
    """Make Dagster's folder and settings where they are missing, and point this process at them."""
    workspace.dagster_home.mkdir(parents=True, exist_ok=True)
    settings = workspace.dagster_home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(_SETTINGS, encoding="utf-8")
    os.environ.update(environment(workspace))


@contextmanager
def opened(workspace: Workspace) -> Iterator[dg.DagsterInstance]:
    """The workspace's Dagster instance, its encoder partitions those of the registry."""
    prepare(workspace)
    with dg.DagsterInstance.get() as instance:
        register_encoders(instance, list(workspace.registry.specs()))
        end_killed_runs(instance)
        yield instance


def this_process() -> str:
    """Name of this process, by which a later one can tell whether it still lives."""
    return f"{platform.node()}:{os.getpid()}"


def end_killed_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs whose process was killed as failed, and give back their places in pools: else the next run waits for ever."""
    running = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    for run in instance.get_runs(running):
        node, _, process = run.tags.get(PROCESS_TAG, "").rpartition(":")
        if node == platform.node() and not psutil.pid_exists(int(process)):
            instance.report_run_failed(run, "Its process was killed.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def register_encoders(instance: dg.DagsterInstance, names: list[str]) -> list[str]:
    """Add a partition for every encoder that has none; returns the new ones. Retired encoders keep theirs."""
    known = set(instance.get_dynamic_partitions(str(ENCODER.name)))
    new = [name for name in names if name not in known]
    if new:
        instance.add_dynamic_partitions(str(ENCODER.name), new)
    return new

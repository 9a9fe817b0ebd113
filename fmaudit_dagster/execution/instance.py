"""Dagster's own storage for one workspace: its folder and its settings."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_dagster.partitions import ENCODER
from fmaudit_dagster.run_leases import end_killed_runs

#: Dagster's settings as they are written today
SETTINGS = """\
# written by fmaudit where missing; yours to change
telemetry:
  enabled: false
nux:
  enabled: false
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
run_monitoring:
  # a run that was about to start when its daemon was killed
  enabled: true
  start_timeout_seconds: 180
  poll_interval_seconds: 30
concurrency:
  runs:
    max_concurrent_runs: 2
  pools:
    # one encoder at a time on one GPU
    default_limit: 1
    granularity: op
"""


def environment(workspace: Workspace) -> dict[str, str]:
    """Return the environment variables of a process of this workspace."""
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
        settings.write_text(SETTINGS, encoding="utf-8")
    os.environ.update(environment(workspace))


@contextmanager
def opened(workspace: Workspace) -> Iterator[dg.DagsterInstance]:
    """Open the workspace's Dagster instance, with the encoder partitions of the registry."""
    prepare(workspace)
    with dg.DagsterInstance.get() as instance:
        new, retired = partition_changes(instance, *workspace.registry.read())
        if new:
            instance.add_dynamic_partitions(str(ENCODER.name), new)
        for name in retired:
            instance.delete_dynamic_partition(str(ENCODER.name), name)
        end_killed_runs(instance, workspace.root)
        yield instance


def partition_changes(
    instance: dg.DagsterInstance, registered: Collection[str], problems: Collection[str]
) -> tuple[list[str], list[str]]:
    """Return encoders without a partition, and retired ones that still have one.

    A retired encoder keeps its files and its records, and has both again when its spec comes back. One whose file is there but
    cannot be read just now is not retired.
    """
    known, named = set(instance.get_dynamic_partitions(str(ENCODER.name))), set(registered)
    unreadable = {Path(file).stem for file in problems}
    return sorted(named - known), sorted(known - named - unreadable)

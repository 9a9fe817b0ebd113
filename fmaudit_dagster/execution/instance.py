"""Dagster's own storage for one workspace: its folder and its settings, and the errors of a database that does not serve."""

import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import dagster as dg
import yaml
from sqlalchemy.exc import SQLAlchemyError

from fmaudit_core.common.errors import FmauditError, missing_extra
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


_WIDTH: Final = 300
#: errors of a database that are no longer those of SQLAlchemy
_OF_STORAGE: Final = ("DagsterPostgresException", "DagsterInstanceSchemaOutdated")


class RunStorageError(FmauditError):
    """Dagster's storage of runs cannot be opened, or does not serve any more."""


def has_postgresql(settings: Path) -> bool:
    """Return whether a dagster.yaml keeps the runs in PostgreSQL."""
    try:
        content = yaml.safe_load(settings.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return False
    storage = content.get("storage") if isinstance(content, dict) else None
    return isinstance(storage, dict) and "postgres" in storage


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
def opened_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance of a folder.

    Raises
    ------
    RunStorageError
        Its storage cannot be opened, or a database does not serve any more.
    """
    retries = logging.getLogger()
    try:
        retries.addFilter(_is_no_retry)
        instance = dg.DagsterInstance.from_config(str(home))
    except Exception as error:  # an old schema, a torn file, unknown settings, a database: each has errors of its own
        raise _storage_error(home, error) from None
    finally:
        retries.removeFilter(_is_no_retry)
    with instance:
        try:
            yield instance
        except Exception as error:
            if isinstance(error, SQLAlchemyError) or type(error).__name__ in _OF_STORAGE:
                raise _storage_error(home, error) from None
            raise


#: Dagster's words for a variable that its settings name
_UNSET: Final = re.compile(r'environment variable "(\w+)" which is not set')


def _is_no_retry(record: logging.LogRecord) -> bool:
    """Return whether a message is another one than that of a repeated connection, of many lines: the error follows."""
    return "Retrying failed database connection" not in record.msg


def _storage_error(home: Path, error: BaseException) -> FmauditError:
    """Return the error of a storage in words: its cause, without the lines that libraries add."""
    settings = home / "dagster.yaml"
    causes = [error]
    while (cause := causes[-1].__cause__ or getattr(causes[-1], "orig", None)) is not None:
        causes.append(cause)
    for one in causes:
        if (extra := missing_extra(one, f"the storage of {settings}")) is not None:
            return extra
    if unset := sorted(set(_UNSET.findall(str(error)))):
        what = f"it reads {', '.join(unset)} from the environment, where no such variable is set."
        return RunStorageError(
            what, where=str(settings), fix="Set what is missing and run again: what is finished is kept."
        )
    lines = (str(causes[-1]).strip() or str(error).strip() or type(error).__name__).splitlines()
    what = f"Dagster's storage of runs cannot be opened ({type(causes[-1]).__name__}: {lines[0][:_WIDTH]})."
    if has_postgresql(settings):
        fix = (
            "Check that the database runs and can be reached from here, and the variables that this file names, such as "
            "DAGSTER_PG_PASSWORD. Then run again: what is finished is kept."
        )
    else:
        fix = f"DAGSTER_HOME={home} dagster instance migrate; or move the folder away: results stay, the history of runs goes."
    return RunStorageError(what, where=str(settings), fix=fix)


@contextmanager
def opened(workspace: Workspace) -> Iterator[dg.DagsterInstance]:
    """Open the workspace's Dagster instance, with the encoder partitions of the registry.

    Raises
    ------
    RunStorageError
        See `opened_instance`.
    """
    prepare(workspace)
    with opened_instance(workspace.dagster_home) as instance:
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

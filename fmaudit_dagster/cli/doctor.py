"""Dagster's part of `fmaudit doctor`: its settings, its storage, runs of killed processes, the daemon, the port."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import yaml

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.setup.finding import Finding

if TYPE_CHECKING:
    import dagster as dg

#: a daemon without a heartbeat for longer is not running
_HEARTBEAT_S: Final = 60.0
_OLD: Final = "dagster.yaml.old"


def examine_platform(workspace: Workspace, *, port: int, fix_it: bool) -> Iterator[Finding]:
    """Look at what `fmaudit run` and `fmaudit ui` need of Dagster.

    Parameters
    ----------
    port : int
        That `fmaudit ui` would serve on; it takes the next one as well.
    fix_it : bool
        Whether to rewrite old settings (the old file is kept next to it) and end killed runs.
    """
    if find_spec("dagster") is None:
        return
    if not workspace.dagster_home.exists():
        yield Finding("dagster", "ok", f"dagster {version('dagster')}; nothing was run yet")
        yield _port(port, daemon=False)
        return
    yield _settings(workspace, fix_it=fix_it)
    daemon = False
    for finding, lives in _storage(workspace, fix_it=fix_it):
        daemon = daemon or lives
        yield finding
    yield _port(port, daemon=daemon)


def _settings(workspace: Workspace, *, fix_it: bool) -> Finding:
    from fmaudit_dagster.execution.instance import SETTINGS, has_postgresql

    path = workspace.dagster_home / "dagster.yaml"
    if not path.exists():
        return Finding("dagster.yaml", "ok", "not there; the next run writes it")
    if has_postgresql(path):  # another file would put the runs on this machine
        return Finding("dagster.yaml", "ok", "your own, with PostgreSQL")
    wanted = yaml.safe_load(SETTINGS)
    try:
        there = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError:
        there = None
    if there == wanted:
        return Finding("dagster.yaml", "ok", "as it is written today")
    if fix_it:
        path.replace(path.with_name(_OLD))
        path.write_text(SETTINGS, encoding="utf-8")
        return Finding("dagster.yaml", "ok", f"written anew; the old one is {_OLD}")
    fix = f"If these changes are not yours, move {path} away: the next run writes it anew."
    if not isinstance(there, dict):
        return Finding("dagster.yaml", "problem", "is not a YAML mapping.", fix, fixable=True)
    keys = sorted({*there, *wanted})
    differing = [key for key in keys if there.get(key) != wanted.get(key)]
    return Finding(
        "dagster.yaml", "warning", f"differs from what is written today in {', '.join(differing)}.", fix, fixable=True
    )


def _storage(workspace: Workspace, *, fix_it: bool) -> Iterator[tuple[Finding, bool]]:
    """Return the findings, with whether a daemon is running."""
    import dagster as dg

    from fmaudit_dagster.execution.instance import has_postgresql, opened_instance
    from fmaudit_dagster.run_leases import end_killed_runs, killed_runs

    about = "storage"
    try:
        with opened_instance(workspace.dagster_home) as instance:
            killed = killed_runs(instance, workspace.root)
            n_runs = instance.get_runs_count()
            queued = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
            beats = [one.timestamp for one in instance.get_daemon_heartbeats().values()]
            if killed and fix_it:
                end_killed_runs(instance, workspace.root)
            postgresql = _postgresql(instance) if has_postgresql(workspace.dagster_home / "dagster.yaml") else None
    except FmauditError as error:
        yield Finding(about, "problem", error.what, error.fix), False
        return
    if postgresql is not None:
        yield postgresql, False
    alive = bool(beats) and time.time() - max(beats) < _HEARTBEAT_S
    if killed and not fix_it:
        wording = f"{n_runs:,} runs; {len(killed)} recorded as running although their process was killed."
        yield Finding(about, "warning", wording, "The next `fmaudit run` ends them.", fixable=True), alive
    else:
        yield Finding(about, "ok", f"{n_runs:,} runs" + (f"; {len(killed)} killed ones ended" if killed else "")), alive
    if alive:
        yield Finding("daemon", "ok", "running"), alive
    elif queued:
        yield (
            Finding("daemon", "problem", f"{queued} runs wait in the queue and no daemon is running.", "fmaudit ui"),
            alive,
        )
    else:
        wording = "not running: new encoders are not audited automatically; `fmaudit ui` starts it"
        yield Finding("daemon", "ok", wording), alive


def _postgresql(instance: dg.DagsterInstance) -> Finding:
    """Look at the database that holds the runs: its version, and whether others on the network can read along."""
    with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]  # of storages that are databases
        server = connection.exec_driver_sql("SHOW server_version").scalar_one()
        address, encrypted = connection.exec_driver_sql(
            "SELECT host(inet_server_addr()), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ).one()
    message = f"PostgreSQL {str(server).split()[0]} can be reached"
    if encrypted or address in (None, "127.0.0.1", "::1"):
        return Finding("postgresql", "ok", f"{message}{' with TLS' if encrypted else ', on this machine'}")
    return Finding(
        "postgresql", "warning", f"{message}, but without TLS.",
        "Add `params: {sslmode: verify-full, sslrootcert: ...}` to `postgres_db`, or make sure that nobody else can read this "
        "network.",
    )  # fmt: skip


def _port(port: int, *, daemon: bool) -> Finding:
    """Whether the UI's port and the next, which serves the report, are free."""
    taken = [one for one in (port, port + 1) if _is_taken(one)]
    if not taken:
        return Finding("port", "ok", f"{port} and {port + 1} are free")
    if daemon:
        return Finding("port", "ok", f"{port} is in use, by this audit's own `fmaudit ui` as it seems")
    return Finding("port", "warning", f"{taken[0]} is taken.", f"fmaudit ui --port {port + 2}")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False

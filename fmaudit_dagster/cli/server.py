"""`fmaudit ui`: Dagster's webserver and daemon for one workspace, and its report, stopped together."""

import os
import signal
import socket
import subprocess
import sys
import time

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_dagster.execution.instance import environment, opened

_MODULE = "fmaudit_dagster.definitions"
_HOST = "127.0.0.1"
_PATIENCE_S = 15.0


def report_address(port: int) -> str:
    """Return the address of the report, for a UI on `port`."""
    return f"http://{_HOST}:{port + 1}/"


def serve(workspace: Workspace, *, port: int, read_only: bool) -> int:
    """Serve until interrupted; returns the exit code. The report's folder is served on the next port.

    Raises
    ------
    FmauditError
        The port is taken, or a server ended by itself.
    """
    for one in (port, port + 1):
        _needs_free(one)
    # before the first server: an interruption while they start ends them too
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with opened(workspace):
        pass  # the folder, its settings and the encoders' partitions are there before anybody looks
    web = [sys.executable, "-m", "dagster_webserver", "-m", _MODULE, "-h", _HOST, "-p", str(port)]
    workspace.root.fetch_report()
    workspace.reports.mkdir(parents=True, exist_ok=True)
    files = [sys.executable, "-m", "http.server", "-b", _HOST, "-d", str(workspace.reports), str(port + 1)]
    commands = [web + (["--read-only"] if read_only else []), files]
    if not read_only:
        commands.append([sys.executable, "-m", "fmaudit_dagster.cli.daemon", "run", "-m", _MODULE])
    surroundings = environment(workspace) | {"FMAUDIT_REPORT_URL": report_address(port)}
    # each in a group of its own, so that its own children end with it
    servers = [
        subprocess.Popen(command, env=surroundings, cwd=workspace.home, start_new_session=True) for command in commands
    ]
    try:
        while not stopping and all(server.poll() is None for server in servers):
            time.sleep(0.2)
    finally:
        _end(servers)
    if not stopping:
        raise FmauditError("a server ended unexpectedly; its output is above.")
    return 0


def _needs_free(port: int) -> None:
    with socket.socket() as probe:
        # as the server will: a port in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise FmauditError(
                f"port {port} is taken.", fix="Choose another with --port; the next one serves the report."
            ) from error


def _end(servers: list[subprocess.Popen[bytes]]) -> None:
    """Ask each group to end, then make it."""
    for server in servers:
        _signal(server, signal.SIGINT)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and any(server.poll() is None for server in servers):
        time.sleep(0.1)
    for server in servers:
        _signal(server, signal.SIGKILL)
        server.wait()


def _signal(server: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(server.pid, number)
    except ProcessLookupError:
        return

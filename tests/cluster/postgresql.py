"""PostgreSQL for Dagster's runs, started by the tests in the namespace that has the loopback device only.

It refuses to run as root, and is then started as the user that its Debian package makes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

USER, PASSWORD, DATABASE = "auditor", "averysecretdatabasepassword", "dagster"
#: the usual one, as the namespace has no other server
PORT = 5432
#: what the settings of the documentation read from the environment
ENVIRONMENT = {"DAGSTER_PG_HOST": "127.0.0.1", "DAGSTER_PG_USER": USER, "DAGSTER_PG_PASSWORD": PASSWORD}
_ACCOUNT = "postgres"
_WAIT_S = 60
#: of a certificate that signs itself, for the server's address
_CERTIFICATE = (
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
    "-subj", "/CN=fmaudit test", "-addext", "subjectAltName=IP:127.0.0.1",
)  # fmt: skip


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL here; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def certify(certificate: Path, key: Path, *, account: tuple[str, ...] = ()) -> None:
    """Write a certificate for the server's address, which only those trust who are given it, and its key."""
    subprocess.run([*account, *_CERTIFICATE, "-keyout", key, "-out", certificate], check=True, capture_output=True)


@dataclass
class PostgreSQL:
    """One server with the database `dagster`."""

    programs: Path
    #: not below the folder of pytest, which the account of the server cannot enter
    folder: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def make(self) -> None:
        """Make the files of the server; its only user logs in by password."""
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:
            shutil.chown(self.folder, _ACCOUNT, _ACCOUNT)
            shutil.chown(password, _ACCOUNT, _ACCOUNT)
        options = (f"--pwfile={password}", f"--username={USER}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync")
        self._run("initdb", "--pgdata", self.folder / "data", *options, "--locale=C")
        password.unlink()
        certify(self.certificate, self.folder / "server.key", account=self._account())

    @property
    def certificate(self) -> Path:
        return self.folder / "server.crt"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1", "port": PORT, "unix_socket_directories": "", "fsync": "off",
            "ssl": "on", "ssl_cert_file": self.certificate, "ssl_key_file": self.folder / "server.key",
        }  # fmt: skip
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._account(), self.programs / "postgres", "-D", self.folder / "data", *given],
                stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        self._run("pg_isready", "--host=127.0.0.1", f"--port={PORT}", f"--timeout={_WAIT_S}", attempts=_WAIT_S * 10)

    def client(self, program: str, *arguments: str) -> str:
        """Run a client of the server, and return what it printed."""
        address = ("--host=127.0.0.1", f"--port={PORT}", f"--username={USER}", "--no-password")
        return self._run(program, *address, *arguments)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # its own way to end at once, with its processes
            self.process.wait(_WAIT_S)
            self.process = None

    def _account(self) -> tuple[str, ...]:
        if os.geteuid() != 0:
            return ()
        return ("setpriv", f"--reuid={_ACCOUNT}", f"--regid={_ACCOUNT}", "--clear-groups", "--")

    def _run(self, program: str, *arguments: object, attempts: int = 1) -> str:
        command = [*map(str, (*self._account(), self.programs / program, *arguments))]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        for _ in range(attempts):
            ran = subprocess.run(
                command, capture_output=True, text=True, cwd=self.folder, env=environment, timeout=_WAIT_S, check=False
            )
            if ran.returncode == 0:
                return ran.stdout
            assert self.process is None or self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            if attempts > 1:
                time.sleep(0.1)
        raise AssertionError(f"{program}: {ran.stdout}{ran.stderr}")


@pytest.fixture(scope="module")
def postgresql(loopback):
    """A running server, and what its clients need in the environment."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith(("PG", "DAGSTER_PG"))]:
            environment.delenv(name)
        for name, value in ENVIRONMENT.items():
            environment.setenv(name, value)
        server = PostgreSQL(found, Path(tempfile.mkdtemp(prefix="postgresql-")))
        try:
            server.make()
            server.start()
            server.client("createdb", DATABASE)
            yield server
        finally:
            server.stop()
            shutil.rmtree(server.folder, ignore_errors=True)

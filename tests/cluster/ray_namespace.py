"""A Ray cluster in a network namespace of its own, and drivers in the same namespace.

Ray listens on every address of its machine, and whoever reaches its ports runs code, so tests must not start it elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: ways to make a namespace and to enter that of a process: as root, and as any user where the kernel lets them
WAYS = ((("unshare", "-n"), ("nsenter", "-n")), (("unshare", "-rn"), ("nsenter", "-U", "--preserve-credentials", "-n")))
_SURROUNDINGS = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}


def way() -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return how to make and enter a namespace; None where it cannot be done."""
    for make, enter in WAYS:
        try:
            if subprocess.run([*make, "true"], check=False, capture_output=True).returncode == 0:
                return make, enter
        except FileNotFoundError:
            return None
    return None


@dataclass(frozen=True)
class Namespace:
    """The running cluster: its address, a process of it, and how to enter its namespace."""

    address: str
    pid: int
    enter: tuple[str, ...]

    def driver(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a driver of `tests.cluster.ray_drivers`."""
        inside = [*self.enter, "-t", str(self.pid), sys.executable, "-m", "tests.cluster.ray_drivers"]
        return subprocess.Popen(
            [*inside, self.address, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT, env={**os.environ, **_SURROUNDINGS},
        )  # fmt: skip

    def run(self, *arguments: str | Path) -> str:
        """Run a driver to its end, and return the last line that it printed: Ray prints which processes died."""
        with self.driver(*arguments) as process:
            return finished(process)


def finished(process: subprocess.Popen[str]) -> str:
    """Wait for a driver, and return the last line that it printed."""
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    return (out.splitlines() or [""])[-1]


@contextmanager
def cluster(make: tuple[str, ...], enter: tuple[str, ...]) -> Iterator[Namespace]:
    """Yield two running nodes."""
    command = [*make, sys.executable, "-m", "tests.cluster.ray_nodes"]
    surroundings = {**os.environ, **_SURROUNDINGS}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=surroundings
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the nodes did not start"
        try:
            yield Namespace(address, process.pid, enter)
        finally:
            process.stdin.close()
            process.wait(60)

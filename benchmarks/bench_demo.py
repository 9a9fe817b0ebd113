"""`make demo` after installation: a phantom cohort from its drawing to the report, in at most two and a half minutes.

    python benchmarks/bench_demo.py              # three demos, each in a new folder, and a second run after each
    python benchmarks/bench_demo.py --runs 1

The commands are the two of `make demo`. Seconds are of the clock, on a machine that does nothing else. The second run finds that
everything is up to date.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S, LIMIT_AGAIN_S = 150.0, 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    times = [demo() for _ in range(options.runs)]
    for first, again in times:
        print(f"demo {first:6.1f} s, second run {again:4.1f} s")
    first, again = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"median of {options.runs} on {os.cpu_count()} cores: {first:.1f} s, {first / LIMIT_S:.2f} x {LIMIT_S:g} s; "
        f"second run {again:.1f} s, {again / LIMIT_AGAIN_S:.2f} x {LIMIT_AGAIN_S:g} s"
    )
    return int(first > LIMIT_S or again > LIMIT_AGAIN_S)


def demo() -> tuple[float, float]:
    """Return the seconds of a demo from an empty folder to its report, and those of the run after it."""
    with tempfile.TemporaryDirectory() as folder:
        audit = Path(folder, "audit.yaml")
        first = seconds(audit, "init", "--phantom") + seconds(audit, "run")
        if not (audit.parent / ".fmaudit" / "reports" / "index.html").exists():
            raise RuntimeError("the demo wrote no report")
        return first, seconds(audit, "run")


def seconds(audit: Path, *command: str) -> float:
    """Return the seconds that a command of `fmaudit` takes."""
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "fmaudit_dagster.cli", "-c", str(audit), *command], check=True, stdout=subprocess.DEVNULL
    )
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())

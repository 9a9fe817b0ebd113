"""Reading of predictions as CSV, compared with `polars.read_csv` of the same columns as text.

Required: at most 1.5 times as long, and flat memory: what is in use beyond the returned frame is as much for the largest file as
for the smallest, within `_SLACK`; and the frame is smaller than that of the text. Each reading runs in a process of its own.

The frame is what the process holds more after the reading than before it (resident size; a small file was read before). Beyond it
is the highest resident size, less the one after the reading.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from fmaudit_core.standalone.assess_file import read_predictions

_CHUNK: Final = 500_000
_MOST: Final = 1.5
_MIB: Final = 1 << 20
#: MiB by which memory beyond the frame may differ between files: what allocators keep
_SLACK: Final = 64


@dataclass(frozen=True)
class Measured:
    """One way to read a file.

    Parameters
    ----------
    seconds : float
        Best of the rounds.
    frame, beyond : float
        MiB held by the returned frame, and in use beyond it at the peak, in the first round.
    """

    seconds: float
    frame: float
    beyond: float


def write_predictions(path: Path, n_rows: int) -> None:
    """Write predictions of `n_rows` studies in chunks."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, n_rows, _CHUNK):
            n = min(_CHUNK, n_rows - start)
            at = pl.int_range(start, start + n, eager=True).cast(pl.String)
            pl.DataFrame(
                {
                    "study_id": "study-" + at,
                    "patient_id": "patient-" + at,
                    "split": rng.choice(["train", "val", "test"], n),
                    "y_true": rng.integers(0, 2, n),
                    "y_score": rng.random(n),
                    "sex": rng.choice(["female", "male"], n),
                    "site": rng.choice(["north", "south", "east"], n),
                }
            ).write_csv(file, include_header=start == 0)


def read_text(path: Path) -> pl.DataFrame:
    """Read the file with polars alone."""
    return pl.read_csv(path, infer_schema=False)


def resident() -> int:
    """Return the resident size of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(read: Callable[[Path], pl.DataFrame], path: Path, small: Path, rounds: int) -> Measured:
    """Read a file in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (read, path, small, rounds))


def _measured(read: Callable[[Path], pl.DataFrame], path: Path, small: Path, rounds: int) -> Measured:
    read(small)
    before = resident()
    times = []
    for number in range(rounds):
        start = time.perf_counter()
        frame = read(path)
        times.append(time.perf_counter() - start)
        if number == 0:
            after, peak = resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        del frame
    return Measured(min(times), (after - before) / _MIB, (peak - after) / _MIB)


def main() -> None:
    """Print times, sizes and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    ways = {"polars.read_csv as text": read_text, "read_predictions": read_predictions}
    found: dict[int, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as folder:
        small, path = Path(folder) / "small.csv", Path(folder) / "predictions.csv"
        write_predictions(small, 1_000)
        for n_rows in given.rows:
            write_predictions(path, n_rows)
            print(f"{n_rows:,} rows, {path.stat().st_size / _MIB:,.0f} MiB")
            found[n_rows] = [measure(read, path, small, given.rounds) for read in ways.values()]
            for name, one in zip(ways, found[n_rows], strict=True):
                print(
                    f"  {name:24} {one.seconds:6.2f} s  frame {one.frame:6,.0f} MiB  beyond it {one.beyond:6,.0f} MiB"
                )
    least, most = found[min(found)][1], found[max(found)]
    ratio, share = most[1].seconds / most[0].seconds, most[1].frame / most[0].frame
    growth = most[1].beyond - least.beyond
    print(f"time {ratio:.2f} times that of polars (at most {_MOST}); the frame has {share:.2f} of the size of the text")
    print(f"memory beyond the frame grows by {growth:,.0f} MiB (at most {_SLACK})")
    if ratio > _MOST or growth > _SLACK or share >= 1:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

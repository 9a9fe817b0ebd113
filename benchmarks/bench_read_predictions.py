"""Reading of predictions as CSV, compared with `polars.read_csv` of the same columns as text.

Required: at most 1.5 times as long, and at most 1.5 times the peak memory. Each runs in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from fmaudit_core.standalone.assess_file import read_predictions

_CHUNK: Final = 500_000
_MOST: Final = 1.5


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


def measure(read: Callable[[Path], pl.DataFrame], path: Path, rounds: int) -> tuple[float, float]:
    """Return the best time in seconds, and the peak memory in GiB, of reading in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (read, path, rounds))


def _measured(read: Callable[[Path], pl.DataFrame], path: Path, rounds: int) -> tuple[float, float]:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        read(path)
        times.append(time.perf_counter() - start)
    return min(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print times, their ratio and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.csv"
        write_predictions(path, given.rows)
        (theirs, their_peak), (ours, our_peak) = (
            measure(one, path, given.rounds) for one in (read_text, read_predictions)
        )
    print(f"{given.rows:,} rows")
    print(f"polars.read_csv as text  {theirs:7.2f} s  peak {their_peak:6.2f} GiB")
    print(f"read_predictions         {ours:7.2f} s  peak {our_peak:6.2f} GiB")
    print(
        f"ratio of times {ours / theirs:.2f} (at most {_MOST}), of peaks {our_peak / their_peak:.2f} (at most {_MOST})"
    )
    if ours > _MOST * theirs or our_peak > _MOST * their_peak:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

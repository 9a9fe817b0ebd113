"""The fuzz run in long: 2,000 mutated CT files. No traceback, none slower than 10 s, none accepted with other HU."""

from __future__ import annotations

import argparse
import collections
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.ct_files import volume_hu
from tests.imaging.mutations import mutate, outcome, write_originals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    kinds: collections.Counter[str] = collections.Counter()
    wrong, slowest, start = [], 0.0, time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        originals, want = write_originals(root / "original"), volume_hu(4)
        for number in range(options.files):
            rng = np.random.default_rng((options.seed, number))
            folder = shutil.copytree(originals[number % len(originals)], root / "mutated")
            mutation = mutate(sorted(folder.iterdir())[rng.integers(4)], rng)
            kinds[mutation.kind] += 1
            began = time.perf_counter()
            text = outcome(folder, mutation, want)
            slowest = max(slowest, time.perf_counter() - began)
            if text:
                wrong.append(f"  seed {options.seed}, file {number}: {text}")
            shutil.rmtree(folder)
    print(f"{options.files} files in {time.perf_counter() - start:.0f} s: {dict(kinds)}")
    print(f"slowest {slowest:.2f} s; wrong: {len(wrong)}", *wrong, sep="\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()

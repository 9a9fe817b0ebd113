"""The fuzz run in short: mutated files are read or named, in time, and never with other HU. Long: benchmarks/bench_fuzz.py."""

from __future__ import annotations

import shutil

import numpy as np

from tests.ct_files import volume_hu
from tests.imaging.mutations import mutate, outcome, write_originals

FILES, SEED = 160, 2026


def test_mutated_files_are_read_or_named_and_keep_their_hu(tmp_path):
    originals = write_originals(tmp_path / "original")
    want, wrong = volume_hu(4), []
    for number in range(FILES):
        rng = np.random.default_rng((SEED, number))
        source = originals[number % len(originals)]
        folder = shutil.copytree(source, tmp_path / "mutated" / str(number))
        mutation = mutate(sorted(folder.iterdir())[rng.integers(4)], rng)
        wrong.append(outcome(folder, mutation, want))
    assert [text for text in wrong if text] == []

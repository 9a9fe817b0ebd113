"""Extraction: time of the pipeline (store -> batches -> pooled -> DuckDB) relative to bare forward passes; its memory."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil

from fmaudit_core.cohort.phantom.writer import write_phantom
from fmaudit_core.config import ExtractionSection, PhantomCohort
from fmaudit_core.encoders.adapter import Encoder, load_encoder
from fmaudit_core.encoders.extract import SliceSource, extract
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import EncoderSpec, load_spec
from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.imaging.window import View


class Means:
    """An encoder with negligible cost, so that only the pipeline is measured."""

    device = "cpu"

    def encode(self, slices: np.ndarray) -> np.ndarray:
        return slices.mean(axis=(2, 3), dtype=np.float32)


class Drawn:
    """A source of any number of generated studies, without a disk: 40 slices each of three windows."""

    def read(self, study_id: str, view: View) -> np.ndarray:  # noqa: ARG002  # the interface of a store
        return np.full((40, 3, 224, 224), int(study_id) % 256, dtype=np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder", action="append", help="default: efficientnet_lite0, and astra_small on 6 studies")
    options = parser.parse_args()
    for name in options.encoder or ["efficientnet_lite0", "astra_small"]:
        spec = load_spec(shipped_specs()[name])
        overhead(spec, 6 if spec.view.volume and not options.encoder else options.studies, options.rounds)
    memory()


def overhead(spec: EncoderSpec, n_studies: int, rounds: int) -> None:
    """Print the time of the pipeline relative to the forward passes alone, on the same slices; the encoder is loaded once."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_phantom(root, PhantomCohort(kind="phantom", n_studies=max(60, n_studies)), tasks=("pe",))
        images = [(path.name, path) for path in sorted((root / "ct").iterdir())][:n_studies]
        store = SliceStore(root / "slices")
        store.build(images, [spec.view])
        studies = [study for study, _ in images]
        read = [store.read(study, spec.view) for study in studies]
        items = np.stack(read) if spec.view.volume else np.concatenate(read)
        encoder = load_encoder(spec)
        encoder.encode(items[: spec.batch_size])
        bare, whole = [], []
        for turn in range(rounds):
            start = _clocks()
            for at in range(0, len(items), spec.batch_size):
                encoder.encode(items[at : at + spec.batch_size])
            bare.append(_clocks() - start)
            start = _clocks()
            _extract(encoder, spec, store, studies, root / f"{turn}")
            whole.append(_clocks() - start)
        wall, cpu = np.median(np.array(whole) / np.array(bare), axis=0)
        fastest, kind = np.min(bare, axis=0)[0], "volumes" if spec.view.volume else "slices"
        print(f"{len(items)} {kind} through {spec.label}, batches of {spec.batch_size}, on {encoder.device}")
        print(f"  bare forward passes {fastest:7.2f} s {len(items) / fastest:7.1f} {kind}/s (best of {rounds})")
        print(f"  whole pipeline      {np.min(whole, axis=0)[0]:7.2f} s (writing DuckDB included)")
        print(
            f"  ratio               {wall:7.3f} of wall time, {cpu:.3f} of processor time (medians of {rounds} pairs)"
        )


def _clocks() -> np.ndarray:
    """Return wall time, and processor time of all threads; the latter is robust on a shared machine."""
    return np.array([time.perf_counter(), time.process_time()])


def memory() -> None:
    """Print the peak memory of a process that embeds 50 studies, and of one that embeds 500."""
    peaks = {}
    for n_studies in (50, 500):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks[n_studies] = pool.apply(_peak, (n_studies,))
    print("peak memory above the start, an encoder that costs nothing, 40 slices of 3 x 224 x 224 a study")
    for n_studies, megabytes in peaks.items():
        print(f"  {n_studies:4d} studies        {megabytes:7.0f} MB")
    print(f"  ratio               {peaks[500] / peaks[50]:7.3f}")


def _peak(n_studies: int) -> float:
    spec = EncoderSpec(
        name="means", adapter="means", dim=3, view=View(windows=("lung", "pe", "mediastinal"), size_px=224)
    )
    process, stopped, seen = psutil.Process(os.getpid()), threading.Event(), []

    def watch() -> None:
        while not stopped.wait(0.005):
            seen.append(process.memory_info().rss)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as name:
        _extract(Means(), spec, Drawn(), [f"{i:06d}" for i in range(n_studies)], Path(name))
    stopped.set()
    watcher.join()
    return (max(seen) - before) / 1e6


def _extract(encoder: Encoder, spec: EncoderSpec, store: SliceSource, studies: list[str], root: Path) -> None:
    with patch("fmaudit_core.encoders.extract.load_encoder", lambda *_: encoder):
        extract(
            spec, store=store, studies=studies, work=root / "work", out=root / "out.duckdb",
            section=ExtractionSection(), version="benchmark",
        )  # fmt: skip


if __name__ == "__main__":
    main()

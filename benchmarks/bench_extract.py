"""Encoding: the whole pipeline (store -> batches -> pooled -> DuckDB) against the bare forward passes, in turns."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from fmaudit_core.cohort.phantom import write_phantom
from fmaudit_core.config import ExtractionSection, PhantomCohort
from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.extract import extract
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import load_spec
from fmaudit_core.imaging.slices import SliceStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder", default="efficientnet_lite0")
    options = parser.parse_args()
    spec = load_spec(shipped_specs()[options.encoder])
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_phantom(root, PhantomCohort(kind="phantom", n_studies=options.studies), tasks=("pe",))
        images = [(path.name, path) for path in sorted((root / "ct").iterdir())]
        store = SliceStore(root / "slices")
        store.build(images, [spec.view])
        studies = [study for study, _ in images]
        slices = np.concatenate([store.read(study, spec.view) for study in studies])
        bare, whole = [], []
        for turn in range(options.rounds):
            encoder = load_encoder(spec)
            encoder.encode(slices[: spec.batch_size])
            start = time.perf_counter()
            for at in range(0, len(slices), spec.batch_size):
                encoder.encode(slices[at : at + spec.batch_size])
            bare.append(time.perf_counter() - start)
            start = time.perf_counter()
            extract(
                spec, store=store, studies=studies, work=root / f"work{turn}", out=root / f"{turn}.duckdb",
                section=ExtractionSection(), version="benchmark",
            )  # fmt: skip
            whole.append(time.perf_counter() - start)
        ratio = statistics.median(w / b for w, b in zip(whole, bare, strict=True))
        print(f"{len(slices)} slices through {spec.label}, batches of {spec.batch_size}, on {encoder.device}")
        print(
            f"  bare forward passes {statistics.median(bare):7.2f} s {len(slices) / statistics.median(bare):7.1f} slices/s"
        )
        print(f"  whole pipeline      {statistics.median(whole):7.2f} s (loading weights and writing DuckDB included)")
        print(f"  ratio               {ratio:7.3f}")


if __name__ == "__main__":
    main()

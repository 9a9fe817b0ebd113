"""One machine: time and peak memory of a whole audit of imported embeddings, from a cohort table to the findings.

    python benchmarks/bench_scale.py                        # 100,000 and 1,000,000 studies of 1,152 dimensions
    python benchmarks/bench_scale.py --studies 20000 50000

Cohort and embeddings are simulated: one task, and an age band for which the embeddings hold less of the truth. The embeddings
are written in blocks, so that the benchmark itself holds none of them. Mitigations are left out: they take what a training set
of the same cap takes. The seconds of the largest cohort per study are compared with those of the smallest.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

DIM = 1_152
BLOCK = 8_192
#: of the machine's memory; what a laptop of 24 GB has left
LIMIT_GB = 16.0


def cohort(n: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    study = np.arange(n)
    return pl.DataFrame(
        {
            "study_id": np.char.add("s", np.char.zfill(study.astype(str), 8)),
            "patient_id": np.char.add("p", np.char.zfill((study * 5 // 6).astype(str), 8)),
            "age": rng.integers(18, 91, n),
            "sex": rng.choice(["female", "male"], n),
            "pe": (rng.random(n) < 0.2).astype(np.int8),
        }
    )


def write_embeddings(path: Path, table: pl.DataFrame) -> None:
    """Write embeddings whose first 20 dimensions hold the truth, for patients under 41 less of it."""
    schema = pa.schema({"study_id": pa.string(), "embedding": pa.list_(pa.float32(), DIM)})
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for at in range(0, table.height, BLOCK):
            block = table.slice(at, BLOCK)
            rng = np.random.default_rng([1, at])
            x = rng.standard_normal((block.height, DIM), dtype=np.float32)
            signal = np.where(block["age"].to_numpy() < 41, 0.15, 0.35) * block["pe"].to_numpy()
            x[:, :20] += signal[:, None].astype(np.float32)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), DIM)
            writer.write_table(pa.table([pa.array(block["study_id"].to_list()), vectors], schema=schema))


def prepare(folder: Path, n: int) -> Path:
    table = cohort(n)
    table.write_csv(folder / "studies.csv")
    write_embeddings(folder / "x.parquet", table)
    with (folder / "x.parquet").open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    spec = {
        "name": "simulated",
        "adapter": "imported",
        "dim": DIM,
        "embeddings": {"path": "../x.parquet", "sha256": sha256},
    }
    audit = {
        "name": f"{n} simulated studies", "cohort": {"kind": "table", "table": "studies.csv"}, "tasks": ["pe"],
        "attributes": ["age_band", "sex"], "mitigation": {"enabled": False},
    }  # fmt: skip
    (folder / "encoders").mkdir()
    (folder / "encoders" / "simulated.yaml").write_text(yaml.safe_dump(spec))
    (folder / "audit.yaml").write_text(yaml.safe_dump(audit))
    return folder / "audit.yaml"


def audited(n: int, folder: Path) -> tuple[float, float]:
    """Return the seconds and the peak memory in GB of `fmaudit run` on n studies."""
    config = prepare(folder, n)
    command = [sys.executable, "-m", "fmaudit_dagster.cli", "-c", str(config), "run", "--jobs", "1", "--profile"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "100"})
    printed = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"fmaudit run failed on {n:,} studies:\n{printed}")
    print(printed.split("Findings of the declared family")[0].rstrip())
    age = next((line for line in printed.splitlines() if "Age band" in line and "disparity" in line), None)
    if age is None:
        raise SystemExit(f"the planted disparity was not found among {n:,} studies:\n{printed}")
    return seconds, usage.ru_maxrss / (1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument(
        "--folder", type=Path, help="where the simulated files are written; 10 GB for a million studies"
    )
    sizes, where = (given := parser.parse_args()).studies, given.folder
    per_study = []
    for n in sorted(sizes):
        folder = Path(tempfile.mkdtemp(dir=where))
        try:
            seconds, memory = audited(n, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        per_study.append(seconds / n)
        within = "within" if memory <= LIMIT_GB else "BEYOND"
        print(f"{n:>10,} studies {seconds:8.1f} s {1e3 * seconds / n:7.3f} ms a study,", end=" ")
        print(f"peak memory {memory:5.1f} GB ({within} {LIMIT_GB:g})")
    print(f"cost of a study, largest cohort / smallest: {per_study[-1] / per_study[0]:.2f}")


if __name__ == "__main__":
    main()

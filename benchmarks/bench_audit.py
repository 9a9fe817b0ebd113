"""The complete pipeline, `fmaudit run`, for a simulated cohort of INSPECT's size with imported embeddings.

    python benchmarks/bench_audit.py                    # 23,248 simulated studies, three encoders, eight tasks
    python benchmarks/bench_audit.py --studies 3000     # smaller

No INSPECT data are used: numbers of studies, patients, splits, labels and subgroups have its published size, and the embeddings
are correlated normal vectors with planted directions. Time is that of the command; memory is the peak of the sum over the command
and its child processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import yaml
from playwright.sync_api import sync_playwright

from fmaudit_core.encoders.checksums import sha256_of

N_STUDIES, N_PATIENTS = 23_248, 19_402
SPLITS = {"train": 18_945, "val": 1_089, "test": 3_214}
#: task -> shares of positive and of censored labels
TASKS = {
    "pe": (0.202, 0.0), "mortality_1m": (0.054, 0.054), "mortality_6m": (0.114, 0.099), "mortality_12m": (0.145, 0.137),
    "readmission_1m": (0.040, 0.070), "readmission_6m": (0.108, 0.134), "readmission_12m": (0.148, 0.179),
    "pulmonary_hypertension_12m": (0.142, 0.173),
}  # fmt: skip
RACES = {
    "nh_white": 0.44, "nh_asian": 0.15, "hispanic": 0.16, "nh_black": 0.06, "nh_nhpi": 0.02, "nh_aian": 0.004, "unknown": 0.166,
}  # fmt: skip
ENCODERS = {"medimageinsight": 1024, "medsiglip": 1152, "biomedclip": 512}
LIMIT_MINUTES, LIMIT_GB, LIMIT_PAGE_MB, LIMIT_PAGE_S = 45.0, 8.0, 8.0, 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=N_STUDIES)
    parser.add_argument("--without-mitigation", action="store_true")
    parser.add_argument("--folder", type=Path, help="work here and leave it; default: a folder that is deleted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        simulate(folder, options.studies, mitigation=not options.without_mitigation)
        return measured(folder, options.studies)


def simulate(folder: Path, n_studies: int, *, mitigation: bool) -> None:
    """Write a table cohort of simulated studies and one file of embeddings per encoder."""
    rng = np.random.default_rng(20_26)
    cohort = studies(rng, n_studies)
    (folder / "encoders").mkdir(parents=True, exist_ok=True)
    cohort.write_parquet(folder / "studies.parquet")
    for name, dim in ENCODERS.items():
        path = folder / f"{name}.parquet"
        embeddings(rng, cohort, dim).write_parquet(path)
        spec = {
            "name": name, "adapter": "imported", "dim": dim, "title": f"{name}, simulated", "licence": "simulated",
            "embeddings": {"path": str(path), "sha256": sha256_of(path)},
        }  # fmt: skip
        (folder / "encoders" / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    audit = {
        "name": "Simulated cohort of INSPECT's size", "tasks": list(TASKS),
        "cohort": {"kind": "table", "table": str(folder / "studies.parquet")},
        "mitigation": {"enabled": mitigation},
    }  # fmt: skip
    (folder / "audit.yaml").write_text(yaml.safe_dump(audit))


def studies(rng: np.random.Generator, n: int) -> pl.DataFrame:
    """Return studies of patients with one or several studies, each patient in one split, and labels with censoring."""
    n_patients = max(60, round(n * N_PATIENTS / N_STUDIES))
    patient = np.sort(np.concatenate([np.arange(n_patients), rng.integers(0, n_patients, n - n_patients)]))
    share = np.cumsum([count / N_STUDIES for count in SPLITS.values()])
    split = np.searchsorted(share, rng.random(n_patients)).clip(0, 2)
    race = rng.choice(list(RACES), n_patients, p=list(RACES.values()))
    sex = rng.choice(["female", "male"], n_patients, p=[0.558, 0.442])
    age = rng.normal(61, 17, n_patients).clip(18, 90).astype(int)
    columns: dict[str, object] = {
        "study_id": [f"s{i:06d}" for i in range(n)], "patient_id": [f"p{i:06d}" for i in patient],
        "split": np.array(list(SPLITS))[split[patient]], "age": age[patient], "sex": sex[patient],
        "race_ethnicity": race[patient],
    }  # fmt: skip
    for task, (positive, censored) in TASKS.items():
        label = np.where(rng.random(n) < positive / (1 - censored), "1", "0")
        columns[task] = np.where(rng.random(n) < censored, "", label)
    return pl.DataFrame(columns)


def embeddings(rng: np.random.Generator, cohort: pl.DataFrame, dim: int) -> pl.DataFrame:
    """Return correlated vectors with planted shifts.

    Positives are shifted along their task's direction, by half at ages 18 to 40; each level is shifted along its own direction.
    """
    n = cohort.height
    x = rng.standard_normal((n, dim), dtype=np.float32) * (np.arange(1, dim + 1, dtype=np.float32) ** -0.5)
    young = cohort.get_column("age").to_numpy() <= 40
    for task in TASKS:
        positive = (cohort.get_column(task) == "1").to_numpy()
        x += np.outer(positive * np.where(young, 0.5, 1.0), direction(rng, dim, 1.3)).astype(np.float32)
    for name in ("sex", "race_ethnicity"):
        for level in cohort.get_column(name).unique().sort():
            x += np.outer((cohort.get_column(name) == level).to_numpy(), direction(rng, dim, 0.8)).astype(np.float32)
    return pl.DataFrame(
        {"study_id": cohort.get_column("study_id"), "embedding": pl.Series(x, dtype=pl.Array(pl.Float32, dim))}
    )


def direction(rng: np.random.Generator, dim: int, length: float) -> np.ndarray:
    """Return a vector of `length` noise standard deviations in a random direction."""
    scale = np.arange(1, dim + 1) ** -0.5
    drawn = rng.standard_normal(dim)
    return np.asarray(drawn * scale * length / np.linalg.norm(drawn))


def measured(folder: Path, n_studies: int) -> int:
    """Run the command; print its time, the peak memory with its child processes, and the duration of each step."""
    command = [sys.executable, "-m", "fmaudit_dagster.cli", "-c", str(folder / "audit.yaml"), "run"]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        peak = Peak(process.pid)
        peak.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{(time.monotonic() - began) / 60:6.2f} min  {line.rstrip()}", flush=True)
        code = process.wait()
    minutes, gigabytes = (time.monotonic() - began) / 60, peak.stopped() / 1e9
    page = folder / ".fmaudit" / "reports" / "index.html"
    megabytes, seconds = page.stat().st_size / 1e6, interactive(page)
    print(
        f"\n{n_studies:,} simulated studies, {len(ENCODERS)} encoders, {len(TASKS)} tasks on {os.cpu_count()} cores: "
        f"{minutes:.1f} min (limit {LIMIT_MINUTES:g}), peak {gigabytes:.2f} GB (limit {LIMIT_GB:g})\n"
        f"page {megabytes:.2f} MB (limit {LIMIT_PAGE_MB:g}), interactive in {seconds:.2f} s (limit {LIMIT_PAGE_S:g})"
    )
    kept = minutes <= LIMIT_MINUTES and gigabytes <= LIMIT_GB and megabytes < LIMIT_PAGE_MB and seconds < LIMIT_PAGE_S
    return int(code != 0 or not kept)


def interactive(page: Path) -> float:
    """Return the median of three times until a cold browser has drawn the page and its filters respond, in seconds."""
    found = []
    with sync_playwright() as play:
        for _ in range(3):
            browser = play.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            tab = browser.new_page()
            began = time.monotonic()
            tab.goto(page.as_uri())
            tab.locator("html[data-drawn]").wait_for()
            found.append(time.monotonic() - began)
            browser.close()
    return sorted(found)[1]


class Peak(threading.Thread):
    """A thread that samples the resident memory of a process and its children twice a second and keeps the maximum."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process, self._ended, self._bytes = psutil.Process(pid), threading.Event(), 0

    def run(self) -> None:
        while not self._ended.wait(0.5):
            try:
                tree = [self._process, *self._process.children(recursive=True)]
                self._bytes = max(self._bytes, sum(_resident(one) for one in tree))
            except psutil.NoSuchProcess:
                return

    def stopped(self) -> int:
        """Stop sampling and return the peak in bytes."""
        self._ended.set()
        self.join()
        return self._bytes


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


if __name__ == "__main__":
    sys.exit(main())

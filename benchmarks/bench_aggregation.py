"""Attention against mean pooling for focal findings: a phantom of many slices, a real encoder, the audit's table.

    python benchmarks/bench_aggregation.py                           # 700 studies of 48 slices; 15 minutes on two cores
    python benchmarks/bench_aggregation.py --keep DIR --lrcn         # with the recurrent network: some minutes more

Emboli are visible in 2 slices (young patients) or 5 to 7 slices of a study; emphysema and thin bone, which drive mortality, in
all slices. With the demo's 12 slices an embolus covers half of a study, so attention has little to find; with 48 slices it covers
an eighth. Attention's linear part differs from the logistic probe, so the gain due to attention is measured against its own equal
weights.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import yaml

from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.setup.write_config import write_audit

TASKS = ("pe", "mortality_12m")


def audited(folder: Path, options: argparse.Namespace) -> Path:
    """Return the audit.yaml of a phantom after a complete run; finished steps are not run again."""
    path = folder / "audit.yaml"
    if not path.exists():
        cohort = {
            "kind": "phantom", "n_studies": options.studies, "n_slices": options.slices, "matrix_px": 96, "seed": options.seed,
        }  # fmt: skip
        write_audit(path, cohort, name="Focal and diffuse", tasks=TASKS)
        raw = yaml.safe_load(path.read_text())
        raw["probes"] = {"kinds": ["logistic", "abmil", *(["lrcn"] if options.lrcn else [])]}
        raw["probes"]["poolings"] = ["mean", "max", "median"]
        raw["mitigation"] = {"enabled": False}
        path.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "fmaudit_dagster.cli", "-c", str(path), "run", "--encoder", "efficientnet_lite0"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=700)
    parser.add_argument("--slices", type=int, default=48)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--lrcn", action="store_true")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        start = time.perf_counter()
        path = audited(options.keep or Path(temporary), options)
        rows = open_workspace(path).warehouse.read("spatial_aggregation").filter(comparison="aggregation")
        print(f"{options.studies} studies of {options.slices} slices, {time.perf_counter() - start:.0f} s")
        shown = (
            "task", "aggregation", "status", "n", "auroc", "difference", "difference_low", "difference_high", "p_value", "p_holm",
            "equal_difference", "equal_p", "seed_sd",
        )  # fmt: skip
        with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, float_precision=4, tbl_hide_dataframe_shape=True):
            print(rows.select(shown))


if __name__ == "__main__":
    main()

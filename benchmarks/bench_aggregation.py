"""Does attention see a clot that the mean of the slices drowns? A phantom of many slices, a real encoder, the audit's table.

    python benchmarks/bench_aggregation.py                           # 700 studies of 48 slices; a quarter of an hour on two cores
    python benchmarks/bench_aggregation.py --keep DIR --lrcn         # the recurrent network too: some minutes more

Emboli show in 2 slices (the young) or 5 to 7 of a study's; emphysema and thin bone, which drive mortality, in every one. The
demo's 12 slices make half of a study an embolus, so there is little for attention to find; 48 make it an eighth. Attention's
linear part is another than the logistic probe's, so what attention itself gains is read against its own equal weights.
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
    """audit.yaml of a phantom that was run whole; what was run before is not run again."""
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

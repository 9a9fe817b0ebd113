"""Features from the events of a medical record, compared with the same features by pandas' group-by.

A MEDS dataset of random events is written and read from disk. fmaudit reads all of it. pandas would need several times the
memory, so it reads only the first shards, on which fmaudit is timed too: the ratio compares both on the same events, and the
features must be equal. Each runs in a separate process, so that peak memory is measured separately.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fmaudit_core.config import EhrSection
from fmaudit_core.ehr.features import EhrTables, ehr_tables
from fmaudit_core.ehr.source import Record

N_PATIENTS, N_CODES, N_SHARDS = 19_400, 12_000, 20
WINDOWS = (30, 365)
SETTINGS = EhrSection(min_patients=1, max_codes=1_000_000, windows_days=WINDOWS)
EPOCH_US, SPAN_US = int(datetime(2008, 1, 1).timestamp() * 1e6), 10 * 365 * 86_400_000_000


def write_record(folder: Path, n_events: int, seed: int = 0) -> pl.DataFrame:
    """Write `data/*.parquet` sorted by patient and time, as in MEDS, with values for a third of the codes; return the studies."""
    rng = np.random.default_rng(seed)
    names = pl.Series("code", [f"{('SNOMED', 'LOINC', 'RxNorm')[i % 3]}/{10_000 + i}" for i in range(N_CODES)])
    tables = pl.Series(["condition_occurrence", "measurement", "drug_exposure"])
    for shard, patients in enumerate(np.array_split(np.arange(N_PATIENTS), N_SHARDS)):
        n = n_events // N_SHARDS
        code = (rng.zipf(1.2, n) - 1) % N_CODES
        value = np.where(code % 3 == 1, rng.normal(size=n), np.nan).astype(np.float32)
        # one in ten is a date without a time
        at = EPOCH_US + rng.integers(0, SPAN_US, n)
        at = np.where(rng.random(n) < 0.1, at // 86_400_000_000 * 86_400_000_000, at)
        frame = pl.DataFrame(
            {
                "subject_id": rng.choice(patients, n).astype(np.int64),
                "time": pl.Series(at).cast(pl.Datetime("us")),
                "code": names.gather(code),
                "numeric_value": pl.Series(value).fill_nan(None),
                "table": tables.gather(code % 3),
                "clarity_table": pl.Series(["shc_problem_list", None, None], dtype=pl.String).gather(code % 3),
            }
        ).sort("subject_id", "time")
        (folder / "data").mkdir(parents=True, exist_ok=True)
        frame.write_parquet(folder / "data" / f"data_{shard:02d}.parquet")
    n_studies = int(1.15 * N_PATIENTS)
    patient = np.concatenate([np.arange(N_PATIENTS), rng.choice(N_PATIENTS, n_studies - N_PATIENTS, replace=False)])
    t = EPOCH_US + SPAN_US // 2 + rng.integers(0, SPAN_US // 2, n_studies)
    return pl.DataFrame(
        {
            "study_id": [f"s{i:06d}" for i in range(n_studies)],
            "patient_id": patient.astype(str),
            "split": "train",  # so that no code is left out for lack of training patients
            "time": pl.Series(t).cast(pl.Datetime("us")),
        }
    )


def ours(folder: Path, studies: pl.DataFrame) -> EhrTables:
    return ehr_tables(Record("meds", folder), studies, SETTINGS, cache=folder / "cache")


def named(tables: EhrTables) -> pl.DataFrame:
    """Return fmaudit's features with study ids and code names, as in pandas; not timed."""
    rows = tables.features.join(tables.rows.select("row", "study_id", "cutoff"), on="row")
    return rows.join(tables.vocabulary.select("code_id", "code"), on="code_id").drop("row", "code_id")


def peers(folder: Path, studies: pl.DataFrame) -> Any:
    """Return the same features as typically written in pandas: merge, filter, drop repeats of a day, group."""
    import pandas as pd

    events = pd.concat(
        [pd.read_parquet(path) for path in sorted((folder / "data").glob("*.parquet"))], ignore_index=True
    )
    events = events[~events["code"].str.startswith(("STANFORD_NOTE/", "MEDS_DEATH", "MEDS_BIRTH", "Gender/", "Race/"))]
    day = events["time"].dt.floor("D")
    events["time"] = events["time"].where(events["time"] != day, day + pd.Timedelta("23:59:59"))
    past = studies.to_pandas()
    past["subject_id"] = past["patient_id"].astype("int64")
    both = [
        past.assign(cutoff="day", cutoff_time=past["time"].dt.floor("D")),
        past.assign(cutoff="day_before", cutoff_time=past["time"] - pd.Timedelta("1D")),
    ]
    rows = pd.concat(both, ignore_index=True)[["study_id", "subject_id", "cutoff", "cutoff_time"]]
    seen = events[["subject_id", "time", "code", "numeric_value"]].merge(rows, on="subject_id")
    seen = seen[seen["time"] < seen["cutoff_time"]]
    key = ["study_id", "cutoff", "code"]
    seen["day"] = seen["time"].dt.floor("D")
    once = seen.drop_duplicates([*key, "day"])
    counts = once.groupby(key).agg(days=("day", "size"))
    for width in WINDOWS:
        inside = once[once["day"] + pd.Timedelta("1D") > once["cutoff_time"] - pd.Timedelta(days=width)]
        counts[f"days_{width}"] = inside.groupby(key).size()
    latest = seen.groupby(key).agg(latest=("time", "max"), cutoff_time=("cutoff_time", "first"))
    counts["days_ago"] = (latest["cutoff_time"] - latest["latest"]) / pd.Timedelta("1D")
    valued = seen.dropna(subset=["numeric_value"]).sort_values(["time", "numeric_value"])
    counts["last_value"] = valued.groupby(key)["numeric_value"].last()
    return counts.fillna({f"days_{width}": 0 for width in WINDOWS}).reset_index()


def timed(which: str, folder: Path, out: Path | None) -> dict[str, Any]:
    """Run one of them in a separate process."""
    command = [sys.executable, __file__, "--child", which, str(folder), str(out or "")]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(which: str, folder: Path, out: str) -> None:
    studies = pl.read_parquet(folder / "studies.parquet")
    start = time.perf_counter()
    found = ours(folder, studies) if which == "ours" else peers(folder, studies)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if out and which == "ours":
        named(found).write_parquet(out)
    elif out:
        found.to_parquet(out)
    print(json.dumps({"seconds": seconds, "peak_gb": peak}))


def same(one: Path, other: Path) -> float:
    """Check that two files hold the same studies and codes, and return the largest difference of a feature."""
    key = ["study_id", "cutoff", "code"]
    a, b = (pl.read_parquet(path).sort(key) for path in (one, other))
    if not a.select(key).equals(b.select(key)):
        raise SystemExit("the two hold other studies or codes")
    worst = 0.0
    for name in ("days", *(f"days_{width}" for width in WINDOWS), "days_ago", "last_value"):
        x, y = (frame.get_column(name).cast(pl.Float64).fill_null(np.nan).to_numpy() for frame in (a, b))
        if not np.array_equal(np.isnan(x), np.isnan(y)):
            raise SystemExit(f"{name} is missing in other places")
        worst = max(worst, float(np.nanmax(np.abs(x - y) / np.maximum(np.abs(y), 1.0), initial=0.0)))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--shards-of-peer", type=int, default=4, help=f"of {N_SHARDS}")
    parser.add_argument("--child", nargs=3)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]), options.child[2])
        return
    with tempfile.TemporaryDirectory() as top:
        whole, part = Path(top) / "whole", Path(top) / "part"
        studies = write_record(whole, options.events)
        studies.write_parquet(whole / "studies.parquet")
        (part / "data").mkdir(parents=True)
        shards = sorted((whole / "data").iterdir())[: options.shards_of_peer]
        for path in shards:
            (part / "data" / path.name).symlink_to(path)
        patients = pl.concat([pl.read_parquet(path, columns=["subject_id"]) for path in shards]).unique()
        studies.join(
            patients.select(patient_id=pl.col("subject_id").cast(pl.String)), on="patient_id", how="semi"
        ).write_parquet(part / "studies.parquet")
        timed("ours", part, None)  # compile before timing
        full = timed("ours", whole, None)
        few, peer = timed("ours", part, Path(top) / "ours.parquet"), timed("pandas", part, Path(top) / "peers.parquet")
        apart = same(Path(top) / "ours.parquet", Path(top) / "peers.parquet")
    n_part = options.events // N_SHARDS * options.shards_of_peer
    print(
        f"{options.events:,} events of {N_PATIENTS:,} patients, {studies.height:,} studies at 2 cutoffs, {N_CODES:,} codes"
    )
    print(f"  fmaudit, all of them               {full['seconds']:8.1f} s   peak {full['peak_gb']:5.2f} GB")
    print(f"{n_part:,} of the same events")
    print(f"  fmaudit                            {few['seconds']:8.1f} s   peak {few['peak_gb']:5.2f} GB")
    print(f"  pandas merge and group-by          {peer['seconds']:8.1f} s   peak {peer['peak_gb']:5.2f} GB")
    print(f"  ratio on the same events           {peer['seconds'] / few['seconds']:8.1f} x")
    scale = options.events / n_part
    print(
        f"  pandas scaled by {scale:g} against all    {scale * peer['seconds'] / full['seconds']:8.1f} x   (taken as linear)"
    )
    print(f"  largest relative difference of a feature: {apart:.1e}")


if __name__ == "__main__":
    main()

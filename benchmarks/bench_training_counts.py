"""Simulation of gaps under equal training counts: type-I error, planted truths, and the time of a large audit.

Disease shows in one direction of the embedding. In a subgroup that the probe has to learn apart, it shows in another one, and
there are few training cases. In a subgroup that is harder, it shows in the same direction, but less.

Required: with counts that play no part the contrast is rejected in at most 6.5 % at 5 %, and where few cases are the cause in at
least 79 %; a harder task is not blamed on counts. An encoder of INSPECT (16,000 training studies x 1,152, 8 tasks, 5 attributes)
takes under 3 minutes on two cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from benchmarks.bench_probes import cohort
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.training_counts import Probed, training_counts

KEY: Final = {
    "encoder": "e", "task": "t", "probe": "logistic", "modality": "ct", "pooling": "mean", "strategy": "none",
}  # fmt: skip
_STUDIES: Final = 1.3
_PREVALENCE: Final = 0.2
_MEMBERS: Final = 0.12
_SPLIT: Final = (0.6, 0.15, 0.25)


@dataclass(frozen=True)
class Truth:
    """What a subgroup of an eighth of the patients differs in.

    Parameters
    ----------
    same, own : mean shift of its positives in the direction of the others, and in a direction of its own
    """

    name: str
    same: float
    own: float
    patients: int = 6_000
    dim: int = 64


TRUTHS: Final = (
    Truth("no gap", 2.2, 0.0),
    Truth("few training cases", 0.9, 2.0),
    Truth("harder cases", 1.6, 0.0),
)


def drawn(truth: Truth, rng: np.random.Generator) -> Probed:
    """Draw a cohort."""
    counts = 1 + rng.poisson(_STUDIES - 1, truth.patients)
    patient = np.repeat(np.arange(truth.patients), counts)
    member = (rng.random(truth.patients) < _MEMBERS)[patient]
    y = rng.random(len(patient)) < _PREVALENCE
    x = rng.normal(size=(len(patient), truth.dim)) + 0.5 * rng.normal(size=(truth.patients, truth.dim))[patient]
    x[:, 0] += y * np.where(member, truth.same, 2.2)
    x[:, 1] += y * np.where(member, truth.own, 0.0)
    split = rng.choice(["train", "val", "test"], truth.patients, p=_SPLIT)[patient]
    studies = pl.DataFrame(
        {"split": split, "patient_id": patient, "y_true": y, "group": np.where(member, "few", "many")}
    )
    return Probed(x.astype(np.float32), studies.with_columns(pl.col("patient_id").cast(pl.String)), 0.01, KEY)


def found(truth: Truth, draw: int) -> dict[str, Any]:
    """Return the row of the smaller subgroup of one draw."""
    probed = drawn(truth, np.random.default_rng([draw, len(truth.name)]))
    return training_counts(probed, ["group"], FairnessSection()).counts.row(
        by_predicate=pl.col("subgroup") == "few", named=True
    )


def simulated(truth: Truth, draws: Sequence[int]) -> dict[str, float]:
    """Return means over draws, and the share in which the contrast is rejected at 5 %."""
    rows = [found(truth, draw) for draw in draws]
    names = ("gap_all", "gap_random", "gap_equal", "gap_contrast", "subgroup_change", "rest_change")
    out = {name: float(np.mean([row[name] for row in rows])) for name in names}
    return out | {"rejected": float(np.mean([(row["gap_contrast_p"] or 1.0) <= 0.05 for row in rows]))}


def encoder_seconds(studies: int = 23_000, dim: int = 1_152, tasks: int = 8) -> float:
    """Return the time of one encoder: 8 tasks, 5 attributes, about 16,000 of the studies in training."""
    x, targets = cohort(studies, dim, tasks)
    rng = np.random.default_rng(0)
    shares = {"age": (0.1, 0.2, 0.3, 0.25, 0.15), "race": (0.6, 0.2, 0.15, 0.05), "sex": (0.5, 0.5)}
    shares |= {"site": (0.5, 0.3, 0.2), "setting": (0.7, 0.3)}
    frame = pl.DataFrame(
        {
            "split": rng.choice(["train", "val", "test"], studies, p=(0.7, 0.15, 0.15)),
            "patient_id": [f"p{i}" for i in range(studies)],
            **{name: rng.choice([f"{name}{i}" for i in range(len(p))], studies, p=p) for name, p in shares.items()},
        }
    )
    started = time.perf_counter()
    for task, y in targets.items():
        probed = Probed(x, frame.with_columns(y_true=pl.Series(y > 0)), 0.01, KEY | {"task": task})
        made = training_counts(probed, list(shares), FairnessSection())
        print(
            f"{task}: {time.perf_counter() - started:.1f} s",
            dict(made.counts["status"].value_counts().iter_rows()),
            flush=True,
        )
    return time.perf_counter() - started


def main() -> None:
    """Print a line per truth, and the time of an encoder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--only", default="", help="truths whose name contains this; `time` for the time alone")
    given = parser.parse_args()
    for truth in TRUTHS:
        if given.only in truth.name:
            found = simulated(truth, range(given.draws))
            print(f"{truth.name:<20}", "  ".join(f"{name} {value:+.3f}" for name, value in found.items()), flush=True)
    if given.only in "time":
        print(f"an encoder of INSPECT: {encoder_seconds():.0f} s")


if __name__ == "__main__":
    main()

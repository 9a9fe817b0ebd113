"""Embeddings with a known truth: what depends on the subgroup, and which strategy could mend it."""

from __future__ import annotations

import numpy as np
import polars as pl

from fmaudit_core.mitigation.dataset import Embedded, embedded
from fmaudit_core.tables.mitigation import MITIGATION_RUNS, MITIGATION_SCORES

ATTRIBUTES = ("group", "other")


def cohort(
    n: int = 3_000, d: int = 12, *, kind: str = "none", shares=(0.8, 0.2), readable: float = 0.0, seed: int = 0
) -> tuple[Embedded, tuple[list[str], np.ndarray], pl.DataFrame, pl.DataFrame]:
    """Studies of one encoder: as `Embedded`, and as embeddings, studies and labels.

    Kinds
    -----
    weighting : disease shows on one axis in the majority and on another in the minority, so a probe learns the majority's unless
        the minority counts as much
    noise : the minority's disease hardly shows at all, which no weights can mend
    none : it shows alike

    `readable` moves the minority along an axis of its own: the attribute can be read off linearly.
    """
    rng = np.random.default_rng(seed)
    patients = int(n / 1.2)
    patient = np.concatenate([np.arange(patients), rng.integers(0, patients, n - patients)])
    group = (rng.random(patients) < shares[1])[patient]
    other = (rng.random(patients) < 0.5)[patient]
    y = rng.random(n) < 0.3
    x = rng.normal(size=(n, d))
    strength = 2.2
    if kind == "weighting":
        x[:, 0] += strength * y * np.where(group, -0.35, 1.0)
        x[:, 1] += strength * y * np.where(group, 1.0, 0.0)
    elif kind == "noise":
        x[:, 0] += strength * y * np.where(group, 0.15, 1.0)
    else:
        x[:, 0] += strength * y
    x[:, 2] += readable * group
    split = rng.choice(["train", "val", "test"], patients, p=[0.5, 0.2, 0.3])[patient]
    studies = pl.DataFrame(
        {
            "study_id": [f"s{i:05d}" for i in range(n)],
            "patient_id": [f"p{i:05d}" for i in patient],
            "split": split,
            "group": np.where(group, "minority", "majority"),
            "other": np.where(other, "x", "z"),
        }
    )
    labels = pl.DataFrame({"study_id": studies["study_id"], "task": "pe", "label": y})
    embeddings = (studies["study_id"].to_list(), x.astype(np.float32))
    return embedded(embeddings, studies, labels, tasks=["pe"], attributes=ATTRIBUTES), embeddings, studies, labels


def calls(before: dict[str, int], after: dict[str, int], *, seeds=(None,), diverged=(), of: int = 100):
    """Scores and runs of a strategy aimed at `group`, by how many of `of` positives of each level are found; negatives are not.

    One study a patient. Every seed of `seeds` calls alike; those of `diverged` have no scores.
    """

    def run(strategy, seed):
        aim = "none" if strategy == "none" else "group"
        return {
            "encoder": "e",
            "task": "pe",
            "strategy": strategy,
            "target_attribute": aim,
            "alpha": None,
            "seed": seed,
        }

    def scored(strategy, seed, found):
        return [
            run(strategy, seed)
            | {"study_id": f"{level}{y}{i:03d}", "patient_id": f"{level}{y}{i:03d}", "split": "test", "y_true": bool(y)}
            | {
                "y_score": 0.9 - 0.001 * i if y and i < found[level] else 0.4 + 0.001 * i * y,
                "threshold": 0.5,
                "group": level,
            }
            for level in found
            for y in (0, 1)
            for i in range(of)
        ]

    scores = scored("none", None, before)
    for seed in seeds:
        scores += scored("dfr", seed, after)
    runs = [run("none", None) | {"status": "fitted", "chosen": True}]
    runs += [run("dfr", seed) | {"status": "fitted", "chosen": True} for seed in seeds]
    runs += [run("dfr", seed) | {"status": "diverged", "chosen": False} for seed in diverged]
    return (
        pl.DataFrame(scores, schema=MITIGATION_SCORES.schema | {"group": pl.String}),
        MITIGATION_RUNS.frame(runs),
    )

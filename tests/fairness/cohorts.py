"""Simulated predictions with a known truth: patients with several studies, subgroups of unequal size and prevalence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

LEVELS = ("a", "b", "c", "d")


def predictions(
    n_patients: int = 800,
    *,
    studies_per_patient: float = 1.2,
    prevalence: Sequence[float] = (0.1, 0.2, 0.3, 0.25),
    shares: Sequence[float] = (0.4, 0.3, 0.2, 0.1),
    shift: Mapping[str, float] | None = None,
    separation: float = 1.5,
    seed: int = 0,
) -> pl.DataFrame:
    """Scores of one model on val and test; `shift` lowers the scores of a subgroup's positives (a planted disparity)."""
    rng = np.random.default_rng(seed)
    group = rng.choice(len(shares), n_patients, p=np.array(shares) / sum(shares))
    counts = 1 + rng.poisson(studies_per_patient - 1, n_patients)
    patient = np.repeat(np.arange(n_patients), counts)
    of_study = group[patient]
    common = rng.normal(size=n_patients)[patient]
    positive = 0.5 * common + 0.85 * rng.normal(size=len(patient)) > _quantile(np.array(prevalence)[of_study])
    score = separation * positive + 0.4 * rng.normal(size=n_patients)[patient] + 0.9 * rng.normal(size=len(patient))
    for level, amount in (shift or {}).items():
        score -= amount * positive * (of_study == LEVELS.index(level))
    split = np.where(rng.random(n_patients) < 0.3, "val", "test")[patient]
    return pl.DataFrame(
        {
            "study_id": [f"s{i:06d}" for i in range(len(patient))],
            "patient_id": [f"p{i:06d}" for i in patient],
            "split": split,
            "y_true": positive,
            "y_score": score,
            "group": [LEVELS[g] for g in of_study],
            "other": np.where(rng.random(n_patients) < 0.5, "x", "y")[patient],
        }
    )


def _quantile(rate: np.ndarray) -> np.ndarray:
    from scipy.stats import norm

    return norm.ppf(1 - rate) * np.hypot(0.5, 0.85)

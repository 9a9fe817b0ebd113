"""Draws `wards.csv`: simulated predictions with a known truth, which the examples of these pages assess.

700 patients of four wards with one to three studies. The scores are calibrated probabilities, but in ward C two of
three men with the disease look healthy to the model: that is planted. Ward D is too small to be reported.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from scipy.special import expit

SHARES = {"A": 0.37, "B": 0.30, "C": 0.30, "D": 0.03}


def wards(n_patients: int = 700, seed: int = 3) -> pl.DataFrame:
    """Predictions of one model on val and test, a row per study."""
    rng = np.random.default_rng(seed)
    ward = rng.choice(list(SHARES), n_patients, p=list(SHARES.values()))
    sex = rng.choice(["female", "male"], n_patients)
    split = np.where(rng.random(n_patients) < 0.2, "val", "test")
    of = np.repeat(np.arange(n_patients), rng.choice([1, 2, 3], n_patients, p=[0.8, 0.15, 0.05]))
    risk = (rng.normal(-0.6, 1.5, n_patients)[of] + rng.normal(0, 0.8, len(of))) * 1.2
    ill = rng.random(len(of)) < expit(risk)
    hidden = ill & (ward[of] == "C") & (sex[of] == "male") & (rng.random(len(of)) < 0.67)
    score = expit(risk - 4.0 * hidden)
    return pl.DataFrame(
        {
            "study_id": [f"s{i:03d}" for i in range(len(of))],
            "patient_id": [f"p{i:03d}" for i in of],
            "split": split[of],
            "y_true": ill.astype(int),
            "y_score": score.round(3),
            "ward": ward[of],
            "sex": sex[of],
        }
    )


if __name__ == "__main__":
    wards().write_csv(Path(__file__).with_name("wards.csv"))

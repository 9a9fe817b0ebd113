"""Of the largest cohorts, probes are trained on a part of the patients; whoever is scored stays whole."""

from __future__ import annotations

import numpy as np
import polars as pl

from fmaudit_core.probes.training_cap import capped_training


def cohort(n=4_000):
    rng = np.random.default_rng(0)
    patient = rng.integers(0, n // 2, n)
    split = np.where(patient % 10 < 7, "train", np.where(patient % 10 < 8, "val", "test"))
    ids = {"study_id": [f"s{i}" for i in range(n)], "patient_id": [f"p{one}" for one in patient]}
    return pl.DataFrame(ids | {"split": split, "sex": rng.choice(["f", "m"], n)})


def test_a_cohort_within_the_cap_stays_as_it_is():
    studies = cohort()
    assert capped_training(studies, 4_000).equals(studies)


def test_whole_patients_are_left_out_and_validation_and_test_are_kept():
    studies = cohort()
    capped = capped_training(studies, 1_000)
    train = capped.filter(split="train")
    assert 990 <= train.height <= 1_000
    assert capped.filter(pl.col("split") != "train").equals(studies.filter(pl.col("split") != "train"))
    per_patient = studies.group_by("patient_id").len("n")
    kept = train.group_by("patient_id").len("kept").join(per_patient, on="patient_id")
    assert (kept["n"] == kept["kept"]).all()


def test_who_is_kept_depends_neither_on_the_order_of_rows_nor_much_on_other_patients():
    studies = cohort()
    kept = set(capped_training(studies, 1_000).filter(split="train")["study_id"])
    assert (
        set(capped_training(studies.sample(fraction=1, shuffle=True, seed=1), 1_000).filter(split="train")["study_id"])
        == kept
    )
    larger = set(capped_training(studies, 1_500).filter(split="train")["study_id"])
    assert kept < larger


def test_the_part_that_is_kept_is_like_the_whole():
    studies = cohort(20_000)
    train, kept = (frame.filter(split="train") for frame in (studies, capped_training(studies, 5_000)))
    assert abs((kept["sex"] == "f").mean() - (train["sex"] == "f").mean()) < 0.03

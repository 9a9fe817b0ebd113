"""The training studies of all probes: all of a cohort's, or of the largest cohorts a part drawn by patient."""

from __future__ import annotations

import hashlib

import polars as pl


def capped_training(studies: pl.DataFrame, most: int) -> pl.DataFrame:
    """Return the studies without some patients' training studies, if there are more than `most`.

    Patients are drawn by the SHA-256 of their id, so that those who are kept depend on no other patient but their number. The
    studies of validation and test are always kept: a probe's precision hardly grows beyond some 100,000 training studies, its
    memory does.

    Parameters
    ----------
    studies : frame with `patient_id, split`
    most : int
        Largest number of training studies.

    Returns
    -------
    frame with the columns of `studies`, its rows in their order
    """
    training = studies.filter(pl.col("split") == "train")
    if training.height <= most:
        return studies
    patients = (
        training.group_by("patient_id")
        .len("n")
        .with_columns(_drawn=pl.col("patient_id").map_elements(_digest, pl.Binary))
    )
    kept = patients.sort("_drawn").filter(pl.col("n").cum_sum() <= most)
    return studies.filter(
        (pl.col("split") != "train") | pl.col("patient_id").is_in(kept.get_column("patient_id").implode())
    )


def _digest(patient_id: str) -> bytes:
    # another hash than that of the split, of which training patients hold one part only
    return hashlib.sha256(f"training/{patient_id}".encode()).digest()

"""A split for cohorts that bring none: by patient, the same on every machine and whatever else is in the table."""

from __future__ import annotations

import hashlib

from fmaudit_core.common.vocabulary import Split


def assign_split(patient_id: str) -> Split:
    """Split of a patient: 70 % train, 10 % val, 20 % test, from the SHA-256 of the patient's id.

    All studies of a patient fall into one split, and adding patients moves nobody.
    """
    share = int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"

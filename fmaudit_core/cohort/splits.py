"""Default split by patient for cohorts without one. It does not depend on the machine or on other rows."""

from __future__ import annotations

import hashlib

from fmaudit_core.common.vocabulary import Split


def assign_split(patient_id: str) -> Split:
    """Assign a patient to a split (70 % train, 10 % val, 20 % test) by the SHA-256 of the patient id.

    All studies of a patient are in one split. Adding patients does not change the split of others.
    """
    share = int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"

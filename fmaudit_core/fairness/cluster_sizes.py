"""Patients as clusters of studies: what several studies of one patient cost in certainty."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def patient_codes(patient: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Codes of patients from 0 upwards, fit for counting; codes that are small already stay as they are.

    Some codes may belong to nobody here: what is counted over patients must not count those.
    """
    if len(patient) == 0 or (int(patient.min()) >= 0 and int(patient.max()) <= 8 * len(patient) + 1024):
        return patient
    codes: npt.NDArray[np.integer] = np.unique(patient, return_inverse=True)[1]
    return codes


def n_patients(patient: npt.NDArray[np.integer]) -> int:
    """Patients who have any of the studies whose codes these are."""
    return len(cluster_sizes(patient_codes(patient)))


def patients_by_class(y_true: npt.NDArray[np.bool_], patient: npt.NDArray[np.integer]) -> tuple[int, int]:
    """Patients with a positive study and patients with a negative one; who has both counts in both.

    Parameters
    ----------
    y_true, patient : (n,) of each study
    """
    return n_patients(patient[y_true]), n_patients(patient[~y_true])


def cluster_sizes(codes: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Studies of each patient who has any, (patients,) float64, of codes that `patient_codes` gave."""
    sizes = np.bincount(codes)
    return sizes[sizes > 0].astype(np.float64)

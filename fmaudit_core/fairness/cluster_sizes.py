"""Patients as clusters of studies: patient codes and cluster sizes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def patient_codes(patient: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Return patient codes from 0 upwards, small enough for counting. Codes that are already small are returned unchanged.

    Some codes may be unused. Exclude them from counts over patients.
    """
    if len(patient) == 0 or (int(patient.min()) >= 0 and int(patient.max()) <= 8 * len(patient) + 1024):
        return patient
    codes: npt.NDArray[np.integer] = np.unique(patient, return_inverse=True)[1]
    return codes


def n_patients(patient: npt.NDArray[np.integer]) -> int:
    """Return the number of distinct patients."""
    return len(cluster_sizes(patient_codes(patient)))


def patients_by_class(y_true: npt.NDArray[np.bool_], patient: npt.NDArray[np.integer]) -> tuple[int, int]:
    """Return the numbers of patients with a positive study and with a negative study. A patient with both counts in both.

    Parameters
    ----------
    y_true, patient : (n,) label and patient code of each study
    """
    return n_patients(patient[y_true]), n_patients(patient[~y_true])


def cluster_sizes(codes: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Return the number of studies of each patient with at least one, (patients,) float64, for codes from `patient_codes`."""
    sizes = np.bincount(codes)
    return sizes[sizes > 0].astype(np.float64)

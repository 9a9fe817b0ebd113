"""Subgroup labels dealt anew: by patient, within outcome strata, the same for every model that is compared.

Unstratified, a permutation test of a gap rejects far too often where prevalence differs by subgroup; by study instead of by
patient, where patients have several studies. Both are kept here: a patient's labels move together, and only between patients
who have a positive study or patients who have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

#: labels held at once: keeps memory flat whatever the cohort and the number of permutations
_CHUNK_BYTES = 64 << 20


class Dealer:
    """Deals subgroup labels to studies.

    Parameters
    ----------
    group : (n,) int, subgroup code of each study
    patient : (n,) int, patient code of each study
    positive : (n,) bool
    seed : int
    named : str
        What the labels are of, for example ``pe/sex``: with the seed it decides the deals, so that all models on the same
        studies get the same ones.

    Notes
    -----
    Where an attribute changes within a patient (age over years), whole trajectories are dealt, between patients with as many
    studies.
    """

    def __init__(
        self,
        group: npt.NDArray[np.integer],
        patient: npt.NDArray[np.integer],
        positive: npt.NDArray[np.bool_],
        *,
        seed: int,
        named: str,
    ) -> None:
        entropy = int.from_bytes(hashlib.sha256(f"{seed}/{named}".encode()).digest()[:8], "big")
        self._random = np.random.default_rng(entropy)
        self._n = len(group)
        codes, counts = _coded(patient)
        by_patient = np.argsort(codes, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
        ever = np.bincount(codes, positive) > 0
        first = group[by_patient[starts]]
        self._changes = bool(np.any(group != first[codes]))
        self._strata = _strata(ever, counts, self._changes)
        self._codes, self._by_patient, self._starts, self._counts = codes, by_patient, starts, counts
        self._group = group.astype(np.uint8)
        self._first = first.astype(np.uint8)

    def deals(self, n_permutations: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Chunks of labellings, (chunk, n) uint8 in study order, `n_permutations` rows in all."""
        chunk = max(1, min(n_permutations, _CHUNK_BYTES // max(8 * self._n, 1)))
        left = n_permutations
        while left:
            rows = min(chunk, left)
            yield self._deal(rows)
            left -= rows

    def _deal(self, rows: int) -> npt.NDArray[np.uint8]:
        """Who gets whose labels: within each stratum, patients exchange with one another."""
        out = np.empty((rows, self._n), dtype=np.uint8)
        for patients in self._strata:
            giver = self._random.permuted(np.broadcast_to(patients, (rows, len(patients))), axis=1)
            if not self._changes:
                of_patient = self._first[giver]
                for column, one in enumerate(patients):
                    start = self._starts[one]
                    studies = self._by_patient[start : start + self._counts[one]]
                    out[:, studies] = of_patient[:, [column]]
            else:
                for nth in range(int(self._counts[patients[0]])):
                    own = self._by_patient[self._starts[patients] + nth]
                    theirs = self._by_patient[self._starts[giver] + nth]
                    out[:, own] = self._group[theirs]
        return out


def _coded(patient: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Patients as 0..k-1, and how many studies each has."""
    _, codes, counts = np.unique(patient, return_inverse=True, return_counts=True)
    return codes, counts


def _strata(
    ever_positive: npt.NDArray[np.bool_], counts: npt.NDArray[np.intp], by_length: bool
) -> list[npt.NDArray[np.intp]]:
    key = ever_positive.astype(np.int64) + (2 * counts if by_length else 0)
    return [np.flatnonzero(key == value) for value in np.unique(key)]

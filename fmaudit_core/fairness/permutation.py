"""Subgroup labels dealt anew: by patient, within outcome strata, the same for every model that is compared.

Unstratified, a permutation test of a gap rejects far too often where prevalence differs by subgroup; by study instead of by
patient, where patients have several studies. Both are kept here: a patient's labels move together, and only between patients
with as many positive and as many negative studies. Were a patient of one study exchanged with one of five, a subgroup of the
latter would be dealt more people than it has, and would seem to vary by chance less than it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.kernels import LANES, Labellings
from fmaudit_core.fairness.seeding import mixed, seed_of

#: labels dealt at once: they stay in the processor's cache while every score set counts them
_CHUNK_BYTES = 4 << 20
#: labellings shuffled before they are laid side by side: they fit the nearest cache
_TILE: Final = 8
#: blocks dealt at once at least: work for every core
_LEAST_BLOCKS = 4


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
    studies. Of more than two positives or negatives numbers are alike that lie between the same powers of two: 3-4, 5-8, ...
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
        self._seed = np.uint64(seed_of(seed, named))
        codes, counts = _coded(patient)
        self._group = group.astype(np.uint8 if int(group.max(initial=0)) < 256 else np.uint16)
        by_patient = np.argsort(codes, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
        self._studies = self._group[by_patient]
        firsts = self._studies[starts]
        changes = bool(np.any(self._group != firsts[codes]))
        strata = _strata(np.bincount(codes, positive).astype(np.int64), counts, by_length=changes)
        members = np.concatenate(strata)
        self._ends = np.cumsum([len(one) for one in strata])
        place = np.empty(len(counts), dtype=np.int64)
        place[members] = np.arange(len(members))
        #: whose label a study takes: the one dealt to its patient's place
        self._place = place[codes]
        # what is dealt: each patient's label, or where a patient's trajectory of labels begins
        self._nth = np.empty(0, dtype=np.int64)
        self._dealt: npt.NDArray[np.integer] = firsts[members]
        if changes:
            self._nth = np.empty(len(group), dtype=np.int64)
            self._nth[by_patient] = np.arange(len(group)) - starts[codes[by_patient]]
            self._dealt = starts[members]

    def deals(self, n_permutations: int) -> Iterator[Labellings]:
        """Labellings of the studies in study order, in chunks; `n_permutations` in all."""
        block = LANES * max(len(self._group), 1) * self._group.itemsize
        rows = LANES * max(_LEAST_BLOCKS, _CHUNK_BYTES // block)
        for start in range(0, n_permutations, rows):
            yield self._deal(start, min(rows, n_permutations - start))

    def _deal(self, start: int, size: int) -> Labellings:
        """Who gets whose labels: within each stratum, patients exchange with one another."""
        lanes = np.empty((-(-size // LANES), len(self._group), LANES), dtype=self._group.dtype)
        _deal(self._seed, start, self._dealt, self._ends, self._place, self._nth, self._studies, lanes)
        return Labellings(lanes, size)


@numba.njit(cache=True)
def _shuffle(state, ends, cards):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fisher-Yates within each stratum, two steps to a draw.

    SplitMix64 (Steele, Lea & Flood 2014); numbers below a bound by multiplication (Lemire 2019), whose bias at 32 bits is
    below one in a thousand for a million patients.
    """
    half, z = False, np.uint64(0)
    low = 0
    for end in ends:
        for i in range(end - 1, low, -1):
            if half:
                drawn = z & np.uint64(0xFFFFFFFF)
            else:
                state += np.uint64(0x9E3779B97F4A7C15)
                z = mixed(state)
                drawn = z >> np.uint64(32)
            half = not half
            j = low + np.int64((drawn * np.uint64(i - low + 1)) >> np.uint64(32))
            cards[i], cards[j] = cards[j], cards[i]
        low = end


@numba.njit(parallel=True, cache=True)
def _deal(seed, start, cards, ends, place, nth, labels, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Each labelling has a stream of its own, so chunks and threads change nothing."""
    for block in numba.prange(len(out)):
        dealt = np.empty((_TILE, len(cards)), dtype=cards.dtype)
        for first in range(0, LANES, _TILE):
            for lane in range(_TILE):
                row = start + block * LANES + first + lane
                dealt[lane] = cards
                _shuffle(seed + np.uint64(row) * np.uint64(0xD1342543DE82EF95), ends, dealt[lane])
            for study in range(len(place)):
                at = place[study]
                for lane in range(_TILE):
                    if len(nth):
                        out[block, study, first + lane] = labels[dealt[lane, at] + nth[study]]
                    else:
                        out[block, study, first + lane] = dealt[lane, at]


def _coded(patient: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Patients as 0..k-1, and how many studies each has."""
    _, codes, counts = np.unique(patient, return_inverse=True, return_counts=True)
    return codes, counts


def _strata(
    n_positive: npt.NDArray[np.int64], counts: npt.NDArray[np.intp], *, by_length: bool
) -> list[npt.NDArray[np.intp]]:
    """Patients who exchange labels with one another, by their positive and their negative studies."""
    alike = [_alike(n_positive), _alike(counts - n_positive), counts if by_length else np.zeros_like(counts)]
    key = np.unique(np.stack(alike), axis=1, return_inverse=True)[1].ravel()
    return np.split(np.argsort(key, kind="stable"), np.cumsum(np.bincount(key))[:-1])


def _alike(n: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """0, 1 and 2 as they are, 3 for 3 and 4, 4 for 5 to 8, and so on."""
    return np.where(n <= 2, n, 1 + np.ceil(np.log2(np.maximum(n, 1)))).astype(np.int64)

"""Permutation of subgroup labels between patients. All compared models share the same permutations.

Labels are permuted over all patients of the tested subgroups. The statistics are studentised again in every permutation
(`gaps.py`), which makes the test valid if subgroups differ in prevalence, in the spread of scores or in studies per patient
(Chung & Romano 2013, Annals of Statistics 41:484; Pauly, Brunner & Konietschke 2015, JRSS-B 77:461). Only if some subgroup would
receive too few patients of the rarer class to be studentised are labels permuted within two strata: patients with a study of
the rarer class, and patients without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numba
import numpy as np

from fmaudit_core.fairness.labellings import LANES, Labellings
from fmaudit_core.fairness.seeding import mixed, seed_of
from fmaudit_core.fairness.units import Units

#: size of a chunk of labels: it stays in the processor's cache while every score set counts it
_CHUNK_BYTES = 4 << 20
#: labellings shuffled before they are interleaved: they fit in the L1 cache
_TILE: Final = 8
#: fewest blocks permuted at once, to use several cores
_LEAST_BLOCKS = 4


class PatientPermuter:
    """Permute subgroup labels between units.

    Parameters
    ----------
    units : Units
    seed : int
    named : str
        Name of the random stream, usually the task. Seed and name determine the permutations, so that all models and attributes
        on the same patients share them.
    test_from : int
        Fewest patients of the rarer class that every subgroup must receive on average for an unstratified permutation.
    smallest : int, optional
        Units of the smallest tested subgroup; of the smallest of all subgroups if not given.
    """

    def __init__(self, units: Units, *, seed: int, named: str, test_from: int, smallest: int | None = None) -> None:
        self._seed = np.uint64(seed_of(seed, named))
        rarer = units.rarer
        least = int(np.bincount(units.group).min()) if smallest is None else smallest
        #: whether labels are permuted within {has a study of the rarer class, has none}
        self.stratified = bool(least * rarer.mean() < test_from)
        strata = [np.flatnonzero(rarer), np.flatnonzero(~rarer)] if self.stratified else [np.arange(len(rarer))]
        members = np.concatenate(strata)
        self._ends = np.cumsum([len(one) for one in strata])
        self._place = np.empty(len(members), dtype=np.int64)
        self._place[members] = np.arange(len(members))
        self._labels = units.group[members]

    def permutations(self, n_permutations: int) -> Iterator[Labellings]:
        """Yield permuted labellings of the units in chunks, `n_permutations` in all."""
        block = LANES * max(len(self._labels), 1) * self._labels.itemsize
        rows = LANES * max(_LEAST_BLOCKS, _CHUNK_BYTES // block)
        for start in range(0, n_permutations, rows):
            yield self._deal(start, min(rows, n_permutations - start))

    def _deal(self, start: int, size: int) -> Labellings:
        lanes = np.empty((-(-size // LANES), len(self._labels), LANES), dtype=self._labels.dtype)
        _deal(self._seed, start, self._labels, self._ends, self._place, lanes)
        return Labellings(lanes, size)


@numba.njit(cache=True)
def _shuffle(state, ends, cards):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Shuffle in place by Fisher-Yates within each stratum, two steps per random draw.

    The generator is SplitMix64 (Steele, Lea & Flood 2014). Bounded numbers are drawn by multiplication (Lemire 2019), whose bias
    at 32 bits is below one in a thousand for a million patients.
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
def _deal(seed, start, cards, ends, place, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Permute labels. Each labelling has its own random stream, so the result does not depend on chunks and threads."""
    for block in numba.prange(len(out)):
        permuted = np.empty((_TILE, len(cards)), dtype=cards.dtype)
        for first in range(0, LANES, _TILE):
            for lane in range(_TILE):
                row = start + block * LANES + first + lane
                permuted[lane] = cards
                _shuffle(seed + np.uint64(row) * np.uint64(0xD1342543DE82EF95), ends, permuted[lane])
            for unit in range(len(place)):
                at = place[unit]
                for lane in range(_TILE):
                    out[block, unit, first + lane] = permuted[lane, at]

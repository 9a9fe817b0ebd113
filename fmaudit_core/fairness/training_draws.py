"""Training studies of refits: equally many of every subgroup, or as many in total at random, each outcome as often in both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: steps of a learning curve; the last one has the full equal counts
STEPS: Final = 5


@dataclass(frozen=True)
class TrainingDraw:
    """Training studies of one seed.

    Parameters
    ----------
    equal : (STEPS, n) bool
        Equally many studies of every subgroup: a fifth of the smallest subgroup's, two fifths, and so on. Each step contains the
        previous one.
    random : (n,) bool, as many as the last step of `equal` in total, whatever their subgroup
    """

    equal: BoolArray
    random: BoolArray


def smallest_counts(place: IntArray, y_true: BoolArray) -> tuple[int, int]:
    """Return the counts of the subgroup with the fewest studies with the outcome, and without it.

    Parameters
    ----------
    place : (n,) int64, subgroup of each study from 0; -1 if it takes no part
    """
    counts = [np.bincount(place[(place >= 0) & (y_true == one)], minlength=place.max() + 1) for one in (True, False)]
    return int(counts[0].min()), int(counts[1].min())


def counts_at(step: int, each: tuple[int, int]) -> tuple[int, int]:
    """Return the studies of every subgroup with and without the outcome at a step of the learning curve, from 0."""
    with_outcome, without = (max(1, round(n * (step + 1) / STEPS)) for n in each)
    return with_outcome, without


def draw_training(place: IntArray, y_true: BoolArray, each: tuple[int, int], rng: np.random.Generator) -> TrainingDraw:
    """Draw training studies for one seed. Both kinds of draws share one random order, which makes them comparable.

    Parameters
    ----------
    place : (n,) int64, as in `smallest_counts`
    y_true : (n,) bool
    each : studies with and without the outcome that are drawn of every subgroup
    """
    n_levels = int(place.max()) + 1
    equal, random = np.zeros((STEPS, len(y_true)), dtype=bool), np.zeros(len(y_true), dtype=bool)
    order = rng.permutation(len(y_true))
    order = order[place[order] >= 0]
    for at, outcome in enumerate((True, False)):
        of_outcome = order[y_true[order] == outcome]
        random[of_outcome[: n_levels * each[at]]] = True
        for level in range(n_levels):
            of_level = of_outcome[place[of_outcome] == level]
            for step in range(STEPS):
                equal[step, of_level[: counts_at(step, each)[at]]] = True
    return TrainingDraw(equal, random)

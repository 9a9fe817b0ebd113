"""Compiled counting: all subgroups of all labellings in one pass over the scores in order.

For each labelling the pass keeps the negatives met so far, over all and by subgroup. A positive beats those of its own subgroup
(AUROC within) and those of all (with what its subgroup's negatives lose to all, AUROC of the rest). Deals of labels are drawn
in `permutation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
#: subgroup of each study; uint16 where there are more than 256
Labels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Ranking:
    """Scores of one score set in ascending order, sorted once for all permutations.

    Parameters
    ----------
    order : (n,) int64, studies from the lowest score to the highest
    block_end : (n,) int64, where the block of equal scores at each place ends
    positive : (n,) bool, in study order
    first_above : int, place of the first score at or above the threshold
    """

    order: npt.NDArray[np.int64]
    block_end: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    first_above: int

    @classmethod
    def of(cls, score: Float64Array, positive: npt.NDArray[np.bool_], threshold: float) -> Ranking:
        """Sort scores; equal scores share a block, and a score at the threshold counts as called positive."""
        order = np.argsort(score, kind="stable").astype(np.int64)
        ranked = score[order]
        ends = np.searchsorted(ranked, ranked, side="right").astype(np.int64)
        return cls(order, ends, positive, int(np.searchsorted(ranked, threshold, side="left")))


@dataclass(frozen=True)
class Counts:
    """Counts per labelling and subgroup, each (B, g) float64.

    Parameters
    ----------
    within : pairs of a positive ranked above a negative, both of the subgroup, ties half
    over_all : the same with a positive of the subgroup and a negative of any
    under_all : the same with a positive of any and a negative of the subgroup
    positives, negatives : studies
    positives_above, negatives_above : studies at or above the threshold
    """

    within: Float64Array
    over_all: Float64Array
    under_all: Float64Array
    positives: Float64Array
    negatives: Float64Array
    positives_above: Float64Array
    negatives_above: Float64Array


def count(ranking: Ranking, labels: Labels, n_groups: int) -> Counts:
    """Count every labelling of the studies by subgroup.

    Parameters
    ----------
    labels : (B, n) uint8, subgroup of each study in study order, below `n_groups`
    """
    tallies = np.zeros((len(labels), n_groups, 7))
    positive = ranking.positive[ranking.order]
    dealt = np.ascontiguousarray(labels)
    if bool((ranking.block_end == np.arange(1, len(positive) + 1)).all()):
        # every positive's negatives below it and every negative's positives above it are the same in all labellings
        weight = np.where(positive, np.cumsum(~positive), positive.sum() - np.cumsum(positive)).astype(np.float64)
        _count_distinct(ranking.order, positive, weight, ranking.first_above, dealt, tallies)
    else:
        n_positive = int(positive.sum())
        _count(ranking.order, ranking.block_end, positive, n_positive, ranking.first_above, dealt, tallies)
    return Counts(*(tallies[..., which] for which in range(7)))


@numba.njit(parallel=True, cache=True)
def _count_distinct(order, positive, weight, first_above, labels, tallies):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The pass where no two scores are equal: what `_count` does, in a fraction of its time."""
    n_labellings, n = labels.shape
    n_groups = tallies.shape[1]
    for b in numba.prange(n_labellings):
        negatives, positives = np.zeros(n_groups), np.zeros(n_groups)
        within, over, under = np.zeros(n_groups), np.zeros(n_groups), np.zeros(n_groups)
        for half in range(2):
            start, end = (0, first_above) if half == 0 else (first_above, n)
            for place in range(start, end):
                group = labels[b, order[place]]
                if positive[place]:
                    within[group] += negatives[group]
                    over[group] += weight[place]
                    positives[group] += 1.0
                else:
                    negatives[group] += 1.0
                    under[group] += weight[place]
            if half == 0:
                for group in range(n_groups):
                    tallies[b, group, 5] = -positives[group]
                    tallies[b, group, 6] = -negatives[group]
        for group in range(n_groups):
            tallies[b, group, 0] = within[group]
            tallies[b, group, 1] = over[group]
            tallies[b, group, 2] = under[group]
            tallies[b, group, 3] = positives[group]
            tallies[b, group, 4] = negatives[group]
            tallies[b, group, 5] += positives[group]
            tallies[b, group, 6] += negatives[group]


@numba.njit(parallel=True, cache=True)
def _count(order, block_end, positive, n_positive, first_above, labels, tallies):  # type: ignore[no-untyped-def]  # pragma: no cover
    n_labellings, n = labels.shape
    n_groups = tallies.shape[1]
    for b in numba.prange(n_labellings):
        tally = tallies[b]
        below, tied = np.zeros(n_groups), np.zeros(n_groups)
        all_below, positives_met = 0.0, 0.0
        at = 0
        while at < n:
            end = block_end[at]
            tied_negatives, tied_positives = 0.0, 0.0
            if end > at + 1:
                tied[:] = 0.0
                for place in range(at, end):
                    if positive[place]:
                        tied_positives += 1.0
                    else:
                        tied[labels[b, order[place]]] += 1.0
                        tied_negatives += 1.0
            for place in range(at, end):
                group = labels[b, order[place]]
                above = 1.0 if place >= first_above else 0.0
                if positive[place]:
                    tally[group, 0] += below[group]
                    tally[group, 1] += all_below
                    if end > at + 1:
                        tally[group, 0] += 0.5 * tied[group]
                        tally[group, 1] += 0.5 * tied_negatives
                    tally[group, 3] += 1.0
                    tally[group, 5] += above
                    if end == at + 1:
                        positives_met += 1.0
                else:
                    tally[group, 2] += n_positive - positives_met - 0.5 * tied_positives
                    tally[group, 4] += 1.0
                    tally[group, 6] += above
                    if end == at + 1:
                        below[group] += 1.0
                        all_below += 1.0
            if end > at + 1:
                below += tied
                all_below += tied_negatives
                positives_met += tied_positives
            at = end

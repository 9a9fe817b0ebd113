"""Compiled counting: all subgroups of all permutations in one pass over the scores in order.

For each labelling the pass keeps the negatives of every subgroup met so far; a positive adds them to its row of wins. Wins
of subgroup g over negatives of h give AUROC within (g = h), against the rest, and across subgroups (xAUC) alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]


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
    """Counts per labelling and subgroup.

    Parameters
    ----------
    wins : (B, g, g) float64, positives of the row's subgroup ranked above negatives of the column's, ties half
    positives, negatives : (B, g) float64
    positives_above, negatives_above : (B, g) float64, those at or above the threshold
    """

    wins: Float64Array
    positives: Float64Array
    negatives: Float64Array
    positives_above: Float64Array
    negatives_above: Float64Array


def count(ranking: Ranking, labels: npt.NDArray[np.uint8], n_groups: int) -> Counts:
    """Count every labelling of the studies by subgroup.

    Parameters
    ----------
    labels : (B, n) uint8, subgroup of each study in study order, below `n_groups`
    """
    wins = np.zeros((len(labels), n_groups, n_groups))
    tallies = np.zeros((4, len(labels), n_groups))
    _count(
        ranking.order,
        ranking.block_end,
        ranking.positive,
        ranking.first_above,
        np.ascontiguousarray(labels),
        wins,
        tallies,
    )
    return Counts(wins, *tallies)


@numba.njit(parallel=True, cache=True)
def _count(order, block_end, positive, first_above, labels, wins, tallies):  # type: ignore[no-untyped-def]  # pragma: no cover
    n_labellings, n = labels.shape
    n_groups = wins.shape[1]
    for b in numba.prange(n_labellings):
        below = np.zeros(n_groups)
        tied = np.zeros(n_groups)
        at = 0
        while at < n:
            end = block_end[at]
            if end > at + 1:
                tied[:] = 0.0
                for place in range(at, end):
                    study = order[place]
                    if not positive[study]:
                        tied[labels[b, study]] += 1.0
            for place in range(at, end):
                study = order[place]
                group = labels[b, study]
                above = 1.0 if place >= first_above else 0.0
                if positive[study]:
                    for other in range(n_groups):
                        wins[b, group, other] += below[other]
                    if end > at + 1:
                        for other in range(n_groups):
                            wins[b, group, other] += 0.5 * tied[other]
                    tallies[0, b, group] += 1.0
                    tallies[2, b, group] += above
                else:
                    tallies[1, b, group] += 1.0
                    tallies[3, b, group] += above
                    if end == at + 1:
                        below[group] += 1.0
            if end > at + 1:
                below += tied
            at = end

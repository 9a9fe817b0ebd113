"""Compiled counting: all subgroups of many labellings in one pass over the scores in order.

For each labelling the pass keeps the negatives met so far, by subgroup. A positive beats those of its own subgroup (AUROC
within); the pairs that touch a subgroup at either end leave the AUROC of the rest. Labellings lie side by side in blocks, so
that a processor counts several at once. Deals of labels are drawn in `permutation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
#: subgroup of each study; uint16 where there are more than 256
Labels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

#: labellings side by side: the labels of one study in a block fill a cache line
LANES: Final = 64
#: studies whose labels are asked of memory together, so that the waits for them overlap
_AHEAD: Final = 16
_INT32_MAX: Final = 2**31 - 1


@dataclass(frozen=True)
class Labellings:
    """Many labellings of the same studies by subgroup.

    Parameters
    ----------
    lanes : (blocks, n, LANES), labelling ``block * LANES + lane`` of each study in study order
    size : int
        Labellings; what the last block holds beyond them means nothing.
    """

    lanes: Labels
    size: int

    @classmethod
    def of(cls, rows: Labels) -> Labellings:
        """Labellings given as rows, (B, n)."""
        size, n = rows.shape
        blocks = -(-size // LANES)
        padded = np.zeros((blocks * LANES, n), dtype=rows.dtype)
        padded[:size] = rows
        return cls(np.ascontiguousarray(padded.reshape(blocks, LANES, n).transpose(0, 2, 1)), size)

    def rows(self) -> Labels:
        """The labellings as rows, (B, n)."""
        blocks, n, _ = self.lanes.shape
        return self.lanes.transpose(0, 2, 1).reshape(blocks * LANES, n)[: self.size]

    def mapped(self, to: Labels) -> Labellings:
        """Every label exchanged for another: `to` has the new one at the place of the old."""
        return Labellings(to[self.lanes], self.size)


@dataclass(frozen=True)
class Ranking:
    """Scores of one score set in ascending order, sorted once for all permutations.

    Each study is an event. Where scores are tied, each positive is one before the negatives it ties with and one after them,
    which makes a tie half a pair once the counts are halved.

    Parameters
    ----------
    study : (events,) int64, places in study order
    positive : (events,) bool
    n_below : (events,) int32, negatives before each event
    first_above : int, the first event at or above the threshold
    scale : float, what an event of a positive counts for: 1, or a half with ties
    n_positive, n_negative : int
    """

    study: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    n_below: npt.NDArray[np.int32]
    first_above: int
    scale: float
    n_positive: int
    n_negative: int

    @classmethod
    def of(cls, score: Float64Array, positive: npt.NDArray[np.bool_], threshold: float) -> Ranking:
        """Sort scores; a score at the threshold counts as called positive."""
        order = np.argsort(score, kind="stable").astype(np.int64)
        ranked = score[order]
        scale = 1.0
        if np.any(ranked[1:] == ranked[:-1]):
            scale = 0.5
            study = np.concatenate([np.flatnonzero(positive), np.flatnonzero(~positive), np.flatnonzero(positive)])
            turn = np.repeat([0, 1, 2], [positive.sum(), (~positive).sum(), positive.sum()])
            order = study[np.lexsort((turn, score[study]))]
            ranked = score[order]
        is_positive = positive[order]
        return cls(
            study=order,
            positive=is_positive,
            n_below=np.cumsum(~is_positive).astype(np.int32),
            first_above=int(np.searchsorted(ranked, threshold, side="left")),
            scale=scale,
            n_positive=int(positive.sum()),
            n_negative=int((~positive).sum()),
        )

    @property
    def n_pairs_right(self) -> float:
        """Pairs of a positive ranked above a negative, ties half, over all studies."""
        return self.scale * float(self.n_below[self.positive].sum(dtype=np.int64))


@dataclass(frozen=True)
class Counts:
    """Counts per labelling and subgroup, each (B, g) float64.

    Parameters
    ----------
    within : pairs of a positive ranked above a negative, both of the subgroup, ties half
    touching : the same with the positive, the negative or both of the subgroup
    positives, negatives : studies
    positives_above, negatives_above : studies at or above the threshold
    over_all : float, pairs ranked right over all studies
    """

    within: Float64Array
    touching: Float64Array
    positives: Float64Array
    negatives: Float64Array
    positives_above: Float64Array
    negatives_above: Float64Array
    over_all: float


def count(ranking: Ranking, labellings: Labellings, n_groups: int) -> Counts:
    """Count every labelling of the studies by subgroup; each label lies below `n_groups`."""
    lanes = labellings.lanes
    shape = (len(lanes), n_groups, LANES)
    most = ranking.n_positive * ranking.n_negative / ranking.scale
    pairs = np.int32 if most <= _INT32_MAX else np.int64
    within, touching = np.empty(shape, dtype=pairs), np.empty(shape, dtype=pairs)
    positives, negatives, positives_below, negatives_below = (np.empty(shape, dtype=np.int32) for _ in range(4))
    _count(
        ranking.study, ranking.positive, ranking.n_below, ranking.first_above, lanes,
        within, touching, positives, negatives, positives_below, negatives_below,
    )  # fmt: skip
    half = ranking.scale
    return Counts(
        within=_by_labelling(within, half, labellings.size),
        touching=_by_labelling(touching, half, labellings.size),
        positives=_by_labelling(positives, half, labellings.size),
        negatives=_by_labelling(negatives, 1.0, labellings.size),
        positives_above=_by_labelling(positives - positives_below, half, labellings.size),
        negatives_above=_by_labelling(negatives - negatives_below, 1.0, labellings.size),
        over_all=ranking.n_pairs_right,
    )


def _by_labelling(counted: npt.NDArray[np.integer], scale: float, size: int) -> Float64Array:
    """(blocks, g, LANES) -> (size, g), a subgroup's counts side by side in memory: sums over subgroups are then quick."""
    by_group: Float64Array = counted.transpose(1, 0, 2).reshape(counted.shape[1], -1)[:, :size].astype(np.float64)
    by_group *= scale
    return by_group.T


@numba.njit(cache=True)
def _negative(labels, negatives):  # type: ignore[no-untyped-def]  # pragma: no cover
    for group in range(len(negatives)):
        for lane in range(LANES):
            negatives[group, lane] += np.int32(labels[lane] == group)


@numba.njit(cache=True)
def _positive(labels, n_below, negatives, positives, within, touching):  # type: ignore[no-untyped-def]  # pragma: no cover
    for group in range(len(negatives)):
        for lane in range(LANES):
            own = negatives[group, lane]
            mask = -np.int32(labels[lane] == group)  # all bits where the positive is of this subgroup, none elsewhere
            positives[group, lane] -= mask
            within[group, lane] += own & mask
            touching[group, lane] += own + ((n_below - own) & mask)


@numba.njit(parallel=True, cache=True)
def _count(  # type: ignore[no-untyped-def]  # pragma: no cover
    study, positive, n_below, first_above, lanes,
    within, touching, positives, negatives, positives_below, negatives_below,
):  # fmt: skip
    n_groups = within.shape[1]
    asked = np.zeros(len(lanes), dtype=np.int64)
    for block in numba.prange(len(lanes)):
        labels = lanes[block]
        n_pos, n_neg = np.zeros((n_groups, LANES), dtype=np.int32), np.zeros((n_groups, LANES), dtype=np.int32)
        inside, touched = np.zeros_like(within[block]), np.zeros_like(touching[block])
        for half in range(2):
            start, end = (0, first_above) if half == 0 else (first_above, len(study))
            for first in range(start, end, _AHEAD):
                last = min(first + _AHEAD, end)
                for event in range(first, last):
                    asked[block] += labels[study[event], 0]
                for event in range(first, last):
                    if positive[event]:
                        _positive(labels[study[event]], n_below[event], n_neg, n_pos, inside, touched)
                    else:
                        _negative(labels[study[event]], n_neg)
            if half == 0:
                positives_below[block] = n_pos
                negatives_below[block] = n_neg
        within[block], touching[block] = inside, touched
        positives[block], negatives[block] = n_pos, n_neg
    return asked

"""Compiled counting for many labellings at once: wins of every subgroup and the sums for their clustered variance.

One pass over the scores in ascending order gives AUROC and the sums of its variance (`by_patient.py`). The pass visits the
class with fewer studies ("rarer"). The other class ("common") is only counted: by summation by parts, the sum over N common
studies of (rarer ones below)^2 equals ``N M^2 - sum over rarer ones of (2 P + 1) c``, with M rarer ones, c the common ones below
a rarer one and P the rarer ones before it. Studies of a unit with several studies add to one cell per unit, which is squared at
the end.

Labellings are stored in blocks of lanes, so that a processor counts several at once. `permutation.py` draws them; `gaps.py`
computes metrics from the sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.kinds import FEW, Kinds, tally
from fmaudit_core.fairness.labellings import LANES, Labellings, by_labelling
from fmaudit_core.fairness.units import Units

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: events whose labels are prefetched together, so that memory latencies overlap
_AHEAD: Final = 16
_INT32_MAX: Final = 2**31 - 1
#: 32-bit sums are used only if they hold at least this many events before they must be emptied
_LEAST_EVENTS: Final = 8

# operation of the pass at an event; in a tie, cells of common studies come last, when the tied rarer studies are counted
_COUNT, _COUNT_CELL, _COUNT_TIED, _WIN, _WIN_CELL, _TIED_WIN, _TIED_WIN_CELL, _TIE_BEGINS, _TIE_ENDS, _TIED_CELL = (
    range(10)
)
# sums of the pass: wins of rarer single-study units, their squares, parts, wins over common single-study units, wins in cells
_OWN, _SQUARES, _PARTS, _OVER_SINGLE, _IN_CELLS = range(5)


@dataclass(frozen=True)
class Ranking:
    """Scores of one score set in ascending order, sorted once for all permutations.

    Parameters
    ----------
    op, unit, cell : (events,) operation, unit, and index of the unit among those with several studies
    cell_unit, cell_rarer, cell_common : (cells,) units with several studies, and their numbers of studies by class
    scale : int
        Scale of counts: 2 if studies of both classes tie, so that half a win is an integer, else 1.
    n_rarer, n_common : int
    positives_are_rarer : bool
    calls : Kinds of units by positives called, and by negatives called; None without a threshold
    """

    op: npt.NDArray[np.uint8]
    unit: IntArray
    cell: IntArray
    cell_unit: IntArray
    cell_rarer: Float64Array
    cell_common: Float64Array
    scale: int
    n_rarer: int
    n_common: int
    positives_are_rarer: bool
    calls: tuple[Kinds, Kinds] | None

    @classmethod
    def of(cls, score: Float64Array, positive: BoolArray, units: Units, threshold: float) -> Ranking:
        """Sort the scores of n studies.

        Parameters
        ----------
        score : (n,) float64
        positive : (n,) bool
        units : Units
        threshold : float
            A score at the threshold counts as called positive; NaN if there is no threshold.
        """
        n_positive, n_negative = int(positive.sum()), int((~positive).sum())
        positives_are_rarer = n_positive <= n_negative
        rarer = positive if positives_are_rarer else ~positive
        cells = np.flatnonzero(units.several)
        cell_of = np.full(len(units.group), -1, dtype=np.int64)
        cell_of[cells] = np.arange(len(cells))
        of_class = (units.positives, units.negatives)[:: 1 if positives_are_rarer else -1]
        op, study, scale = _events(score if positives_are_rarer else -score, rarer, units.several[units.of_study])
        unit = units.of_study[study]
        return cls(
            op=op,
            unit=unit,
            cell=cell_of[unit],
            cell_unit=cells.astype(np.int64),
            cell_rarer=of_class[0][cells].astype(np.float64),
            cell_common=of_class[1][cells].astype(np.float64),
            scale=scale,
            n_rarer=min(n_positive, n_negative),
            n_common=max(n_positive, n_negative),
            positives_are_rarer=positives_are_rarer,
            calls=None if np.isnan(threshold) else _calls(score >= threshold, positive, units),
        )


def _calls(called: BoolArray, positive: BoolArray, units: Units) -> tuple[Kinds, Kinds]:
    """Group units by their m studies of a class, a of them called; sum a, a^2, a m, units with any and with all called."""
    out = []
    for of_class, m in ((positive, units.positives), (~positive, units.negatives)):
        a = np.bincount(units.of_study[of_class & called], minlength=len(m))
        weights = np.stack([a, a * a, a * m, a > 0, (a == m) & (m > 0)], axis=1).astype(np.float64)
        out.append(Kinds.of([m, a], weights))
    return out[0], out[1]


def _events(score: Float64Array, rarer: BoolArray, several: BoolArray) -> tuple[npt.NDArray[np.uint8], IntArray, int]:
    """Return operation and study of each event in ascending order of score, and the scale of counts."""
    _, value = np.unique(score, return_inverse=True)
    n_values = int(value.max(initial=-1)) + 1
    tie = (np.bincount(value[rarer], minlength=n_values) > 0) & (np.bincount(value[~rarer], minlength=n_values) > 0)
    tied = tie[value]
    ops = np.where(
        rarer,
        np.where(tied, np.where(several, _TIED_WIN_CELL, _TIED_WIN), np.where(several, _WIN_CELL, _WIN)),
        np.where(several, np.where(tied, _COUNT_TIED, _COUNT_CELL), _COUNT),
    )
    ties, late = np.flatnonzero(tie), np.flatnonzero(ops == _COUNT_TIED)
    anyone = np.zeros_like(ties)
    op = np.concatenate(
        [ops, np.full(len(ties), _TIE_BEGINS), np.full(len(ties), _TIE_ENDS), np.full(len(late), _TIED_CELL)]
    )
    study = np.concatenate([np.arange(len(score)), anyone, anyone, late])
    turn = np.concatenate([1 + rarer, anyone, anyone + 3, np.full(len(late), 4)])
    order = np.lexsort((turn, np.concatenate([value, ties, ties, value[late]])))
    return op[order].astype(np.uint8), study[order].astype(np.int64), 2 if len(ties) else 1


@dataclass(frozen=True)
class Wins:
    """Sums of one pass by labelling and subgroup, each (B, n_groups) float64, in pairs of studies (ties count half).

    Parameters
    ----------
    wins : pairs won, all studies
    own_wins, own_squares : for rarer studies that are the only one of their unit, the common ones below, and their squares
    own_losses, own_loss_squares : for common studies that are the only one of their unit, the rarer ones below, and their squares
    cell_rarer, cell_common, cell_crossed : over units with several studies, sums of x^2, y^2 and x y, where x is a unit's sum of
        (share of common ones below - AUROC) and y its sum of (share of rarer ones above - AUROC)
    """

    wins: Float64Array
    own_wins: Float64Array
    own_squares: Float64Array
    own_losses: Float64Array
    own_loss_squares: Float64Array
    cell_rarer: Float64Array
    cell_common: Float64Array
    cell_crossed: Float64Array


def count_wins(ranking: Ranking, labellings: Labellings, n_groups: int) -> Wins:
    """Count the wins by subgroup for every labelling of the units; each label is below `n_groups`."""
    lanes, s = labellings.lanes, ranking.scale
    most = s * ranking.n_common
    emptied = _INT32_MAX // max(most * most, s * (2 * ranking.n_rarer + 1) * most, 1)
    wide = emptied < _LEAST_EVENTS
    like = np.zeros((n_groups, LANES), dtype=np.float64 if wide else np.int32)  # float64 is exact below 2^53
    out = np.empty((8, len(lanes), n_groups, LANES))
    _pass(
        ranking.op, ranking.unit, ranking.cell, ranking.cell_unit, ranking.cell_rarer, ranking.cell_common, s,
        len(ranking.op) if wide else emptied, lanes, like, out,
    )  # fmt: skip
    return Wins(*by_labelling(out, labellings.size))


@numba.njit(cache=True)
def _settle(pending, scale, common):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add the 8-bit counts to the counts from which wins are read, and reset them."""
    for group in range(len(common)):
        for lane in range(LANES):
            common[group, lane] += np.int32(scale * pending[group, lane])
            pending[group, lane] = 0


@numba.njit(cache=True)
def _win(  # type: ignore[no-untyped-def]  # pragma: no cover
    labels, scale, one, before, common, rarer, sums, cell
):  # fmt: skip
    """Count a rarer study. Half of the tied common ones (not in `before`; None if no tie) lie below.

    The wins of a study of a unit with several are added to the unit's `cell`; of the only one of its unit `cell` is None.
    """
    for group in range(common.shape[1]):
        label = labels.dtype.type(group)
        for lane in range(LANES):
            mask = -np.int32(labels[lane] == label)
            single, several = np.int32(common[0, group, lane] & mask), np.int32(common[1, group, lane] & mask)
            single_half, several_half = single, several
            if before is not None:
                single_half = np.int32(np.int32((before[0, group, lane] & mask) + single) >> 1)
                several_half = np.int32(np.int32((before[1, group, lane] & mask) + several) >> 1)
            half = np.int32(single_half + several_half)
            if cell is None:
                own = one * half
                sums[_OWN, group, lane] += own
                sums[_SQUARES, group, lane] += own * own
            else:
                sums[_IN_CELLS, group, lane] += half
                cell[lane] += half
            sums[_PARTS, group, lane] += (one * single) * np.int32(2 * rarer[group, lane] + scale)
            sums[_OVER_SINGLE, group, lane] += single_half
            rarer[group, lane] += np.int32(scale & mask)


@numba.njit(cache=True)
def _lose(labels, before, rarer, cell):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add the rarer studies below a common study to the cell of its unit, which has several studies; ties count half."""
    for group in range(len(rarer)):
        label = labels.dtype.type(group)
        for lane in range(LANES):
            both = np.int32(before[group, lane] + rarer[group, lane])
            cell[lane] += np.int32((both >> 1) & -np.int32(labels[lane] == label))


@numba.njit(cache=True)
def _tie_ends(scale, before, common, rarer_before, rarer, ties):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Correct the sums for tied common studies: half of the tied rarer studies also lie below them."""
    for group in range(len(common)):
        for lane in range(LANES):
            half = np.float64(np.int32(rarer_before[group, lane] + rarer[group, lane]) >> 1)
            whole = np.float64(rarer_before[group, lane])
            tied = np.float64(np.int32(common[group, lane] - before[group, lane]))
            ties[group, lane] += tied / scale * (half * half - whole * whole)


@numba.njit(cache=True)
def _empty(sums, totals):  # type: ignore[no-untyped-def]  # pragma: no cover
    for at in range(len(totals)):
        for group in range(totals.shape[1]):
            for lane in range(LANES):
                totals[at, group, lane] += sums[at, group, lane]
                sums[at, group, lane] = 0


@numba.njit(cache=True)
def _square_cells(  # type: ignore[no-untyped-def]  # pragma: no cover
    labels, cell_unit, cell_rarer, cell_common, of_rarer, of_common, auroc, per_common, per_rarer, out
):  # fmt: skip
    for cell in range(len(cell_unit)):
        own = labels[cell_unit[cell]]
        m, n = cell_rarer[cell], cell_common[cell]
        for lane in range(LANES):
            group = own[lane]
            theta = auroc[group, lane]
            x = of_rarer[cell, lane] * per_common[group, lane] - m * theta
            y = n * (1.0 - theta) - of_common[cell, lane] * per_rarer[group, lane]
            out[0, group, lane] += x * x
            out[1, group, lane] += y * y
            out[2, group, lane] += x * y


@numba.njit(parallel=True, cache=True)
def _pass(  # type: ignore[no-untyped-def]  # pragma: no cover
    op, unit, cell, cell_unit, cell_rarer, cell_common, scale, emptied, lanes, like, out
):  # fmt: skip
    n_groups, shape = len(like), like.shape
    asked = np.zeros(len(lanes), dtype=np.int64)
    one = like.dtype.type(1)
    for block in numba.prange(len(lanes)):
        labels = lanes[block]
        # common studies of single-study units, common studies of units with several
        common, before = np.zeros((2, n_groups, LANES), dtype=np.int32), np.zeros((2, n_groups, LANES), dtype=np.int32)
        pending, counted = np.zeros((2, n_groups, LANES), dtype=np.uint8), np.zeros(2, dtype=np.int64)
        rarer, rarer_before = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
        of_rarer = np.zeros((len(cell_unit), LANES), dtype=np.int32)
        of_common = np.zeros((len(cell_unit), LANES), dtype=np.int32)
        sums, totals = np.zeros((5, n_groups, LANES), dtype=like.dtype), np.zeros((5, n_groups, LANES))
        ties = np.zeros(shape)
        events = 0
        for first in range(0, len(op), _AHEAD):
            last = min(first + _AHEAD, len(op))
            for event in range(first, last):
                asked[block] += labels[unit[event], 0]
            for event in range(first, last):
                what, line = op[event], labels[unit[event]]
                if what <= _COUNT_TIED:
                    if what == _COUNT_CELL:
                        _lose(line, rarer, rarer, of_common[cell[event]])
                    at = 0 if what == _COUNT else 1
                    tally(line, pending[at])
                    counted[at] += 1
                    if counted[at] < FEW:
                        continue
                elif what == _TIED_CELL:
                    _lose(line, rarer_before, rarer, of_common[cell[event]])
                    continue
                for at in range(2):
                    if counted[at]:
                        _settle(pending[at], scale, common[at])
                        counted[at] = 0
                if what <= _COUNT_TIED:
                    continue
                if what == _TIE_BEGINS:
                    before[:], rarer_before[:] = common, rarer
                elif what == _TIE_ENDS:
                    _tie_ends(scale, before[0], common[0], rarer_before, rarer, ties)
                else:
                    if what == _WIN:
                        _win(line, scale, one, None, common, rarer, sums, None)
                    elif what == _TIED_WIN:
                        _win(line, scale, one, before, common, rarer, sums, None)
                    elif what == _WIN_CELL:
                        _win(line, scale, one, None, common, rarer, sums, of_rarer[cell[event]])
                    else:
                        _win(line, scale, one, before, common, rarer, sums, of_rarer[cell[event]])
                    events += 1
                    if events == emptied:
                        _empty(sums, totals)
                        events = 0
        for at in range(2):
            _settle(pending[at], scale, common[at])
        _empty(sums, totals)
        auroc, per_common, per_rarer = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for group in range(n_groups):
            for lane in range(LANES):
                single, m = np.float64(common[0, group, lane]), np.float64(rarer[group, lane])
                n = single + common[1, group, lane]
                wins = totals[_OWN, group, lane] + totals[_IN_CELLS, group, lane]
                auroc[group, lane] = scale * wins / (m * n) if m * n > 0 else 0.5
                per_common[group, lane] = 1 / n if n > 0 else 0.0
                per_rarer[group, lane] = 1 / m if m > 0 else 0.0
                out[0, block, group, lane] = wins / scale
                out[1, block, group, lane] = totals[_OWN, group, lane] / scale
                out[2, block, group, lane] = totals[_SQUARES, group, lane] / scale**2
                out[3, block, group, lane] = (m * single / scale - totals[_OVER_SINGLE, group, lane]) / scale
                squares = m * m * single / scale - totals[_PARTS, group, lane] + ties[group, lane]
                out[4, block, group, lane] = squares / scale**2
        cells = np.zeros((3, n_groups, LANES))
        _square_cells(
            labels, cell_unit, cell_rarer, cell_common, of_rarer, of_common, auroc, per_common, per_rarer, cells
        )
        out[5:, block] = cells
    return asked

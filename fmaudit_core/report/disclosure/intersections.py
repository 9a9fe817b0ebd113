"""Which intersections may be shown, and with how much. Attributes by themselves: `small_group_rounding.py`.

The cells of two attributes add up to their subgroups, which are shown exactly, so a protected cell follows from its neighbours
and they from it. Therefore:

- A combination of attributes tells counts only where every crossing of their subgroups may be shown. An empty crossing counts as
  one that may not: whether nobody or somebody is in it is not reported either.
- Elsewhere its intersections are shown without counts and with rates in whole percent. That one is shown still says that it has
  the least number the rule asks for. Where such least numbers leave a line with hidden crossings (all that share a subgroup;
  with three attributes also all that share two) fewer than `MIN_AMBIGUITY` positives or negatives, all of the line is
  withheld; where they leave so few outside the line, all of the combination.

For two attributes every table with these margins and least numbers is possible, and each hidden number then has more than
`MIN_AMBIGUITY` possible values: of what the least numbers leave, a cell may hold anything from max(0, r + s - t) to min(r,
s), with r and s what is left in its two lines and t what is left in all.

That an intersection is hidden, or shown with an interval alone, also says that one of its classes is small, but not which: this
is not reckoned with. Nor are guesses from the width of an interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import combinations, product
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import OVERALL, SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.report.disclosure.small_group_rounding import DECIMALS, MIN_AMBIGUITY, is_small
from fmaudit_core.report.input.report_input import CROSSED, INTERSECTIONS

_Crossing = tuple[str, ...]
#: crossings that share subgroups: the place of their attributes in the order of judging, and the subgroups
_Line = tuple[int, tuple[str, ...]]
#: positives and negatives
_Classes = tuple[int, int]
_ESTIMATES: Final = ("value", "ci_low", "ci_high", "mde", "difference")
_TESTS: Final = ("p_worse", "p_worse_adjusted", "rank")


def shown_intersections(
    intersections: pl.DataFrame, metrics: pl.DataFrame, protected: pl.DataFrame, settings: FairnessSection
) -> pl.DataFrame:
    """Return intersections as they may be shown: every crossing of every combination has its rows, most of them withheld.

    Parameters
    ----------
    intersections, metrics : frames
        As `fairness/` makes them.
    protected : frame of task, attribute, subgroup

    Returns
    -------
    Frame of `INTERSECTIONS` with `counts`: ``exact``, ``unsaid`` (estimates without counts) or ``withheld`` (no number at all).
    Ranks run over those shown.
    """
    rows = intersections.select(INTERSECTIONS.names())
    marked = [
        _marked(of, _alone(metrics, rows, str(task)), protected.filter(task=task), settings)
        for (task, _), of in rows.group_by("task", "attribute", maintain_order=True)
    ]
    if not marked:
        return rows.with_columns(counts=pl.lit(None, dtype=pl.String))
    out = pl.concat(marked)
    withheld, unsaid = pl.col("counts") == "withheld", pl.col("counts") == "unsaid"
    numbers = ("n", "n_pos", "n_neg")
    out = out.with_columns(
        *(pl.when(withheld | unsaid).then(None).otherwise(name).alias(name) for name in numbers),
        *(
            pl.when(withheld).then(None).when(unsaid).then(pl.col(name).round(DECIMALS)).otherwise(name).alias(name)
            for name in _ESTIMATES
        ),
        *(pl.when(withheld).then(None).otherwise(name).alias(name) for name in _TESTS),
        status=pl.when(withheld).then(pl.lit("suppressed")).otherwise("status"),
    )
    # a gap among the ranks would tell that a withheld one was tested
    among = pl.col("rank").rank("ordinal").over(*SCORE_SET, "metric").cast(pl.Int64)
    return out.with_columns(rank=among)


def _alone(metrics: pl.DataFrame, intersections: pl.DataFrame, task: str) -> pl.DataFrame:
    """Return the totals of a combination's lines: counts of all studies, subgroups and crossings, once per score set."""
    named = [*SCORE_SET, "attribute", "subgroup", "n_pos", "n_neg"]
    both = pl.concat([metrics.select(named), intersections.select(named)]).filter(task=task)
    return both.unique(["attribute", "subgroup", *SCORE_SET], maintain_order=True)


def _marked(
    rows: pl.DataFrame, alone: pl.DataFrame, protected: pl.DataFrame, settings: FairnessSection
) -> pl.DataFrame:
    """Return rows of one combination on one task with `counts`, and a withheld row for every crossing that has none."""
    named, shown, complete = _decided(rows, alone, protected, settings)
    of = ["subgroup", *SCORE_SET, "depth", "metric"]
    asked = rows.select(*SCORE_SET, "depth", "metric").unique(maintain_order=True)
    missing = pl.DataFrame({"subgroup": named}, schema={"subgroup": pl.String}).join(asked, how="cross")
    missing = missing.join(rows, on=of, how="anti").with_columns(attribute=pl.lit(rows["attribute"][0]))
    every = pl.concat([rows, missing], how="diagonal").select(rows.columns)
    kind = pl.lit("exact" if complete else "unsaid")
    visible = pl.col("subgroup").is_in(sorted(shown)) & pl.col("status").is_not_null()
    return every.with_columns(counts=pl.when(visible).then(kind).otherwise(pl.lit("withheld")))


def _decided(
    rows: pl.DataFrame, alone: pl.DataFrame, protected: pl.DataFrame, settings: FairnessSection
) -> tuple[list[str], set[str], bool]:
    """Return all crossings by name, those that may be shown, and whether with their counts."""
    names = str(rows["attribute"][0]).split(CROSSED)
    levels = [alone.filter(attribute=name).get_column("subgroup").unique().sort().to_list() for name in names]
    by_name = {CROSSED.join(crossing): crossing for crossing in product(*levels)}
    hidden = {(attribute, subgroup) for _, attribute, subgroup in protected.iter_rows()}
    score_sets = rows.select(SCORE_SET).n_unique()
    under = rows.group_by("subgroup").agg(
        small=is_small(settings.suppress_under).any(), sets=pl.struct(SCORE_SET).n_unique()
    )
    candidates = under.filter(~pl.col("small") & (pl.col("sets") == score_sets)).get_column("subgroup").to_list()
    shown = {
        name: crossing
        for name in candidates
        if (crossing := by_name.get(name)) and not hidden & set(zip(names, crossing, strict=True))
    }
    occurring = set(rows.get_column("subgroup").unique())
    if by_name.keys() == shown.keys():
        return list(by_name), set(shown), True
    crossings = [one for name, one in by_name.items() if name not in shown]
    # the total of a protected subgroup is not shown, so nothing follows from its lines
    shown_totals = alone.join(protected, on=["task", "attribute", "subgroup"], how="anti", maintain_order="left")
    for table in _tables(rows, shown_totals, names, settings):
        for at in (0, 1):
            _withhold_tight(shown, crossings, table, at)
    return sorted(by_name.keys() | occurring), set(shown), False


@dataclass(frozen=True)
class _Table:
    """Counts of one score set: all studies, lines by (attributes, subgroups), and what shown crossings have at least."""

    names: Sequence[str]
    whole: _Classes
    lines: Mapping[tuple[str, str], _Classes]
    min_count: Mapping[str, _Classes]


def _tables(
    rows: pl.DataFrame, alone: pl.DataFrame, names: Sequence[str], settings: FairnessSection
) -> Iterator[_Table]:
    known = alone.drop_nulls(["n_pos", "n_neg"])
    for key, of in rows.group_by(SCORE_SET, maintain_order=True):
        own = known.filter(**dict(zip(SCORE_SET, map(str, key), strict=True)))
        lines = {(row["attribute"], row["subgroup"]): (row["n_pos"], row["n_neg"]) for row in own.iter_rows(named=True)}
        whole = next((found for (attribute, _), found in lines.items() if attribute == OVERALL), None)
        tested = {(row["subgroup"], row["metric"]) for row in of.iter_rows(named=True) if row["status"] == "tested"}

        def min_count(name: str, rate: str, tested: set[tuple[str, str]] = tested) -> int:
            known = (name, "auroc") in tested or (name, rate) in tested
            return settings.test_from if known else settings.suppress_under

        shown = {name: (min_count(name, "udr"), min_count(name, "fpr")) for name in of.get_column("subgroup").unique()}
        if whole is not None:
            yield _Table(names, whole, lines, shown)


def _withhold_tight(shown: dict[str, _Crossing], hidden: list[_Crossing], table: _Table, at: int) -> None:
    """Move crossings from `shown` to `hidden` until every hidden one has room in positives (`at` 0) or negatives (1).

    Lines are taken in one order: by how many subgroups name them, then by name. A line is judged once it has a hidden
    crossing. What it leaves open only grows as crossings are withheld, so one that has room is never judged again, and the
    work grows with the number of crossings.
    """
    lines = _Lines(shown, table, at)
    for crossing in hidden:
        lines.has_hidden(crossing)
    while shown and (line := lines.next()) is not None:
        if not (tight := lines.tight(line)):
            continue
        if tight is not shown:
            lines.has_room_after(line)
        for name in list(tight):
            crossing = shown.pop(name)
            hidden.append(crossing)
            lines.withhold(name, crossing)


class _Lines:
    """The lines of a table of crossings: which have a hidden crossing and are still to be judged, and what each leaves open."""

    def __init__(self, shown: Mapping[str, _Crossing], table: _Table, at: int) -> None:
        self._table, self._at, self._shown = table, at, shown
        every = range(len(table.names))
        self._places = [places for size in every[1:] for places in combinations(every, size)]
        self._inside: dict[_Line, dict[str, None]] = {}
        self._open: dict[_Line, int] = {}
        self._left = table.whole[at]
        self._waiting: list[_Line] = []
        self._known: set[_Line] = set()
        for name, crossing in shown.items():
            least = table.min_count[name][at]
            self._left -= least
            for line in self._through(crossing):
                self._inside.setdefault(line, {})[name] = None
                self._open[line] = self._open.get(line, 0) - least

    def _through(self, crossing: _Crossing) -> Iterator[_Line]:
        for rank, places in enumerate(self._places):
            yield rank, tuple(crossing[place] for place in places)

    def has_hidden(self, crossing: _Crossing) -> None:
        """Have the lines through a hidden crossing judged, unless they were."""
        for line in self._through(crossing):
            if line not in self._known:
                self._known.add(line)
                heappush(self._waiting, line)

    def has_room_after(self, line: _Line) -> None:
        """Judge a line again after its crossings are withheld: it may leave too little room outside."""
        heappush(self._waiting, line)

    def next(self) -> _Line | None:
        """Return the first line to be judged; None if there is none."""
        return heappop(self._waiting) if self._waiting else None

    def tight(self, line: _Line) -> Mapping[str, object]:
        """Return the crossings to withhold: those of a line without room, or all if there is no room outside it."""
        rank, levels = line
        attribute = CROSSED.join(self._table.names[place] for place in self._places[rank])
        total = self._table.lines.get((attribute, CROSSED.join(levels)))
        if total is None:
            return {}
        ambiguity = total[self._at] + self._open.get(line, 0)
        if (inside := self._inside.get(line)) and ambiguity < MIN_AMBIGUITY:
            return inside
        return self._shown if self._left - ambiguity < MIN_AMBIGUITY else {}

    def withhold(self, name: str, crossing: _Crossing) -> None:
        """Take a crossing out of what is shown."""
        least = self._table.min_count[name][self._at]
        self._left += least
        for line in self._through(crossing):
            del self._inside[line][name]
            self._open[line] += least
        self.has_hidden(crossing)

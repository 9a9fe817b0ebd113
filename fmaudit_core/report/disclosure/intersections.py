"""Which intersections may be shown, and with how much. Attributes by themselves: `small_group_rounding.py`.

The cells of two attributes add up to their subgroups, which are shown exactly, so a protected cell follows from its neighbours
and they from it. Therefore:

- A combination of attributes tells counts only where every crossing of their subgroups may be shown. An empty crossing counts as
  one that may not: whether nobody or somebody is in it is not told either.
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
from itertools import combinations, product
from typing import Final

import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.report.disclosure.small_group_rounding import DECIMALS, MIN_AMBIGUITY, is_small
from fmaudit_core.report.input.report_input import CROSSED, INTERSECTIONS, OVERALL, SCORE_SET

_Crossing = tuple[str, ...]
#: positives and negatives
_Classes = tuple[int, int]
_ESTIMATES: Final = ("value", "ci_low", "ci_high", "mde", "difference")
_TESTS: Final = ("p_worse", "p_worse_adjusted", "rank")


def shown_intersections(
    intersections: pl.DataFrame, metrics: pl.DataFrame, protected: pl.DataFrame, settings: FairnessSection
) -> pl.DataFrame:
    """Intersections as they may be shown: every crossing of every combination has its rows, most of them withheld.

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
    """What lines of a combination add up to: counts of all studies, of subgroups and of crossings, once per score set."""
    named = [*SCORE_SET, "attribute", "subgroup", "n_pos", "n_neg"]
    both = pl.concat([metrics.select(named), intersections.select(named)]).filter(task=task)
    return both.unique(["attribute", "subgroup", *SCORE_SET], maintain_order=True)


def _marked(
    rows: pl.DataFrame, alone: pl.DataFrame, protected: pl.DataFrame, settings: FairnessSection
) -> pl.DataFrame:
    """Rows of one combination on one task with `counts`, and a withheld row for every crossing that has none."""
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
    """All crossings by name, those that may be shown, and whether with their counts."""
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
    # what a protected subgroup adds up to is not told, so nothing follows from its lines
    told = alone.join(protected, on=["task", "attribute", "subgroup"], how="anti", maintain_order="left")
    for table in _tables(rows, told, names, settings):
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
    """Move crossings from `shown` to `hidden` until every hidden one has room in positives (`at` 0) or negatives (1)."""
    while tight := _tight(shown, hidden, table, at):
        hidden += [shown.pop(name) for name in tight]


def _tight(shown: Mapping[str, _Crossing], hidden: Sequence[_Crossing], table: _Table, at: int) -> list[str]:
    """Crossings to withhold: those of a line without room, or all where it has no room outside."""
    left = table.whole[at] - sum(table.min_count[name][at] for name in shown)
    for size in range(1, len(table.names)):
        for places in combinations(range(len(table.names)), size):
            attribute = CROSSED.join(table.names[place] for place in places)
            for line in sorted({tuple(crossing[place] for place in places) for crossing in hidden}):
                total = table.lines.get((attribute, CROSSED.join(line)))
                inside = [one for one, crossing in shown.items() if tuple(crossing[p] for p in places) == line]
                if total is None:
                    continue
                ambiguity = total[at] - sum(table.min_count[one][at] for one in inside)
                if inside and ambiguity < MIN_AMBIGUITY:
                    return inside
                if shown and left - ambiguity < MIN_AMBIGUITY:
                    return list(shown)
    return []

"""Withholding in one pass over the lines is the same as judging all lines anew after each withheld one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from fmaudit_core.report.disclosure import intersections
from fmaudit_core.report.disclosure.small_group_rounding import MIN_AMBIGUITY

Crossing = tuple[str, ...]


def _first_tight(
    shown: Mapping[str, Crossing], hidden: Sequence[Crossing], table: intersections._Table, at: int
) -> list[str]:
    """The rule as it is written down: of the first line without room its crossings, or all where there is none outside."""
    left = table.whole[at] - sum(table.min_count[name][at] for name in shown)
    for size in range(1, len(table.names)):
        for places in itertools.combinations(range(len(table.names)), size):
            attribute = " x ".join(table.names[place] for place in places)
            for line in sorted({tuple(crossing[place] for place in places) for crossing in hidden}):
                total = table.lines.get((attribute, " x ".join(line)))
                inside = [one for one, crossing in shown.items() if tuple(crossing[p] for p in places) == line]
                if total is None:
                    continue
                ambiguity = total[at] - sum(table.min_count[one][at] for one in inside)
                if inside and ambiguity < MIN_AMBIGUITY:
                    return inside
                if shown and left - ambiguity < MIN_AMBIGUITY:
                    return list(shown)
    return []


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, Crossing], list[Crossing], intersections._Table]:
    """Cells of two or three attributes, some hidden, with least numbers that leave their lines more or less room."""
    depth = draw(st.integers(2, 3))
    names = ["first", "second", "third"][:depth]
    levels = ["abcdefgh"[: draw(st.integers(2, 5 if depth == 2 else 3))] for _ in names]
    crossings = list(itertools.product(*levels))
    least = {" x ".join(one): (draw(st.sampled_from([10, 25])), draw(st.sampled_from([10, 25]))) for one in crossings}
    hidden = draw(st.lists(st.sampled_from(crossings), unique=True))
    shown = {" x ".join(one): one for one in crossings if one not in hidden}
    room = draw(st.sampled_from([st.integers(0, 6), st.integers(0, 40)]))
    lines: dict[tuple[str, str], tuple[int, int]] = {}
    for size in range(1, depth):
        for places in itertools.combinations(range(depth), size):
            for line in itertools.product(*(levels[place] for place in places)):
                if draw(st.integers(0, 9)) == 0:
                    continue  # a protected subgroup, whose counts are not told
                inside = [name for name, one in shown.items() if tuple(one[place] for place in places) == line]
                total = tuple(sum(least[name][at] for name in inside) + draw(room) for at in (0, 1))
                lines[" x ".join(names[place] for place in places), " x ".join(line)] = (total[0], total[1])
    whole = tuple(sum(least[name][at] for name in shown) + draw(room) for at in (0, 1))
    return shown, hidden, intersections._Table(names, (whole[0], whole[1]), lines, least)


@settings(max_examples=400, deadline=None)
@given(tables(), st.sampled_from([0, 1]))
def test_one_pass_withholds_what_judging_all_anew_withholds(
    case: tuple[dict[str, Crossing], list[Crossing], intersections._Table], at: int
) -> None:
    shown, hidden, table = case
    want, want_hidden = dict(shown), list(hidden)
    while tight := _first_tight(want, want_hidden, table, at):
        want_hidden += [want.pop(name) for name in tight]
    intersections._withhold_tight(shown, hidden, table, at)
    assert shown == want
    assert sorted(hidden) == sorted(want_hidden)


def test_each_line_is_judged_twice_at_most(monkeypatch) -> None:
    """So the work grows with the crossings: a quadratic number in the levels of two attributes."""
    judged: list[object] = []
    real = intersections._Lines.tight
    monkeypatch.setattr(intersections._Lines, "tight", lambda self, line: judged.append(line) or real(self, line))
    levels = [f"{i:02}" for i in range(60)]
    crossings = {f"{a} x {b}": (a, b) for a in levels for b in levels}
    hidden = [crossings.pop(f"{one} x {one}") for one in levels]
    least = {f"{a} x {b}": (10, 10) for a in levels for b in levels}
    lines = {(name, level): (59 * 10 + 3, 59 * 10 + 3) for name in ("first", "second") for level in levels}
    table = intersections._Table(("first", "second"), (10**6, 10**6), lines, least)
    intersections._withhold_tight(crossings, hidden, table, 0)
    assert len(judged) <= 2 * len(lines)
    assert not crossings

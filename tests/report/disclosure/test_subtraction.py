"""What is shown of the neighbours leaves every protected count open: searched for by making up cohorts, not by examples.

The oracles know nothing of the rules: one makes other cohorts and looks whether the very same numbers would be shown, the other
asks a solver of linear programs which counts are possible at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from fmaudit_core.common.vocabulary import OVERALL
from fmaudit_core.config import Audit, FairnessSection, TableCohort
from fmaudit_core.fairness.small_groups import small_group_rule
from fmaudit_core.report.disclosure.disclosure import Disclosed, disclose
from fmaudit_core.report.input.report_input import (
    CALIBRATION,
    COMPARISONS,
    CROSS,
    FINDINGS,
    GAPS,
    INTERSECTIONS,
    METRICS,
    SWEEP,
    ReportInput,
)

RULE = FairnessSection()
AUDIT = Audit(cohort=TableCohort(kind="table", table=Path("t.csv"), images=Path("ct")), tasks=("pe",))
#: positives and negatives
Counts = tuple[int, int]
Cells = Mapping[tuple[str, ...], Counts]
ATTRIBUTES = ("first", "second", "third")

#: near the numbers at which the rule and the rounding turn
turning = st.sampled_from([0, 1, 5, 9, 10, 11, 14, 15, 24, 25, 26, 29, 34, 35, 60, 95, 100, 105])
counts = st.tuples(st.one_of(turning, st.integers(0, 130)), st.one_of(turning, st.integers(0, 400)))
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def levels_of_one_attribute(draw: st.DrawFn) -> dict[tuple[str, ...], Counts]:
    return {(name,): draw(counts) for name in "abc"[: draw(st.integers(2, 3))]}


@st.composite
def crossed(draw: st.DrawFn, depth: int = 2) -> dict[tuple[str, ...], Counts]:
    """Cells of some attributes; a cell without studies does not occur."""
    names = ["abcd"[: draw(st.integers(2, 4 - (depth > 2)))] for _ in range(depth)]
    cells = {levels: pair for levels in itertools.product(*names) if sum(pair := draw(counts))}
    assume(all(len({levels[place] for levels in cells}) > 1 for place in range(depth)))
    return cells


def _added(cells: Cells, places: tuple[int, ...]) -> dict[tuple[str, ...], Counts]:
    out: dict[tuple[str, ...], Counts] = {}
    for levels, (n_pos, n_neg) in cells.items():
        at = tuple(levels[place] for place in places)
        before = out.get(at, (0, 0))
        out[at] = (before[0] + n_pos, before[1] + n_neg)
    return out


BLANK = ("suppressed", "not_estimable")


def _counted(pair: Counts) -> dict[str, Any]:
    """Status of what rests on both classes and counts: blank under the rule, as the statistics leave them."""
    status = small_group_rule(min(pair), RULE)
    blank = status in BLANK
    told = dict.fromkeys(("n", "n_pos", "n_neg")) if blank else {"n": sum(pair), "n_pos": pair[0], "n_neg": pair[1]}
    return {"status": status, "value": None if blank else 0.5, **told}


def _measured(pair: Counts) -> Iterator[dict[str, Any]]:
    """Rows of AUROC and the rates: a rate rests on one class, and is there though the other is small."""
    both = _counted(pair)
    yield both | {"metric": "auroc"}
    for metric, n, count in (("udr", pair[0], "n_pos"), ("fpr", pair[1], "n_neg")):
        status = small_group_rule(n, RULE)
        shown = {} if status in BLANK else {"value": 0.5, count: n}
        yield both | {"metric": metric, "status": status} | shown


def _report(worlds: Mapping[str, Cells]) -> ReportInput:
    """One model per world: the same task, other studies."""
    metrics, calibration, cross, intersections, comparisons = ([] for _ in range(5))
    for world, cells in worlds.items():
        depth = len(next(iter(cells)))
        variant = dict.fromkeys(("probe", "modality", "pooling", "strategy"), "x")
        key = {"encoder": world, "task": "pe", **variant}
        other = {"other_encoder": "other", **{f"other_{name}": one for name, one in variant.items()}}
        levels = [{"attribute": OVERALL, "subgroup": "all", "pair": _added(cells, ())[()]}]
        for place in range(depth):
            margin = _added(cells, (place,))
            levels += [
                {"attribute": ATTRIBUTES[place], "subgroup": level, "pair": pair} for (level,), pair in margin.items()
            ]
            cross += [
                {
                    **key, "attribute": ATTRIBUTES[place], "positives_of": one, "negatives_of": two, "status": "tested",
                    "n_pos": first[0], "n_neg": second[1],
                }
                for ((one,), first), ((two,), second) in itertools.product(margin.items(), repeat=2)
                if min(*first, *second) >= RULE.suppress_under
            ]  # fmt: skip
        pairs = [one.pop("pair") for one in levels]
        rows = [level | _counted(pair) for level, pair in zip(levels, pairs, strict=True)]
        metrics += [key | level | row for level, pair in zip(levels, pairs, strict=True) for row in _measured(pair)]
        calibration += [key | {name: one for name, one in row.items() if name != "value"} for row in rows]
        comparisons += [key | other | row | {"metric": metric} for row in rows for metric in ("auroc", "udr", "fpr")]
        for size in range(2, depth + 1):
            for places in itertools.combinations(range(depth), size):
                named = {"attribute": " x ".join(ATTRIBUTES[place] for place in places), "depth": size}
                crossings = {" x ".join(at): pair for at, pair in _added(cells, places).items()}
                intersections += [
                    key | named | {"subgroup": name} | row
                    for name, pair in crossings.items()
                    for row in _measured(pair)
                ]
    for rank, row in enumerate((row for row in intersections if row["status"] == "tested"), start=1):
        row["rank"] = rank
    return ReportInput(
        audit=AUDIT,
        subgroup_metrics=pl.DataFrame(metrics, schema=METRICS),
        fairness_gaps=pl.DataFrame(schema=GAPS),
        threshold_sweep=pl.DataFrame(schema=SWEEP),
        audit_findings=pl.DataFrame(schema=FINDINGS),
        subgroup_calibration=pl.DataFrame(calibration, schema=CALIBRATION),
        cross_group_auroc=pl.DataFrame(cross, schema=CROSS),
        intersections=pl.DataFrame(intersections, schema=INTERSECTIONS),
        model_comparisons=pl.DataFrame(comparisons, schema=COMPARISONS),
    )


def _neighbourhood(levels: Cells) -> Iterator[dict[tuple[str, ...], Counts]]:
    """Cohorts in which up to nine studies of each class are of other subgroups, alike in what is small."""
    steps = set(itertools.product(range(-9, 10), (-5, -1, 0, 1, 5)))
    for order, by in itertools.product(itertools.permutations(levels), sorted(steps | {by[::-1] for by in steps})):
        moved = {name: list(levels[name]) for name in order}
        to, *givers = order
        for at in (0, 1):
            for giver in givers:  # what the first lacks, the next gives
                taken = min(by[at] + levels[to][at] - moved[to][at], moved[giver][at])
                moved[to][at] += taken
                moved[giver][at] -= taken
        if all(min(pair) >= 0 and _seen(pair) == _seen(levels[name]) for name, pair in moved.items()):
            yield {name: (moved[name][0], moved[name][1]) for name in levels}


def _seen(pair: Sequence[int]) -> tuple[str, ...]:
    """The statuses that are shown: which class is missing is not."""
    status = small_group_rule(min(pair), RULE)
    return ("suppressed",) if status in BLANK else (status, *(small_group_rule(n, RULE) for n in pair))


def _shown(frame: pl.DataFrame, world: str) -> str:
    """All that a table tells of a world."""
    return frame.filter(encoder=world).drop("encoder").write_csv()


def _tables(tables: Disclosed) -> list[pl.DataFrame]:
    return [tables.metrics, tables.calibration, tables.cross, tables.comparisons]


def _hidden(tables: Disclosed) -> set[str]:
    rows = tables.metrics.filter(encoder="true", attribute="first", counts="withheld")
    return set(rows.get_column("subgroup"))


@quick
@given(levels_of_one_attribute())
@example({("a",): (128, 14), ("b",): (0, 14), ("c",): (128, 177)})
def test_the_same_numbers_are_shown_of_cohorts_with_other_protected_counts(
    levels: dict[tuple[str, ...], Counts],
) -> None:
    worlds = {"true": levels} | {f"w{nth}": one for nth, one in enumerate(_neighbourhood(levels))}
    tables = disclose(_report(worlds))
    hidden = _hidden(tables)
    assert hidden >= {name for (name,), pair in levels.items() if min(pair) < RULE.suppress_under}
    if len(hidden) == len(levels):
        return  # nothing at all is shown of this attribute
    mine = [_shown(table, "true") for table in _tables(tables)]
    alike = [world for world in worlds if [_shown(table, world) for table in _tables(tables)] == mine]
    for at in (0, 1):
        possible = {sum(worlds[world][name,][at] for name in hidden) for world in alike}
        assert not hidden or len(possible) >= 5, possible


@quick
@given(levels_of_one_attribute())
def test_a_shown_count_is_told_to_about_ten(levels: dict[tuple[str, ...], Counts]) -> None:
    tables = disclose(_report({"true": levels}))
    for row in tables.metrics.filter(attribute="first").iter_rows(named=True):
        true = dict(zip(("n_pos", "n_neg"), levels[row["subgroup"],], strict=True))
        for name, n in true.items():
            assert row["counts"] == "withheld" or abs(row[name] - n) <= {"exact": 0, "rounded": 10}[row["counts"]]
        assert row["counts"] == "withheld" or row["n"] == row["n_pos"] + row["n_neg"]


def _lines(cells: Cells, tables: Disclosed) -> tuple[np.ndarray, np.ndarray, list[tuple[str, ...]]]:
    """Equations that hold for the number in every crossing, of all sums that are shown exactly: (equations, 2) sums."""
    depth = len(next(iter(cells)))
    exact = tables.metrics.filter(counts="exact").select("attribute", "subgroup", "n_pos", "n_neg")
    crossing = tables.intersections.filter(counts="exact").select("attribute", "subgroup", "n_pos", "n_neg")
    names = [sorted({levels[place] for levels in cells}) for place in range(depth)]
    every = list(itertools.product(*names))
    rows, sums = [], []
    for attribute, subgroup, n_pos, n_neg in pl.concat([exact, crossing]).iter_rows():
        fixed = {} if attribute == OVERALL else dict(zip(attribute.split(" x "), subgroup.split(" x "), strict=True))
        rows.append([float(all(at[ATTRIBUTES.index(name)] == level for name, level in fixed.items())) for at in every])
        sums.append((n_pos, n_neg))
    return np.array(rows).reshape(-1, len(every)), np.array(sums, dtype=float).reshape(-1, 2), every


def _least(tables: Disclosed, every: list[tuple[str, ...]], rate: str) -> list[float]:
    """What each crossing of all attributes has at least of the class of a rate: what the statuses say."""
    shown = tables.intersections.filter(pl.col("counts") != "withheld", depth=len(every[0]))
    tells = shown.filter(pl.col("metric").is_in(["auroc", rate]), status="tested")
    large = set(tells.get_column("subgroup"))
    names = set(shown.get_column("subgroup"))
    of = [" x ".join(at) for at in every]
    return [RULE.test_from if name in large else RULE.suppress_under if name in names else 0 for name in of]


@quick
@given(crossed())
def test_no_protected_intersection_follows_from_what_is_shown(cells: dict[tuple[str, ...], Counts]) -> None:
    tables = disclose(_report({"true": cells}))
    lines, sums, every = _lines(cells, tables)
    shown = set(tables.intersections.filter(pl.col("counts") != "withheld").get_column("subgroup"))
    hidden = [at for at in every if " x ".join(at) not in shown]
    assert {at for at in every if min(cells.get(at, (0, 0))) < RULE.suppress_under} <= set(hidden)
    for at, place in itertools.product(hidden, (0, 1)):
        if not lines[:, every.index(at)].any():
            continue  # in no sum that is told
        aim = [float(one == at) for one in every]
        bounds = [(low, None) for low in _least(tables, every, ("udr", "fpr")[place])]
        told = ~np.isnan(sums[:, place])
        equations = {"A_eq": lines[told], "b_eq": sums[told, place]} if told.any() else {}
        low, high = (linprog([sign * one for one in aim], bounds=bounds, **equations) for sign in (1, -1))
        assert low.status == 0
        assert high.status in (0, 3)
        assert high.status == 3 or -high.fun - low.fun > 3.5, (at, low.fun, -high.fun)


@quick
@given(crossed(depth=3))
def test_of_three_attributes_none_follows_by_subtraction_alone(cells: dict[tuple[str, ...], Counts]) -> None:
    tables = disclose(_report({"true": cells}))
    lines, _, every = _lines(cells, tables)
    rank = np.linalg.matrix_rank(lines)
    shown = set(tables.intersections.filter(counts="exact", depth=3).get_column("subgroup"))
    for at in every:
        if " x ".join(at) not in shown:
            aim = np.array([float(one == at) for one in every])
            assert np.linalg.matrix_rank(np.vstack([lines, aim])) == rank + 1


@quick
@given(crossed())
def test_intersections_are_told_with_counts_only_where_all_of_a_combination_are(
    cells: dict[tuple[str, ...], Counts],
) -> None:
    rows = disclose(_report({"true": cells})).intersections
    kinds = set(rows.get_column("counts"))
    assert "exact" not in kinds or kinds == {"exact"}
    names = [sorted({levels[place] for levels in cells}) for place in (0, 1)]
    assert set(rows.get_column("subgroup")) == {" x ".join(at) for at in itertools.product(*names)}
    numbers = ("n", "n_pos", "n_neg")
    assert (
        rows.filter(pl.col("counts") != "exact").select(numbers).null_count().row(0)
        == (rows.filter(pl.col("counts") != "exact").height,) * 3
    )
    withheld = rows.filter(counts="withheld")
    assert withheld.get_column("value").null_count() == withheld.height
    assert set(withheld.get_column("status")) <= {"suppressed"}


def test_ranks_do_not_tell_that_a_withheld_intersection_was_tested() -> None:
    # the first line has 27 positives, 25 of them in a cell that is tested: the other has two at most, so neither is shown
    cells = {("a", "c"): (25, 80), ("a", "d"): (2, 60), ("b", "c"): (90, 200), ("b", "d"): (80, 300)}
    rows = disclose(_report({"true": cells})).intersections
    told = {row["subgroup"]: (row["counts"], row["rank"]) for row in rows.iter_rows(named=True)}
    assert told == {
        "a x c": ("withheld", None), "a x d": ("withheld", None), "b x c": ("unsaid", 1), "b x d": ("unsaid", 2),
    }  # fmt: skip


@pytest.mark.parametrize("n_pos", [9, 8, 0])
def test_two_models_on_fewer_studies_protect_a_subgroup_small_there_alone(n_pos: int) -> None:
    cells = {("a",): (60, 200), ("b",): (10, 90), ("c",): (70, 210)}
    inputs = _report({"true": cells})
    fewer = _report({"true": {**cells, ("b",): (n_pos, 90)}}).model_comparisons
    tables = disclose(ReportInput(**{**vars(inputs), "model_comparisons": fewer}))
    assert set(tables.metrics.get_column("counts")) == {"exact"}
    kinds = dict(tables.comparisons.select("subgroup", "counts").iter_rows())
    assert kinds == {"all": "exact", "a": "rounded", "b": "withheld", "c": "rounded"}

"""Would a mitigation help, whom, and at what price: what the page shows. Figures: `mitigation_figures.py`; words:
`text/recommendations.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.report.index.mitigation_index import Cell, MitigationIndex, Row
from fmaudit_core.report.index.score_set_index import ScoreSetIndex
from fmaudit_core.report.sections.capacity import (
    CapacityView,
    LadderView,
    ProbeLine,
    capacity_view,
    gap_change,
    interpreted,
    ladder_view,
    probe_lines,
)
from fmaudit_core.report.text.recommendations import (
    Advice,
    AdviceLine,
    advice_lines,
    advice_view,
    run_title,
    short_title,
    strategy_title,
    without_diverged,
)


@dataclass(frozen=True)
class Mark:
    """A mark next to a run's numbers."""

    kind: str
    text: str


@dataclass(frozen=True)
class StrategyLine:
    """A strategy on the gap it is aimed at, as text; without a number unless `evaluated`."""

    title: str
    evaluated: bool
    before: str
    after: str
    change: Estimate
    p: str
    worst: str
    auroc: Estimate
    spill: str
    marks: Sequence[Mark]
    note: str


@dataclass(frozen=True)
class SubgroupCell:
    """The share missed of a subgroup under a strategy; `look` is whether it was harmed or helped."""

    text: str
    look: str
    tip: str


@dataclass(frozen=True)
class SubgroupLine:
    """The share missed of a subgroup before, and under each strategy."""

    title: str
    withheld: bool
    before: str
    cells: Sequence[SubgroupCell]


@dataclass(frozen=True)
class SubgroupMatrix:
    """The subgroups of an attribute under the strategies that are aimed at it."""

    strategies: Sequence[str]
    rows: Sequence[SubgroupLine]


@dataclass(frozen=True)
class AttributeView:
    """The strategies aimed at an attribute; `subgroups` is None if none could be evaluated."""

    attribute: str
    rows: Sequence[StrategyLine]
    subgroups: SubgroupMatrix | None


@dataclass(frozen=True)
class MitigatedCell:
    """Mitigation of an encoder on a task; `id` joins its tables with its figures."""

    id: str
    title: str
    advice: Advice | None
    groups: Sequence[AttributeView]


@dataclass(frozen=True)
class StrategyChoice:
    """A strategy that the page can show; `first` is the one it opens with."""

    name: str
    title: str
    first: bool


@dataclass(frozen=True)
class MitigationView:
    """Everything the page's section on mitigation holds."""

    cells: Sequence[MitigatedCell]
    strategies: Sequence[StrategyChoice]
    probes: Sequence[ProbeLine]
    capacity: Sequence[CapacityView]
    ladder: LadderView | None


def mitigation_view(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> MitigationView | None:
    """Return everything the page's section holds; None if nothing was mitigated."""
    cells = ordered_cells(index, mitigation_index)
    if not cells:
        return None
    strategies = list(
        dict.fromkeys(run["strategy"] for cell in cells for run in aimed_runs(mitigation_index, cell) if run["own"])
    )
    tasks = [task for task in index.tasks if any(row["task"] == task for row in mitigation_index.capacity)]
    first = _first(mitigation_index, cells, strategies)
    return MitigationView(
        cells=[_cell_view(index, mitigation_index, cell) for cell in cells],
        strategies=[StrategyChoice(name, strategy_title(name), name == first) for name in strategies],
        probes=probe_lines(index, mitigation_index),
        capacity=[capacity_view(index, mitigation_index, task) for task in tasks],
        ladder=ladder_view(index, mitigation_index),
    )


def _first(mitigation_index: MitigationIndex, cells: list[Cell], strategies: list[str]) -> str:
    """Return the strategy that the page shows first: one that is recommended, else the adversary, else any."""
    advised = [row["strategy"] for cell in cells if (row := mitigation_index.advice(cell)) is not None]
    return next((name for name in (*advised, "adversarial", *strategies) if name in strategies), "")


def main_advice(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> list[AdviceLine]:
    """Return lines of the main task's recommendations; controls and baselines have none."""
    named = []
    for encoder in index.encoders:
        view = advice_view(mitigation_index, (encoder["name"], index.main_task))
        if view is not None and not encoder["control"]:
            named.append((encoder["title"], view))
    return advice_lines(named)


def all_advice(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> list[Row]:
    """Return recommendations of every encoder and task, for machines."""
    out = []
    for cell in ordered_cells(index, mitigation_index):
        row, view = mitigation_index.advice(cell), advice_view(mitigation_index, cell)
        if row is not None and view is not None:
            out.append({**row, "costs": list(view.costs), "sentence": view.sentence})
    return out


def ordered_cells(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> list[Cell]:
    """Return the mitigated encoders and tasks in the order of the page."""
    names = [one["name"] for one in index.encoders]
    known = [cell for cell in mitigation_index.cells if cell[0] in names and cell[1] in index.tasks]
    return sorted(known, key=lambda cell: (names.index(cell[0]), index.tasks.index(cell[1])))


def cell_id(cell: Cell) -> str:
    """Return the id of a cell's tables and figures on the page."""
    return "|".join(cell)


def aimed_runs(mitigation_index: MitigationIndex, cell: Cell) -> list[Row]:
    """Return the primary runs of a cell, each on the attribute it is aimed at."""
    return [run for attribute in mitigation_index.attributes(cell) for run in mitigation_index.own(cell, attribute)]


def _cell_view(index: ScoreSetIndex, mitigation_index: MitigationIndex, cell: Cell) -> MitigatedCell:
    title = f"{index.encoder_title(cell[0])}{index.role(cell[0])} · {formatting.task_title(cell[1], index.task_titles)}"
    groups = [
        AttributeView(
            formatting.attribute_title(attribute),
            [_line(mitigation_index, cell, run) for run in mitigation_index.own(cell, attribute)],
            _matrix(mitigation_index, cell, attribute),
        )
        for attribute in mitigation_index.attributes(cell)
    ]
    return MitigatedCell(cell_id(cell), title, advice_view(mitigation_index, cell), groups)


def _line(mitigation_index: MitigationIndex, cell: Cell, run: Row) -> StrategyLine:
    decimals = 0 if run["rounded"] else 1
    return StrategyLine(
        title=run_title(run),
        evaluated=run["own"],
        before=formatting.points(run["gap_before"], decimals),
        after=formatting.points(run["gap_after"], decimals),
        change=gap_change(run["reduction"], run),
        p=formatting.p_number(p_of(run)),
        worst=end_text(run, "worst"),
        auroc=auroc_change(run),
        spill=_spill(mitigation_index, cell, run),
        marks=marks_of(run),
        note=_note(run),
    )


def auroc_change(run: Row) -> Estimate:
    """Return the change of AUROC with its interval."""
    interval = formatting.between(run["auroc_delta_low"], run["auroc_delta_high"])
    return Estimate(formatting.signed(run["auroc_delta"]), interval)


def _spill(mitigation_index: MitigationIndex, cell: Cell, run: Row) -> str:
    """Return a run's changes to the gaps of the other attributes."""
    wording = [
        f"{formatting.attribute_title(row['attribute'])} {gap_change(row['reduction'], row).value}"
        + (" (widens)" if row["widened"] else "")
        for row in mitigation_index.side_effects(cell, run)
        if row["reduction"] is not None
    ]
    return "; ".join(wording) or formatting.NONE


def end_text(run: Row, end: str) -> str:
    """Return the subgroup that fared `worst` or `best` before, with the change of its share missed."""
    delta = run[f"{end}_subgroup_udr_delta"]
    if delta is None:
        return formatting.NONE
    return f"{vocabulary.subgroup_title(run[f'{end}_subgroup'])} {formatting.difference('udr', delta, rounded=run['rounded'])}"


def marks_of(run: Row) -> list[Mark]:
    """Return the marks shown next to a run's numbers."""
    if not run["own"]:
        return []
    wording = []
    if not run["interpretable"]:
        wording.append(Mark("uninterpretable", interpreted(run)))
    if run["levelling_down"]:
        wording.append(Mark("levels", "levels down"))
    if run["narrowed"] and run["interpretable"]:
        wording.append(Mark("narrows", "narrows"))
    if run["widened"] and run["interpretable"]:
        wording.append(Mark("widens", "wider, beyond chance"))
    return wording


def p_of(run: Row) -> float | None:
    """Return the p of a narrower gap; of a wider one if the run widens it beyond chance."""
    p: float | None = run["p_widened" if run["widened"] else "p_adjusted"]
    return p


def _note(run: Row) -> str:
    if not run["own"]:
        return str(run["reason"] or run["status"].replace("_", " "))
    parts = []
    if run["n_diverged"]:
        parts.append(without_diverged(run))
    if run["n_collapsed"]:
        parts.append(f"{run['n_collapsed']} of {run['n_seeds']} runs collapsed")
    if run["gap_seed_sd"] is not None:
        sd = formatting.points(run["gap_seed_sd"], 0 if run["rounded"] else 1)
        parts.append(f"over {run['n_seeds']} seeds the gap varies by {sd} (sd), AUROC by {run['auroc_seed_sd']:.3f}")
    return "; ".join(parts)


def _matrix(mitigation_index: MitigationIndex, cell: Cell, attribute: str) -> SubgroupMatrix | None:
    """Return share missed of each subgroup, before and after every strategy that is aimed at its attribute."""
    runs = [run for run in mitigation_index.own(cell, attribute) if run["own"]]
    if not runs:
        return None
    by_run = [
        {row["subgroup"]: row for row in mitigation_index.subgroups(cell, run, "udr") if row["attribute"] == attribute}
        for run in runs
    ]
    rows = []
    for subgroup, row in by_run[0].items():
        cells = [of.get(subgroup) for of in by_run]
        decimals = 0 if row["counts"] == "rounded" else 1
        rows.append(
            SubgroupLine(
                title=vocabulary.subgroup_title(subgroup),
                withheld=row["before"] is None,
                before=formatting.percent(row["before"], decimals),
                cells=[_subgroup_cell(one, decimals) for one in cells],
            )
        )
    return SubgroupMatrix([short_title(run) for run in runs], rows)


def _subgroup_cell(row: Row | None, decimals: int) -> SubgroupCell:
    if row is None:
        return SubgroupCell(formatting.NONE, "unclear", "")
    return SubgroupCell(formatting.percent(row["after"], decimals), look_of(row), subgroup_tip(row))


def look_of(row: Row) -> str:
    """Return whether a subgroup was harmed or helped beyond chance."""
    return "harmed" if row["harmed"] else "helped" if row["helped"] else "unclear"


def subgroup_tip(row: Row) -> str:
    """Return the change of a subgroup with its interval; empty if it may not be shown."""
    if row["delta"] is None:
        return ""
    rounded = row["counts"] == "rounded"
    return (
        f"change {formatting.difference_estimate('udr', row['delta'], row['ci_low'], row['ci_high'], rounded=rounded)}"
    )

"""Would a mitigation help, whom, and at what price: what the page shows. Figures: `figures/mitigation.py`; words:
`text/recommendations.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.mitigation.runs import SHORT_TITLES
from fmaudit_core.report.figures import base as figures
from fmaudit_core.report.figures import mitigation as mitigation_figures
from fmaudit_core.report.index.mitigation_index import NOBODY, Cell, MitigationIndex, Row
from fmaudit_core.report.index.score_set_index import ScoreSetIndex
from fmaudit_core.report.sections.capacity import (
    PROBES,
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
    cells = _ordered(index, mitigation_index)
    if not cells:
        return None
    strategies = list(
        dict.fromkeys(run["strategy"] for cell in cells for run in _runs(mitigation_index, cell) if run["own"])
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
    for cell in _ordered(index, mitigation_index):
        row, view = mitigation_index.advice(cell), advice_view(mitigation_index, cell)
        if row is not None and view is not None:
            out.append({**row, "costs": list(view.costs), "sentence": view.sentence})
    return out


def mitigation_figure_sets(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> dict[str, Row]:
    """Return figures of each encoder and task by slot."""
    return {_id(cell): _figures(mitigation_index, cell) for cell in _ordered(index, mitigation_index)}


def _ordered(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> list[Cell]:
    names = [one["name"] for one in index.encoders]
    known = [cell for cell in mitigation_index.cells if cell[0] in names and cell[1] in index.tasks]
    return sorted(known, key=lambda cell: (names.index(cell[0]), index.tasks.index(cell[1])))


def _id(cell: Cell) -> str:
    return "|".join(cell)


def _runs(mitigation_index: MitigationIndex, cell: Cell) -> list[Row]:
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
    return MitigatedCell(_id(cell), title, advice_view(mitigation_index, cell), groups)


def _line(mitigation_index: MitigationIndex, cell: Cell, run: Row) -> StrategyLine:
    decimals = 0 if run["rounded"] else 1
    return StrategyLine(
        title=run_title(run),
        evaluated=run["own"],
        before=formatting.points(run["gap_before"], decimals),
        after=formatting.points(run["gap_after"], decimals),
        change=gap_change(run["reduction"], run),
        p=formatting.p_number(_p(run)),
        worst=_end(run, "worst"),
        auroc=_auroc_change(run),
        spill=_spill(mitigation_index, cell, run),
        marks=_marks(run),
        note=_note(run),
    )


def _auroc_change(run: Row) -> Estimate:
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


def _end(run: Row, end: str) -> str:
    delta = run[f"{end}_subgroup_udr_delta"]
    if delta is None:
        return formatting.NONE
    return f"{vocabulary.subgroup_title(run[f'{end}_subgroup'])} {formatting.difference('udr', delta, rounded=run['rounded'])}"


def _marks(run: Row) -> list[Mark]:
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


def _p(run: Row) -> float | None:
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
    return SubgroupCell(formatting.percent(row["after"], decimals), _look(row), _subgroup_tip(row))


def _look(row: Row) -> str:
    return "harmed" if row["harmed"] else "helped" if row["helped"] else "unclear"


def _subgroup_tip(row: Row) -> str:
    if row["delta"] is None:
        return ""
    rounded = row["counts"] == "rounded"
    return (
        f"change {formatting.difference_estimate('udr', row['delta'], row['ci_low'], row['ci_high'], rounded=rounded)}"
    )


def _figures(mitigation_index: MitigationIndex, cell: Cell) -> Row:
    attributes = mitigation_index.attributes(cell)
    runs = [run for run in _runs(mitigation_index, cell) if run["own"]]
    strategies = list(dict.fromkeys(run["strategy"] for run in runs))
    return {
        "gaps": mitigation_figures.strategies([_gap_row(run) for run in runs]) if runs else None,
        "arrows": {
            name: mitigation_figures.arrows(rows)
            for name in strategies
            if (rows := _arrow_rows(mitigation_index, cell, name, attributes))
        },
        "price": [
            {"title": formatting.attribute_title(name), "figure": figure}
            for name in attributes
            if (figure := _price(mitigation_index, cell, name)) is not None
        ],
        "probing": _probing(mitigation_index, cell),
    }


def _gap_row(run: Row) -> Row:
    look = (
        "uninterpretable" if not run["interpretable"]
        else "widened" if run["widened"]
        else "levelled" if run["levelling_down"]
        else "narrowed" if run["narrowed"] else "shown"
    )  # fmt: skip
    low, high = (
        None if run[end] is None else max(0.0, min(1.0, run["gap_before"] - run[end])) for end in ("ci_high", "ci_low")
    )
    return {
        "attribute": figures.tick_label(formatting.attribute_title(run["attribute"])),
        "of": formatting.attribute_title(run["attribute"]),
        "label": figures.tick_label(short_title(run)),
        "before": run["gap_before"], "value": run["gap_after"], "low": low, "high": high, "look": look,
        "hover": _run_hover(run),
        "aside": f"{gap_change(run['reduction'], run).value} · {formatting.p_number(_p(run))}",
    }  # fmt: skip


def _run_hover(run: Row) -> str:
    decimals, change = 0 if run["rounded"] else 1, gap_change(run["reduction"], run)
    lines = [
        f"<b>{figures.plain(run_title(run))}</b>",
        f"gap {formatting.points(run['gap_before'], decimals)} before, {formatting.points(run['gap_after'], decimals)} after",
        f"change {change.value} ({change.interval}; {formatting.p_text(_p(run), 'adjusted p')})",
        f"missed most before: {figures.plain(_end(run, 'worst'))}",
        f"AUROC {run['auroc_before']:.3f} before, {_auroc_change(run)}",
        *(one.text for one in _marks(run)),
    ]
    return "<br>".join(lines)


def _arrow_rows(mitigation_index: MitigationIndex, cell: Cell, strategy: str, attributes: list[str]) -> list[Row]:
    """Return subgroups of every attribute under the strategy aimed at that attribute; none where nothing may be shown."""
    out = []
    for attribute in attributes:
        run = next(
            (one for one in mitigation_index.own(cell, attribute) if one["strategy"] == strategy and one["own"]), None
        )
        of_run = mitigation_index.subgroups(cell, run, "udr") if run else []
        out += [_arrow(row) for row in of_run if row["attribute"] == attribute]
    return out if any(row["before"] is not None for row in out) else []


def _arrow(row: Row) -> Row:
    rounded, title = row["counts"] == "rounded", vocabulary.subgroup_title(row["subgroup"])
    shown = row["before"] is not None
    decimals = 0 if rounded else 1
    return {
        "attribute": figures.tick_label(formatting.attribute_title(row["attribute"])),
        "of": formatting.attribute_title(row["attribute"]),
        "label": figures.tick_label(title), "before": row["before"], "after": row["after"], "look": _look(row),
        "hover": f"<b>{figures.plain(title)}</b><br>missed {formatting.percent(row['before'], decimals)} before, "
        f"{formatting.percent(row['after'], decimals)} after<br>{_subgroup_tip(row)}" if shown else "",
        "aside": formatting.difference("udr", row["delta"], rounded=rounded) if shown else "too few to show",
    }  # fmt: skip


def _price(mitigation_index: MitigationIndex, cell: Cell, attribute: str) -> figures.Spec | None:
    runs = [run for run in mitigation_index.own(cell, attribute) if run["own"] and run["gap_after"] is not None]
    if not runs:
        return None
    path = mitigation_index.path(cell, attribute)
    seeds = [_point(one) for run in (*runs, *path) for one in mitigation_index.seeds(cell, run, attribute)]
    before = {"gap": runs[0]["gap_before"], "auroc": runs[0]["auroc_before"], "hover": "<b>The probe as it was</b>"}
    return mitigation_figures.price(
        before,
        [_point(run) | {"strategy": run["strategy"]} for run in runs if run["strategy"] != "adversarial"],
        [
            _point(run) | {"label": "0" if run["target_attribute"] == NOBODY else f"{run['alpha']:g}"}
            for run in path
        ],
        list({(one["gap"], one["auroc"]): one for one in seeds}.values()),
        mitigation_index.audit.fairness.auroc_margin,
    )  # fmt: skip


def _point(run: Row) -> dict[str, Any]:
    seed = f"<br>seed {run['seed']}" if run["seed"] is not None else ""
    decimals = 0 if run["rounded"] else 1
    return {
        "gap": run["gap_after"], "auroc": run["auroc"],
        "hover": f"<b>{figures.plain(run_title(run))}</b>{seed}<br>gap {formatting.points(run['gap_after'], decimals)}"
        f"<br>AUROC {run['auroc']:.3f}",
    }  # fmt: skip


def _probing(mitigation_index: MitigationIndex, cell: Cell) -> figures.Spec | None:
    """Draw fresh probes of the strategies that change what a probe sees, before and after, averaged over their seeds."""
    read: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
    for row in mitigation_index.leakage(cell):
        key = (row["target_attribute"], row["strategy"], row["probe"])
        read.setdefault(key, {}).setdefault(row["stage"], []).append(row)
    order = mitigation_index.attributes(cell)
    known = sorted((key for key in read if key[0] in order), key=lambda key: (order.index(key[0]), key[1], key[2]))
    rows = [_probed(key, read[key]) for key in known]
    return mitigation_figures.probing(rows) if rows else None


def _probed(key: tuple[str, str, str], stages: dict[str, list[Row]]) -> Row:
    attribute, strategy, probe = key
    before, after = (_mean(stages.get(stage, []), "balanced_auroc") for stage in ("before", "after"))
    last = stages.get("after", [])
    low, high = (_mean(last, end) for end in ("ci_low", "ci_high"))
    control = _mean(last, "control_balanced_auroc")
    label = f"{SHORT_TITLES.get(strategy, strategy)}, {PROBES.get(probe, probe)}"
    wording = [formatting.signed(one, 2, plus=False) for one in (before, after)]
    return {
        "attribute": figures.tick_label(formatting.attribute_title(attribute)), "of": formatting.attribute_title(attribute),
        "label": figures.tick_label(label),
        "before": before, "value": after, "low": low, "high": high, "control": control,
        "hover": f"<b>{figures.plain(label)}</b><br>balanced AUROC {wording[0]} before, {wording[1]} after "
        f"({formatting.between(low, high, 2)})<br>permuted labels {formatting.signed(control, 2, plus=False)}",
        "aside": f"{wording[0]} · {wording[1]}",
    }  # fmt: skip


def _mean(rows: list[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return sum(values) / len(values) if values else None

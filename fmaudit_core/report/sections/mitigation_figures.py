"""Figures of mitigation, by encoder and task. Its tables: `mitigation.py`; how figures are drawn: `figures/mitigation.py`."""

from __future__ import annotations

from typing import Any

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.mitigation.runs import SHORT_TITLES
from fmaudit_core.report.figures import base as figures
from fmaudit_core.report.figures import mitigation as mitigation_figures
from fmaudit_core.report.index.mitigation_index import NOBODY, Cell, MitigationIndex, Row
from fmaudit_core.report.index.score_set_index import ScoreSetIndex
from fmaudit_core.report.sections.capacity import PROBES, gap_change
from fmaudit_core.report.sections.mitigation import (
    aimed_runs,
    auroc_change,
    cell_id,
    end_text,
    look_of,
    marks_of,
    ordered_cells,
    p_of,
    subgroup_tip,
)
from fmaudit_core.report.text.recommendations import run_title, short_title


def mitigation_figure_sets(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> dict[str, Row]:
    """Return figures of each encoder and task by slot."""
    return {cell_id(cell): _figures(mitigation_index, cell) for cell in ordered_cells(index, mitigation_index)}


def _figures(mitigation_index: MitigationIndex, cell: Cell) -> Row:
    attributes = mitigation_index.attributes(cell)
    runs = [run for run in aimed_runs(mitigation_index, cell) if run["own"]]
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
        "aside": f"{gap_change(run['reduction'], run).value} · {formatting.p_number(p_of(run))}",
    }  # fmt: skip


def _run_hover(run: Row) -> str:
    decimals, change = 0 if run["rounded"] else 1, gap_change(run["reduction"], run)
    lines = [
        f"<b>{figures.plain(run_title(run))}</b>",
        f"gap {formatting.points(run['gap_before'], decimals)} before, {formatting.points(run['gap_after'], decimals)} after",
        f"change {change.value} ({change.interval}; {formatting.p_text(p_of(run), 'adjusted p')})",
        f"missed most before: {figures.plain(end_text(run, 'worst'))}",
        f"AUROC {run['auroc_before']:.3f} before, {auroc_change(run)}",
        *(one.text for one in marks_of(run)),
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
        "label": figures.tick_label(title), "before": row["before"], "after": row["after"], "look": look_of(row),
        "hover": f"<b>{figures.plain(title)}</b><br>missed {formatting.percent(row['before'], decimals)} before, "
        f"{formatting.percent(row['after'], decimals)} after<br>{subgroup_tip(row)}" if shown else "",
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

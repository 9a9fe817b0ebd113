"""Every encoder on every outcome, and compared with the control."""

from __future__ import annotations

from typing import Any

from fmaudit_core.report.figures import base as figures
from fmaudit_core.report.index.score_set_index import CONTROL, Row, ScoreSetIndex
from fmaudit_core.report.sections.findings import explore_link
from fmaudit_core.report.text import formatting


def encoder_tasks(index: ScoreSetIndex) -> Row:
    """Return AUROC of every encoder on every task, and whether its interval lies above the control's."""
    control = next((one["name"] for one in index.encoders if one["control"]), None)
    rows = []
    for encoder in index.encoders:
        cells = []
        for task in index.tasks:
            own, theirs = _auroc(index, encoder["name"], task), _auroc(index, control, task) if control else None
            cell = _auroc_cell(own, theirs, is_control=encoder["name"] == control)
            cells.append({**cell, "link": explore_link(encoder["name"], task) if own else None})
        beaten = [cell["beats"] for cell in cells if cell["beats"] is not None]
        rows.append(
            {
                "encoder": encoder["title"],
                "control": bool(encoder["control"]),
                "role": index.role(encoder["name"]),
                "cells": cells,
                "beats": f"{sum(beaten)} of {len(beaten)} tasks" if beaten else formatting.NONE,
            }
        )
    return {
        "tasks": [formatting.task_title(task, index.task_titles) for task in index.tasks],
        "rows": rows,
        "control": index.encoder_title(control) if control else None,
        "sentence": _control_sentence(index, control),
        "short": _against_control(index, control),
    }


def _auroc(index: ScoreSetIndex, encoder: str, task: str) -> Row | None:
    key = index.main_key(encoder, task)
    return index.overall(key, "auroc") if key else None


def _beats(own: Row | None, control: Row | None) -> bool | None:
    """Return whether the whole interval lies above the control's: stricter than a test of the difference on the same studies."""
    if own is None or control is None or own["ci_low"] is None or control["ci_high"] is None:
        return None
    return bool(own["ci_low"] > control["ci_high"])


def _auroc_cell(own: Row | None, control: Row | None, *, is_control: bool) -> Row:
    value = own["value"] if own else None
    return {
        "value": formatting.level("auroc", value),
        "interval": formatting.interval("auroc", own["ci_low"], own["ci_high"]) if own else formatting.NONE,
        "n": formatting.count(own["n"]) if own else formatting.NONE,
        "shade": 0 if value is None else min(4, max(0, int((value - 0.5) * 10))),
        "beats": None if is_control else _beats(own, control),
    }


def _control_sentence(index: ScoreSetIndex, control: str | None) -> str:
    if control is None:
        return "No control encoder was audited, so nothing here says whether an encoder helps at all."
    title, task = index.encoder_title(control).removesuffix(CONTROL), index.main_task
    outcome = formatting.task_title(task, index.task_titles)
    outcome = outcome if task in index.task_titles else outcome.lower()
    return (
        f"The control, {title}, sees only how often each grey value occurs; an encoder that does not rank patients better "
        f"than it helps nobody. On {outcome}: {_against_control(index, control)}"
    )


def _against_control(index: ScoreSetIndex, control: str | None) -> str:
    """Return which encoders rank the patients of the main task better than the control, in half a sentence."""
    if control is None:
        return ""
    real = [one for one in index.encoders if not one["control"]]
    outcome = {
        one["title"]: _beats(_auroc(index, one["name"], index.main_task), _auroc(index, control, index.main_task))
        for one in real
    }
    better = [name for name, beats in outcome.items() if beats]
    unclear = [name for name, beats in outcome.items() if not beats]
    wording = []
    if better:
        wording.append(f"{_listed(better)} {'ranks' if len(better) == 1 else 'rank'} patients better than the control")
    if unclear:
        whom = "them" if better else "patients"
        wording.append(
            f"{_listed(unclear)} {'is' if len(unclear) == 1 else 'are'} not shown to rank {whom} better than the control"
        )
    return f"{'; '.join(wording) or 'No encoder was compared with it'}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def control_figures(index: ScoreSetIndex) -> dict[str, Any]:
    """Return per task, every encoder's AUROC before the control's interval."""
    control = next((one["name"] for one in index.encoders if one["control"]), None)
    out = {}
    for task in index.tasks:
        theirs = _auroc(index, control, task) if control else None
        rows = []
        for encoder in index.encoders:
            own = _auroc(index, encoder["name"], task)
            if own is not None and encoder["name"] != control:
                rows.append(_control_row(index.named(encoder["name"]), own, _beats(own, theirs)))
        drawn = _control_row(index.named(control), theirs, None) if control and theirs else None
        out[task] = figures.against_control([{**row, "beats": bool(row["beats"])} for row in rows], drawn)
    return out


def _control_row(label: str, row: Row, beats: bool | None) -> Row:
    wording = {True: "above the control", False: "not shown to be better", None: ""}[beats]
    text = f"{formatting.level('auroc', row['value'])} ({formatting.interval('auroc', row['ci_low'], row['ci_high'])})"
    return {
        "label": figures.tick_label(label),
        "value": row["value"],
        "low": row["ci_low"],
        "high": row["ci_high"],
        "beats": beats,
        "aside": text,
        "hover": f"<b>{figures.plain(label)}</b><br>AUROC {text}<br>{formatting.count(row['n'])} studies<br>{wording}",
    }

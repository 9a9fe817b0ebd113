"""Every encoder on every outcome, and compared with the control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fmaudit_core.common import formatting
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.report.figures import base as figures
from fmaudit_core.report.index.score_set_index import CONTROL, Row, ScoreSetIndex
from fmaudit_core.report.sections.findings import explore_link


@dataclass(frozen=True)
class AurocCell:
    """AUROC of an encoder on a task; `beats` is whether its interval lies above the control's, None if that is not known."""

    auroc: Estimate
    n: str
    shade: int
    beats: bool | None
    link: str | None


@dataclass(frozen=True)
class EncoderRow:
    """An encoder on every task."""

    encoder: str
    role: str
    cells: Sequence[AurocCell]
    beats: str


@dataclass(frozen=True)
class EncodersView:
    """Every encoder on every task, with a sentence on the control, at length and in `short`."""

    tasks: Sequence[str]
    rows: Sequence[EncoderRow]
    control: str | None
    sentence: str
    short: str


def encoders_view(index: ScoreSetIndex) -> EncodersView:
    """Return AUROC of every encoder on every task, and whether its interval lies above the control's."""
    control = next((one["name"] for one in index.encoders if one["control"]), None)
    rows = []
    for encoder in index.encoders:
        cells = []
        for task in index.tasks:
            own, theirs = _auroc(index, encoder["name"], task), _auroc(index, control, task) if control else None
            beats = None if encoder["name"] == control else _beats(own, theirs)
            cells.append(_auroc_cell(own, beats, explore_link(encoder["name"], task) if own else None))
        beaten = [cell.beats for cell in cells if cell.beats is not None]
        over = f"{sum(beaten)} of {len(beaten)} tasks" if beaten else formatting.NONE
        rows.append(EncoderRow(encoder["title"], index.role(encoder["name"]), cells, over))
    return EncodersView(
        tasks=[formatting.task_title(task, index.task_titles) for task in index.tasks],
        rows=rows,
        control=index.encoder_title(control) if control else None,
        sentence=_control_sentence(index, control),
        short=_against_control(index, control),
    )


def _auroc(index: ScoreSetIndex, encoder: str, task: str) -> Row | None:
    key = index.main_key(encoder, task)
    return index.overall(key, "auroc") if key else None


def _beats(own: Row | None, control: Row | None) -> bool | None:
    """Return whether the whole interval lies above the control's: stricter than a test of the difference on the same studies."""
    if own is None or control is None or own["ci_low"] is None or control["ci_high"] is None:
        return None
    return bool(own["ci_low"] > control["ci_high"])


def _auroc_cell(own: Row | None, beats: bool | None, link: str | None) -> AurocCell:
    return AurocCell(
        auroc=formatting.estimate("auroc", own) if own else Estimate(formatting.NONE, formatting.NONE),
        n=formatting.count(own["n"]) if own else formatting.NONE,
        shade=0 if own is None or own["value"] is None else formatting.auroc_shade(own["value"]),
        beats=beats,
        link=link,
    )


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
    text = str(formatting.estimate("auroc", row))
    return {
        "label": figures.tick_label(label),
        "value": row["value"],
        "low": row["ci_low"],
        "high": row["ci_high"],
        "beats": beats,
        "aside": text,
        "hover": f"<b>{figures.plain(label)}</b><br>AUROC {text}<br>{formatting.count(row['n'])} studies<br>{wording}",
    }

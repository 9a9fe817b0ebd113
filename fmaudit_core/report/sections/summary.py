"""What the whole audit says: the executive summary, the q-value map, every encoder on every task and against the control."""

from __future__ import annotations

import math
from typing import Any, Final
from urllib.parse import urlencode

from fmaudit_core.common import vocabulary
from fmaudit_core.common.vocabulary import THRESHOLD_GIVEN
from fmaudit_core.report.figures import base as figures
from fmaudit_core.report.index.score_set_index import CONTROL, Key, Row, ScoreSetIndex
from fmaudit_core.report.input.report_input import OVERALL
from fmaudit_core.report.sections.subgroups import gap_view, warning_view
from fmaudit_core.report.text import formatting

_VERDICTS: Final = ("disparity", "insufficient_evidence", "within_margin_of_tested", "no_disparity_beyond_margin")


def main_findings(index: ScoreSetIndex) -> list[Row]:
    """The confirmatory findings: main task, primary metric, every encoder and attribute."""
    out = []
    for encoder in index.encoders:
        key = index.main_key(encoder["name"], index.main_task)
        if key is None:
            continue
        metric = index.primary_metric
        rows = [row for row in index.findings(key) if row["metric"] == metric]
        out += [
            {
                **gap_view(index, key, row),
                "encoder": index.named(key.encoder),
                "name": key.encoder,
                "declared": not (encoder["control"] or encoder["baseline"]),
                "link": _link(key.encoder, key.task, formatting.attribute_title(row["attribute"])),
            }
            for row in rows
        ]
    return out


def executive_summary(index: ScoreSetIndex) -> Row:
    """Who is missed, how often, how sure: one screen."""
    task, metric = index.main_task, index.primary_metric
    told = [row for row in main_findings(index) if row["declared"]]
    counted = {verdict: sum(row["verdict"] == verdict for row in told) for verdict in _VERDICTS}
    shown = next((key for one in index.encoders if (key := index.main_key(one["name"], task))), None)
    highs = [row["ci_high"] for row in index.subgroups(shown, metric) if row["ci_high"] is not None] if shown else []
    top = 1.0 if metric == "auroc" else min(1.0, math.ceil(20 * max([0.2, *highs])) / 20)
    return {
        "task": formatting.task_title(task),
        "whom": formatting.among_whom(task),
        "headline": _headline(counted, len(told), index.audit.fairness.margin, metric),
        "counts": [
            {
                "verdict": verdict,
                "title": formatting.VERDICTS[verdict][0],
                "means": formatting.VERDICTS[verdict][1],
                "n": n,
            }
            for verdict, n in counted.items()
        ],
        "encoder": index.encoder_title(shown.encoder) if shown else "",
        "beside": _beside(index, told),
        "elsewhere": _elsewhere(index),
        "warnings": _warnings(index),
        "missed": _missed(index, shown) if shown else None,
        "given": shown is not None and index.threshold_source(shown) == THRESHOLD_GIVEN,
        "top": formatting.level(metric, top, rounded=True),
        "scope": f"{formatting.task_title(task)}, {formatting.metric_spelled(metric)}",
        "cards": [_card(index, shown, attribute, top) for attribute in index.attributes(shown)] if shown else [],
    }


def _headline(counted: dict[str, int], n: int, margin: float, metric: str) -> str:
    if n == 0:
        return "No comparison between subgroups could be made with these data."
    limit = formatting.margin_text(metric, margin)
    unseen, within = counted["insufficient_evidence"], counted["no_disparity_beyond_margin"]
    tested = counted["within_margin_of_tested"]
    first = (
        f"{_of(counted['disparity'], n)} between subgroups shows a disparity"
        if counted["disparity"] == 1
        else f"{_of(counted['disparity'], n)} between subgroups show a disparity"
    )
    parts = [
        f"In {unseen} we cannot tell" if unseen else "",
        f"in {within} a gap beyond {limit} can be ruled out" if within else "",
        f"in {tested} a gap beyond {limit} can be ruled out between the tested subgroups only" if tested else "",
    ]
    rest = "; ".join(part for part in parts if part)
    return f"{first}. {rest[:1].upper()}{rest[1:]}." if rest else f"{first}."


def _of(count: int, total: int) -> str:
    return f"{count if count else 'None'} of {total} comparisons"


def _beside(index: ScoreSetIndex, told: list[Row]) -> list[Row]:
    """Every encoder under audit in a line, where there are several: the cards show the first."""
    names = list(dict.fromkeys(row["name"] for row in told))
    if len(names) < 2:
        return []
    out = []
    for name in names:
        key = index.main_key(name, index.main_task)
        own = {row["attribute"]: row for row in told if row["name"] == name}
        out.append(
            {
                "encoder": index.named(name),
                "missed": _missed(index, key) if key else None,
                "findings": [own.get(formatting.attribute_title(attribute)) for attribute in index.audit.attributes],
            }
        )
    return out


def _warnings(index: ScoreSetIndex) -> list[Row]:
    """Warnings about the models that are primary for their encoders, main task first."""
    tasks = sorted(index.tasks, key=lambda task: task != index.main_task)
    keys = [key for task in tasks for one in index.encoders if (key := index.main_key(one["name"], task))]
    return [
        {**warning_view(row), "encoder": index.named(key.encoder), "task": formatting.task_title(key.task)}
        for key in keys
        for row in index.warnings(key)
    ]


def _elsewhere(index: ScoreSetIndex) -> str:
    """What the encoders under audit show on the other outcomes; empty where there is none."""
    tasks = [task for task in index.tasks if task != index.main_task]
    named = [one["name"] for one in index.encoders if not (one["control"] or one["baseline"])]
    keys = [key for name in named for task in tasks if (key := index.main_key(name, task))]
    rows = [row for key in keys for row in index.findings(key) if row["metric"] == index.primary_metric]
    if not rows:
        return ""
    verdicts = [row.get("verdict") for row in rows if row["gap"] is not None]
    apart, within = (verdicts.count(verdict) for verdict in ("disparity", "no_disparity_beyond_margin"))
    return (
        f"{len(tasks)} other {'outcome' if len(tasks) == 1 else 'outcomes'} (exploratory): of {len(rows)} comparisons "
        f"{apart or 'none'} {'shows' if apart == 1 else 'show'} a disparity, {within or 'none'} "
        f"{'is' if within == 1 else 'are'} within the margin, and in {len(rows) - apart - within} we cannot tell."
    )


def _missed(index: ScoreSetIndex, key: Key) -> Row | None:
    row = index.overall(key, "udr")
    alarms = index.overall(key, "fpr")
    if row is None or row["value"] is None:
        return None
    return {
        "value": formatting.percent(row["value"]),
        "interval": formatting.interval("udr", row["ci_low"], row["ci_high"]),
        "n_pos": formatting.count(row["n_pos"]),
        "n": formatting.count(row["n"]),
        "alarms": formatting.percent(alarms["value"]) if alarms else None,
    }


def _card(index: ScoreSetIndex, key: Key, attribute: str, top: float) -> Row:
    """One attribute at a glance: verdict, who is missed most, and a small forest plot without script."""
    metric = index.primary_metric
    finding = index.finding(key, attribute, metric)
    rows = index.subgroups(key, metric, attribute)
    view = (
        gap_view(index, key, finding) if finding else {"verdict": "", "verdict_title": formatting.verdict_title(None)}
    )
    bars = [_bar(metric, row, top, finding) for row in rows]
    withheld = [bar for bar in bars if bar["at"] is None]
    # those that are not shown share a line
    shared = [{**withheld[0], "title": ", ".join(bar["title"] for bar in withheld)}] if withheld else []
    return {
        **view,
        "attribute": formatting.attribute_title(attribute),
        "bars": [*(bar for bar in bars if bar["at"] is not None), *shared],
    }


def _bar(metric: str, row: Row, top: float, finding: Row | None) -> Row:
    rounded = row["counts"] == "rounded"
    drawn = row["value"] is not None and row["ci_low"] is not None and row["ci_high"] is not None
    disparity = finding is not None and finding.get("verdict") == "disparity"
    return {
        "title": vocabulary.subgroup_title(row["subgroup"]),
        "value": formatting.level(metric, row["value"], rounded=rounded) if drawn else "too few",
        "interval": formatting.interval(metric, row["ci_low"], row["ci_high"], rounded=rounded),
        "n_pos": formatting.count(row["n_pos"], row["counts"]),
        "at": round(100 * row["value"] / top, 2) if drawn else None,
        "left": round(100 * row["ci_low"] / top, 2) if drawn else None,
        "width": round(100 * (row["ci_high"] - row["ci_low"]) / top, 2) if drawn else None,
        "tested": row["status"] == "tested",
        "alarm": disparity and finding is not None and finding["worst_subgroup"] == row["subgroup"],
    }


def q_map(index: ScoreSetIndex) -> Row:
    """q-values of the primary metric: encoder and attribute down, task across."""
    metric = index.primary_metric
    groups = []
    for encoder in index.encoders:
        keys = [index.main_key(encoder["name"], task) for task in index.tasks]
        attributes = list(dict.fromkeys(name for key in keys if key for name in index.attributes(key)))
        rows = [
            {
                "attribute": formatting.attribute_title(attribute),
                "cells": [
                    {
                        **_q_cell(index.finding(key, attribute, metric) if key else None),
                        "link": _link(encoder["name"], task, formatting.attribute_title(attribute)) if key else None,
                    }
                    for key, task in zip(keys, index.tasks, strict=True)
                ],
            }
            for attribute in attributes
        ]
        groups.append({"encoder": index.named(encoder["name"]), "rows": rows})
    return {
        "tasks": [formatting.task_title(task) for task in index.tasks],
        "groups": groups,
        "metric": formatting.metric_said(metric),
    }


def _link(encoder: str, task: str, attribute: str = "") -> str:
    """The part of the page's address that chooses what Explore shows."""
    return "#" + urlencode({"encoder": encoder, "task": task} | ({"attribute": attribute} if attribute else {}))


def _q_cell(row: Row | None) -> Row:
    if row is None:
        return {"text": formatting.NONE, "shade": 0, "verdict": "", "tip": "not audited"}
    if row.get("gap") is None:
        few = (row.get("n_tested") or 0) < 2
        tip = f"not tested: {'too few subgroups of sufficient size' if few else 'no operating threshold'}"
        return {"text": formatting.NONE, "shade": 0, "verdict": "insufficient_evidence", "tip": tip}
    q = row.get("q_value")
    shade = 0 if q is None else 4 if q < 0.001 else 3 if q < 0.01 else 2 if q < 0.05 else 1 if q < 0.2 else 0
    verdict = row.get("verdict") or ""
    metric = row["metric"]
    tip = (
        f"gap {formatting.spread(metric, row['gap'])}, if equal about {formatting.spread(metric, row['null_expected_gap'])}; "
        f"{formatting.tests_text(row)}; "
        f"{formatting.verdict_title(verdict)}"
    )
    return {"text": formatting.p_number(q), "shade": shade, "verdict": verdict, "tip": tip}


def encoder_tasks(index: ScoreSetIndex) -> Row:
    """AUROC of every encoder on every task, and whether its interval lies above the control's."""
    control = next((one["name"] for one in index.encoders if one["control"]), None)
    rows = []
    for encoder in index.encoders:
        cells = []
        for task in index.tasks:
            own, theirs = _auroc(index, encoder["name"], task), _auroc(index, control, task) if control else None
            cell = _auroc_cell(own, theirs, is_control=encoder["name"] == control)
            cells.append({**cell, "link": _link(encoder["name"], task) if own else None})
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
        "tasks": [formatting.task_title(task) for task in index.tasks],
        "rows": rows,
        "control": index.encoder_title(control) if control else None,
        "sentence": _control_sentence(index, control),
        "short": _against_control(index, control),
    }


def _auroc(index: ScoreSetIndex, encoder: str, task: str) -> Row | None:
    key = index.main_key(encoder, task)
    return index.overall(key, "auroc") if key else None


def _beats(own: Row | None, control: Row | None) -> bool | None:
    """Whether the whole interval lies above the control's: stricter than a test of the difference on the same studies."""
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
    return (
        f"The control, {title}, sees only how often each grey value occurs; an encoder that does not rank patients better "
        f"than it helps nobody. On {formatting.task_title(task).lower()}: {_against_control(index, control)}"
    )


def _against_control(index: ScoreSetIndex, control: str | None) -> str:
    """Which encoders rank the patients of the main task better than the control, in half a sentence."""
    if control is None:
        return ""
    real = [one for one in index.encoders if not one["control"]]
    outcome = {
        one["title"]: _beats(_auroc(index, one["name"], index.main_task), _auroc(index, control, index.main_task))
        for one in real
    }
    better = [name for name, beats in outcome.items() if beats]
    unclear = [name for name, beats in outcome.items() if not beats]
    said = []
    if better:
        said.append(f"{_listed(better)} {'ranks' if len(better) == 1 else 'rank'} patients better than the control")
    if unclear:
        whom = "them" if better else "patients"
        said.append(
            f"{_listed(unclear)} {'is' if len(unclear) == 1 else 'are'} not shown to rank {whom} better than the control"
        )
    return f"{'; '.join(said) or 'No encoder was compared with it'}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def control_figures(index: ScoreSetIndex) -> dict[str, Any]:
    """Per task, every encoder's AUROC before the control's interval."""
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
    said = {True: "above the control", False: "not shown to be better", None: ""}[beats]
    text = f"{formatting.level('auroc', row['value'])} ({formatting.interval('auroc', row['ci_low'], row['ci_high'])})"
    return {
        "label": figures.tick_label(label),
        "value": row["value"],
        "low": row["ci_low"],
        "high": row["ci_high"],
        "beats": beats,
        "aside": text,
        "hover": f"<b>{figures.plain(label)}</b><br>AUROC {text}<br>{formatting.count(row['n'])} studies<br>{said}",
    }


def cohort_table(index: ScoreSetIndex, rows: list[Row]) -> list[Row]:
    """Studies per attribute and subgroup, splits across."""
    splits = ("train", "val", "test")
    groups: dict[str, dict[str, Row]] = {}
    for row in rows:
        groups.setdefault(row["attribute"], {}).setdefault(row["subgroup"], {})[row["split"]] = row
    configured = list(index.audit.attributes)
    order = sorted(groups, key=lambda name: (configured.index(name) if name in configured else len(configured), name))
    return [
        {
            "attribute": formatting.attribute_title(attribute),
            "rows": [
                {
                    "title": vocabulary.subgroup_title(subgroup),
                    "cells": [_count_cell(of.get(split)) for split in splits],
                }
                for subgroup, of in sorted(groups[attribute].items(), key=lambda item: (item[0] == "unknown", item[0]))
            ],
        }
        for attribute in order
        if attribute != OVERALL
    ]


def _count_cell(row: Row | None) -> str:
    if row is None:
        return formatting.NONE
    return formatting.count(row["n_studies"], row["counts"])

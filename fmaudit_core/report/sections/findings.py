"""Findings of the declared family, and the map of q-values over the whole audit."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from fmaudit_core.report.index.score_set_index import Key, Row, ScoreSetIndex
from fmaudit_core.report.sections.subgroups import GapView, gap_view
from fmaudit_core.report.text import formatting


@dataclass(frozen=True)
class FindingView(GapView):
    """A gap of the main task with the encoder's `name`, whether the family was `declared` with it, and where Explore shows it."""

    name: str
    declared: bool
    link: str


def main_findings(index: ScoreSetIndex) -> list[FindingView]:
    """Return the gaps in the primary metric on the main task, of every encoder and attribute."""
    keys = {one["name"]: index.main_key(one["name"], index.main_task) for one in index.encoders}
    return [
        _finding_view(index, key, row)
        for key in keys.values()
        if key is not None
        for row in index.findings(key)
        if row["metric"] == index.primary_metric
    ]


def _finding_view(index: ScoreSetIndex, key: Key, row: Row) -> FindingView:
    shown = vars(gap_view(index, key, row)) | {"encoder": index.named(key.encoder)}
    return FindingView(
        **shown,
        name=key.encoder,
        declared=not (index.is_control(key.encoder) or index.is_baseline(key.encoder)),
        link=explore_link(key.encoder, key.task, formatting.attribute_title(row["attribute"])),
    )


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
                        "link": explore_link(encoder["name"], task, formatting.attribute_title(attribute))
                        if key
                        else None,
                    }
                    for key, task in zip(keys, index.tasks, strict=True)
                ],
            }
            for attribute in attributes
        ]
        groups.append({"encoder": index.named(encoder["name"]), "rows": rows})
    return {
        "tasks": [formatting.task_title(task, index.task_titles) for task in index.tasks],
        "groups": groups,
        "metric": formatting.metric_said(metric),
    }


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


def explore_link(encoder: str, task: str, attribute: str = "") -> str:
    """Return the part of the page's address that chooses what Explore shows."""
    return "#" + urlencode({"encoder": encoder, "task": task} | ({"attribute": attribute} if attribute else {}))

"""Findings of the declared family, and the map of q-values over the whole audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from fmaudit_core.common import formatting
from fmaudit_core.fairness import sentences
from fmaudit_core.report.index.score_set_index import Key, Row, ScoreSetIndex
from fmaudit_core.report.sections.subgroups import GapView, gap_view


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


@dataclass(frozen=True)
class QCell:
    """A q-value: the smaller, the darker its `shade`; `link` leads to its gap, None if the task was not audited."""

    text: str
    shade: int
    verdict: str
    tip: str
    link: str | None


@dataclass(frozen=True)
class QMap:
    """q-values of the primary metric: encoders, with their attributes, down, tasks across."""

    tasks: Sequence[str]
    groups: Sequence[tuple[str, Sequence[tuple[str, Sequence[QCell]]]]]
    metric: str


def q_map(index: ScoreSetIndex) -> QMap:
    """Return the q-values of the primary metric over the whole audit."""
    metric = index.primary_metric
    groups = []
    for encoder in index.encoders:
        keys = [index.main_key(encoder["name"], task) for task in index.tasks]
        attributes = list(dict.fromkeys(name for key in keys if key for name in index.attributes(key)))
        rows = [
            (formatting.attribute_title(attribute), [_q_cell(index, key, attribute, metric) for key in keys])
            for attribute in attributes
        ]
        groups.append((index.named(encoder["name"]), rows))
    return QMap(
        [formatting.task_title(task, index.task_titles) for task in index.tasks], groups, formatting.metric_said(metric)
    )


def _q_cell(index: ScoreSetIndex, key: Key | None, attribute: str, metric: str) -> QCell:
    link = explore_link(key.encoder, key.task, formatting.attribute_title(attribute)) if key else None
    row = index.finding(key, attribute, metric) if key else None
    if row is None:
        return QCell(formatting.NONE, 0, "", "not audited", link)
    if row.get("gap") is None:
        few = (row.get("n_tested") or 0) < 2
        tip = f"not tested: {'too few subgroups of sufficient size' if few else 'no operating threshold'}"
        return QCell(formatting.NONE, 0, "insufficient_evidence", tip, link)
    q = row.get("q_value")
    shade = 0 if q is None else 4 if q < 0.001 else 3 if q < 0.01 else 2 if q < 0.05 else 1 if q < 0.2 else 0
    verdict = row.get("verdict") or ""
    tip = (
        f"gap {formatting.spread(metric, row['gap'])}, if equal about {formatting.spread(metric, row['null_expected_gap'])}; "
        f"{formatting.tests_text(row)}; "
        f"{sentences.verdict_title(verdict)}"
    )
    return QCell(formatting.p_number(q), shade, verdict, tip, link)


def explore_link(encoder: str, task: str, attribute: str = "") -> str:
    """Return the part of the page's address that chooses what Explore shows."""
    return "#" + urlencode({"encoder": encoder, "task": task} | ({"attribute": attribute} if attribute else {}))

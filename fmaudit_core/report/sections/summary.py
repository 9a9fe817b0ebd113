"""The executive summary: one screen on the whole audit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.common.vocabulary import THRESHOLD_GIVEN
from fmaudit_core.fairness import sentences
from fmaudit_core.report.index.score_set_index import Key, Row, ScoreSetIndex
from fmaudit_core.report.sections.findings import FindingView, main_findings
from fmaudit_core.report.sections.subgroups import WarningView, gap_view, warning_view

_VERDICTS: Final = ("disparity", "insufficient_evidence", "within_margin_of_tested", "no_disparity_beyond_margin")


@dataclass(frozen=True)
class MissedView:
    """The share missed of all studies, and the false alarms, as text."""

    value: Estimate
    n_pos: str
    n: str
    alarms: str | None


@dataclass(frozen=True)
class Bar:
    """A subgroup in a forest plot without script; `at`, `left` and `width` are in percent of the axis, None if not shown."""

    title: str
    value: str
    interval: str
    n_pos: str
    at: float | None
    left: float | None
    width: float | None
    tested: bool
    alarm: bool


@dataclass(frozen=True)
class Card:
    """An attribute at a glance: its verdict, and its subgroups."""

    attribute: str
    verdict: str
    verdict_title: str
    short: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class VerdictCount:
    """How many findings of the declared family have a verdict."""

    verdict: str
    title: str
    means: str
    n: int


@dataclass(frozen=True)
class EncoderSummary:
    """An encoder in a line, its finding of each attribute in the order of the config."""

    encoder: str
    missed: MissedView | None
    findings: Sequence[FindingView | None]


@dataclass(frozen=True)
class ModelWarning:
    """A warning about the primary model of an encoder on a task."""

    encoder: str
    task: str
    warning: WarningView


@dataclass(frozen=True)
class Summary:
    """The executive summary.

    Parameters
    ----------
    task, whom, scope : the main task, the patients a model can miss, and the metric in words
    encoder, missed, given, cards, top
        The first encoder, whose threshold may be `given` by the user; cards reach from 0 to `top`.
    by_encoder : every encoder under audit, if there are several
    elsewhere : a sentence on the other tasks
    """

    task: str
    whom: str
    headline: str
    counts: Sequence[VerdictCount]
    encoder: str
    by_encoder: Sequence[EncoderSummary]
    elsewhere: str
    warnings: Sequence[ModelWarning]
    missed: MissedView | None
    given: bool
    top: str
    scope: str
    cards: Sequence[Card]


def executive_summary(index: ScoreSetIndex) -> Summary:
    """Return the executive summary, one screen: who is missed, how often, how certain it is."""
    task, metric = index.main_task, index.primary_metric
    declared = [finding for finding in main_findings(index) if finding.declared]
    counted = {verdict: sum(finding.verdict == verdict for finding in declared) for verdict in _VERDICTS}
    shown = next((key for one in index.encoders if (key := index.main_key(one["name"], task))), None)
    highs = [row["ci_high"] for row in index.subgroups(shown, metric) if row["ci_high"] is not None] if shown else []
    top = 1.0 if metric == "auroc" else min(1.0, math.ceil(20 * max([0.2, *highs])) / 20)
    return Summary(
        task=formatting.task_title(task, index.task_titles),
        whom=sentences.among_whom(task, index.task_titles),
        headline=_headline(counted, len(declared), index.audit.fairness.margin, metric),
        counts=[VerdictCount(verdict, *sentences.VERDICTS[verdict], n) for verdict, n in counted.items()],
        encoder=index.encoder_title(shown.encoder) if shown else "",
        by_encoder=_by_encoder(index, declared),
        elsewhere=_elsewhere(index),
        warnings=_warnings(index),
        missed=_missed(index, shown) if shown else None,
        given=shown is not None and index.threshold_source(shown) == THRESHOLD_GIVEN,
        top=formatting.level(metric, top, rounded=True),
        scope=f"{formatting.task_title(task, index.task_titles)}, {formatting.metric_spelled(metric)}",
        cards=[_card(index, shown, attribute, top) for attribute in index.attributes(shown)] if shown else [],
    )


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


def _by_encoder(index: ScoreSetIndex, declared: list[FindingView]) -> list[EncoderSummary]:
    """Return every encoder under audit in a line, where there are several: the cards show the first."""
    names = list(dict.fromkeys(finding.name for finding in declared))
    if len(names) < 2:
        return []
    out = []
    for name in names:
        key = index.main_key(name, index.main_task)
        own = {finding.attribute: finding for finding in declared if finding.name == name}
        findings = [own.get(formatting.attribute_title(attribute)) for attribute in index.audit.attributes]
        out.append(EncoderSummary(index.named(name), _missed(index, key) if key else None, findings))
    return out


def _warnings(index: ScoreSetIndex) -> list[ModelWarning]:
    """Return warnings about the models that are primary for their encoders, main task first."""
    tasks = sorted(index.tasks, key=lambda task: task != index.main_task)
    keys = [key for task in tasks for one in index.encoders if (key := index.main_key(one["name"], task))]
    return [
        ModelWarning(index.named(key.encoder), index.outcome(key), warning_view(row))
        for key in keys
        for row in index.warnings(key)
    ]


def _elsewhere(index: ScoreSetIndex) -> str:
    """Return a sentence on the other outcomes of the encoders under audit; empty if there is none."""
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


def _missed(index: ScoreSetIndex, key: Key) -> MissedView | None:
    row = index.overall(key, "udr")
    alarms = index.overall(key, "fpr")
    if row is None or row["value"] is None:
        return None
    return MissedView(
        value=formatting.estimate("udr", row),
        n_pos=formatting.count(row["n_pos"]),
        n=formatting.count(row["n"]),
        alarms=formatting.percent(alarms["value"]) if alarms else None,
    )


def _card(index: ScoreSetIndex, key: Key, attribute: str, top: float) -> Card:
    """Return one attribute at a glance: verdict, who is missed most, and a small forest plot without script."""
    metric = index.primary_metric
    finding = index.finding(key, attribute, metric)
    rows = index.subgroups(key, metric, attribute)
    view = gap_view(index, key, finding) if finding else None
    bars = [_bar(metric, row, top, finding) for row in rows]
    withheld = [bar for bar in bars if bar.at is None]
    # those that are not shown share a line
    shared = [replace(withheld[0], title=", ".join(bar.title for bar in withheld))] if withheld else []
    return Card(
        verdict=view.verdict if view else "",
        verdict_title=view.verdict_title if view else sentences.verdict_title(None),
        short=view.short if view else "",
        attribute=formatting.attribute_title(attribute),
        bars=[*(bar for bar in bars if bar.at is not None), *shared],
    )


def _bar(metric: str, row: Row, top: float, finding: Row | None) -> Bar:
    rounded = row["counts"] == "rounded"
    drawn = row["value"] is not None and row["ci_low"] is not None and row["ci_high"] is not None
    disparity = finding is not None and finding.get("verdict") == "disparity"
    return Bar(
        title=vocabulary.subgroup_title(row["subgroup"]),
        value=formatting.level(metric, row["value"], rounded=rounded) if drawn else "too few",
        interval=formatting.interval(metric, row["ci_low"], row["ci_high"], rounded=rounded),
        n_pos=formatting.count(row["n_pos"], row["counts"]),
        at=round(100 * row["value"] / top, 2) if drawn else None,
        left=round(100 * row["ci_low"] / top, 2) if drawn else None,
        width=round(100 * (row["ci_high"] - row["ci_low"]) / top, 2) if drawn else None,
        tested=row["status"] == "tested",
        alarm=disparity and finding is not None and finding["worst_subgroup"] == row["subgroup"],
    )

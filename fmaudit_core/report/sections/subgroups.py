"""One encoder on one task, as the page shows it: its subgroups, its gaps, its figures. The whole page: `report/page.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.common.vocabulary import OVERALL, VARIANT
from fmaudit_core.fairness import sentences
from fmaudit_core.fairness.score_warnings import concerned
from fmaudit_core.fairness.small_groups import NO_THRESHOLD
from fmaudit_core.report.figures import base as figures
from fmaudit_core.report.index.score_set_index import SHOWN_METRICS, Key, Row, ScoreSetIndex
from fmaudit_core.report.sections.calibration import (
    CalibrationSection,
    CrossView,
    calibration_figure,
    calibration_view,
    cross_views,
    gives_probabilities,
)
from fmaudit_core.report.sections.intersections import IntersectionsView, intersections_figure, intersections_view
from fmaudit_core.report.text.titles import variant_title


def cell_id(index: ScoreSetIndex, key: Key) -> str:
    """Return the id of a score set's tables and figures on the page."""
    return f"{key.encoder}|{key.task}|{index.variant_index(key)}"


@dataclass(frozen=True)
class MetricView:
    """A metric of a subgroup as text: its value, its interval, and the difference that its own test detects."""

    metric: str
    value: str
    interval: str
    mde: str
    p_rest: str


@dataclass(frozen=True)
class SubgroupView:
    """A line of the table of subgroups; without a number if `withheld`."""

    title: str
    status: str
    withheld: bool
    n: str
    n_pos: str
    metrics: Sequence[MetricView]


@dataclass(frozen=True)
class SubgroupsView:
    """The subgroups of an attribute."""

    attribute: str
    rows: Sequence[SubgroupView]


def _subgroup_view(index: ScoreSetIndex, key: Key, attribute: str, subgroup: str) -> SubgroupView:
    rows = {metric: _metric_row(index, key, metric, attribute, subgroup) for metric in SHOWN_METRICS}
    # a rate without a threshold has no count; AUROC has
    first = next((row for row in rows.values() if row and row["status"] != NO_THRESHOLD), None) or {}
    counts = first.get("counts", "exact")
    return SubgroupView(
        title=formatting.group_title(attribute, subgroup),
        status=first.get("status", ""),
        withheld=counts == "withheld",
        n=formatting.count(first.get("n"), counts),
        n_pos=formatting.count(first.get("n_pos"), counts),
        metrics=[_metric_view(metric, row) for metric, row in rows.items()],
    )


def _metric_row(index: ScoreSetIndex, key: Key, metric: str, attribute: str, subgroup: str) -> Row | None:
    if attribute == OVERALL:
        return index.overall(key, metric)
    return index.subgroup(key, metric, attribute, subgroup)


def _metric_view(metric: str, row: Row | None) -> MetricView:
    row = row or {}
    rounded = row.get("counts") == "rounded"
    return MetricView(
        metric=metric,
        value=formatting.level(metric, row.get("value"), rounded=rounded),
        interval=formatting.interval(metric, row.get("ci_low"), row.get("ci_high"), rounded=rounded),
        mde=formatting.spread(metric, row.get("mde"), rounded=rounded),
        p_rest=formatting.p_number(row.get("p_rest_adjusted")),
    )


@dataclass(frozen=True)
class GapView:
    """A gap as text: who fares worst and best, the gap next to that of equal subgroups, its tests, and what they show.

    Parameters
    ----------
    verdict, verdict_title : the verdict as a key and as a title
    worst, best : titles of the subgroups, with `_value` and the tooltip `_tip`
    null : the gap of subgroups with the same true value
    sd : the standard deviation between subgroups beyond sampling
    p_value, p_gap : exploratory
    p_adjusted, q_value : corrected over the declared family, and over every comparison
    sentence, short : the finding in full and in brief
    warnings : messages about this attribute and metric
    """

    encoder: str
    attribute: str
    metric: str
    verdict: str
    verdict_title: str
    worst: str
    best: str
    worst_value: str
    best_value: str
    worst_tip: str
    best_tip: str
    gap: str
    null: str
    sd: Estimate
    p_value: str
    p_gap: str
    p_adjusted: str
    q_value: str
    tip: str
    sentence: str
    short: str
    warnings: Sequence[str]


def gap_view(index: ScoreSetIndex, key: Key, row: Row) -> GapView:
    """Return one finding in the page's words."""
    metric, attribute = row["metric"], row["attribute"]
    margin = index.audit.fairness.margin
    subgroups = {one["subgroup"]: one for one in index.subgroups(key, metric, attribute)}
    worst, best = (subgroups.get(row[f"{end}_subgroup"]) for end in ("worst", "best"))
    rounded = worst is not None and worst["counts"] == "rounded"
    text = sentences.gap_text(row, subgroups)
    withheld = index.withheld_because(key, metric)
    unsaid = None if withheld is None else sentences.withheld_because(withheld)
    return GapView(
        encoder=index.encoder_title(key.encoder),
        attribute=formatting.attribute_title(attribute),
        metric=formatting.metric_title(metric),
        verdict=text.verdict,
        verdict_title=sentences.verdict_title(text.verdict),
        worst=text.worst or formatting.NONE,
        best=text.best or formatting.NONE,
        worst_value=text.worst_value or "",
        best_value=text.best_value or "",
        worst_tip=_tip(metric, worst),
        best_tip=_tip(metric, best),
        gap=text.gap,
        null=text.null,
        sd=Estimate(
            formatting.spread(metric, row.get("corrected_sd"), rounded=rounded),
            formatting.difference_interval(
                metric, row.get("corrected_sd_low"), row.get("corrected_sd_high"), rounded=rounded
            ),
        ),
        p_value=formatting.p_number(row["p_value"]),
        p_gap=formatting.p_number(row["p_gap"]),
        p_adjusted=formatting.p_number(row.get("p_adjusted")),
        q_value=formatting.p_number(row.get("q_value")),
        tip=_gap_tip(row),
        sentence=unsaid or sentences.in_full(text, sentences.among_whom(key.task, index.task_titles), margin),
        short=unsaid or sentences.in_short(text, margin),
        warnings=_warnings_beside(index, key, row),
    )


@dataclass(frozen=True)
class WarningView:
    """A warning about a score set, and `whom` it is about: all studies, or an attribute."""

    whom: str
    message: str


def warning_view(row: Row) -> WarningView:
    """Return one warning in the page's words."""
    whom = (
        formatting.group_title(OVERALL, "")
        if row["attribute"] == OVERALL
        else formatting.attribute_title(row["attribute"])
    )
    return WarningView(whom, row["message"])


@dataclass(frozen=True)
class CellView:
    """Everything the page shows of one score set; `id` joins its tables with its figures."""

    id: str
    title: str
    variant: str
    overall: SubgroupView
    groups: Sequence[SubgroupsView]
    gaps: Sequence[GapView]
    calibration: CalibrationSection | None
    cross: Sequence[CrossView]
    warnings: Sequence[WarningView]
    intersections: IntersectionsView | None


def cell_view(index: ScoreSetIndex, key: Key) -> CellView:
    """Return everything the page shows of one score set."""
    groups = [
        SubgroupsView(
            formatting.attribute_title(attribute),
            [_subgroup_view(index, key, attribute, row["subgroup"]) for row in index.subgroups(key, "udr", attribute)],
        )
        for attribute in index.attributes(key)
    ]
    return CellView(
        id=cell_id(index, key),
        title=f"{index.encoder_title(key.encoder)} · {index.outcome(key)}",
        variant=variant_title(dict(zip(VARIANT, key.variant, strict=True))),
        overall=_subgroup_view(index, key, OVERALL, "all"),
        groups=groups,
        gaps=[gap_view(index, key, row) for row in index.findings(key)],
        calibration=calibration_view(index, key),
        cross=cross_views(index, key),
        warnings=[warning_view(row) for row in index.warnings(key)],
        intersections=intersections_view(index, key),
    )


def _warnings_beside(index: ScoreSetIndex, key: Key, finding: Row) -> list[str]:
    """Return warnings about the very attribute and metric of a finding; those about all studies stand at the top."""
    rows = [row for row in index.warnings(key) if row["attribute"] == finding["attribute"]]
    return [row["message"] for row in rows if finding["metric"] in concerned(row)]


def _tip(metric: str, row: Row | None) -> str:
    """Return the tooltip of a number: its interval and counts."""
    if row is None or row["counts"] == "withheld":
        return ""
    rounded = row["counts"] == "rounded"
    return (
        f"interval {formatting.interval(metric, row['ci_low'], row['ci_high'], rounded=rounded)}; "
        f"n {formatting.count(row['n'], row['counts'])}, {formatting.count(row['n_pos'], row['counts'])} with the outcome; "
        f"detectable by its own test {formatting.spread(metric, row['mde'], rounded=rounded)}"
    )


def _gap_tip(row: Row) -> str:
    return f"if equal, about {formatting.spread(row['metric'], row['null_expected_gap'])}; {formatting.tests_text(row)}"


def cell_figures(index: ScoreSetIndex, key: Key) -> dict[str, Any]:
    """Return figures of one score set, by the slot of the page they go into."""
    return {
        "udr": _forest(index, key, "udr") if index.has_threshold(key) else None,
        "auroc": _forest(index, key, "auroc"),
        "gaps": _gaps(index, key),
        "calibration": calibration_figure(index, key),
        "intersections": intersections_figure(index, key),
        "sweeps": _sweeps(index, key),
    }


def _sweeps(index: ScoreSetIndex, key: Key) -> list[Row]:
    """Return a figure per attribute that has curves."""
    curves = {attribute: _curves(index, key, attribute) for attribute in index.attributes(key)}
    most = max((len(one) for one in curves.values()), default=0)
    probabilities = gives_probabilities(index, key)
    return [
        {
            "title": formatting.attribute_title(attribute),
            "figure": figures.sweep(one, index.threshold(key), most, probabilities=probabilities),
        }
        for attribute, one in curves.items()
        if one
    ]


def _forest(index: ScoreSetIndex, key: Key, metric: str) -> figures.Spec:
    overall = index.overall(key, metric)
    rows = []
    for row in index.subgroups(key, metric):
        finding = index.finding(key, row["attribute"], metric) or {}
        disparity = finding.get("verdict") == "disparity"
        title = vocabulary.subgroup_title(row["subgroup"])
        rows.append(
            {
                "attribute": figures.tick_label(formatting.attribute_title(row["attribute"])),
                "of": formatting.attribute_title(row["attribute"]),
                "label": figures.tick_label(title),
                "value": row["value"],
                "low": row["ci_low"],
                "high": row["ci_high"],
                "mde": row["mde"],
                "status": row["status"],
                "alarm": disparity and finding.get("worst_subgroup") == row["subgroup"],
                "hover": _hover(title, metric, row, finding),
                "aside": _aside(metric, row),
            }
        )
    title = "positives · detectable" if metric == "udr" else "studies · detectable"
    return figures.forest(rows, metric, overall["value"] if overall else None, title)


def _aside(metric: str, row: Row) -> str:
    if row["counts"] == "withheld":
        return "too few to show"
    n = formatting.count(row["n_pos" if metric == "udr" else "n"], row["counts"])
    return (
        f"{n} · {formatting.spread(metric, row['mde'], rounded=row['counts'] == 'rounded')}"
        if row["mde"] is not None
        else n
    )


def _hover(title: str, metric: str, row: Row, finding: Row) -> str:
    if row["counts"] == "withheld":
        return ""
    rounded = row["counts"] == "rounded"
    lines = [
        f"<b>{figures.plain(title)}</b>",
        f"{formatting.metric_title(metric)} {formatting.level(metric, row['value'], rounded=rounded)} "
        f"({formatting.interval(metric, row['ci_low'], row['ci_high'], rounded=rounded)})",
        f"{formatting.count(row['n'], row['counts'])} studies, {formatting.count(row['n_pos'], row['counts'])} with the outcome",
        f"detectable by its own test: {formatting.spread(metric, row['mde'], rounded=rounded)} from the rest",
    ]
    if row.get("p_rest_adjusted") is not None:
        lines.append(f"against the rest: {formatting.p_text(row['p_rest_adjusted'], 'adjusted p')}")
    if finding.get("gap") is not None:
        attribute = figures.plain(formatting.attribute_title(row["attribute"]))
        lines.append(f"{attribute}: {formatting.tests_text(finding)}")
    return "<br>".join(lines)


def _gaps(index: ScoreSetIndex, key: Key) -> figures.Spec:
    metrics = {"udr": "missed", "fpr": "false alarms", "auroc": "AUROC", "tpr": "found"}
    rows = [
        {
            "label": f"{figures.plain(formatting.attribute_title(row['attribute']))}<br>"
            f"<sup>{metrics.get(row['metric'], row['metric'])}</sup>",
            "of": formatting.attribute_title(row["attribute"]),
            "gap": row["gap"],
            "null": row["null_expected_gap"],
            "null_p95": row.get("null_gap_95"),
            "verdict": row.get("verdict"),
            "hover": f"<b>{formatting.metric_title(row['metric'])}</b><br>gap {formatting.spread(row['metric'], row['gap'])}<br>"
            + _gap_tip(row).replace("; ", "<br>"),
            "aside": formatting.p_text(row.get("q_value"), "q") if row["gap"] is not None else "not tested",
        }
        for row in index.findings(key)
    ]
    return figures.gaps(rows, index.audit.fairness.margin)


def _curves(index: ScoreSetIndex, key: Key, attribute: str) -> list[Row]:
    by_subgroup: dict[str, list[Row]] = {}
    for row in index.curves(key, attribute):
        by_subgroup.setdefault(row["subgroup"], []).append(row)
    finding = index.finding(key, attribute, "udr") or {}
    ends = (finding.get("best_subgroup"), finding.get("worst_subgroup"))
    return [
        {
            "banded": len(by_subgroup) < 3 or subgroup in ends,
            "label": figures.plain(vocabulary.subgroup_title(subgroup)),
            "threshold": [round(row["threshold"], 5) for row in rows],
            "udr": [_complement(row["tpr"]) for row in rows],
            "fpr": [row["fpr"] for row in rows],
            "low": [_complement(row["band_high"]) for row in rows],
            "high": [_complement(row["band_low"]) for row in rows],
        }
        for subgroup, rows in sorted(by_subgroup.items())
    ]


def _complement(value: float | None) -> float | None:
    return None if value is None else 1.0 - value

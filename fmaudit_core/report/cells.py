"""One encoder on one task, as the page shows it: its subgroups, its gaps, its figures. The whole page: `page.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from fmaudit_core.config import Audit
from fmaudit_core.report import figures, wording
from fmaudit_core.report.disclosure import Disclosed
from fmaudit_core.report.inputs import OVERALL, SCORE_SET, VARIANT, ReportInput
from fmaudit_core.vocabulary import DIAGNOSIS_TASK

Row = dict[str, Any]

#: metrics of a cell's table, in the order of its columns
SHOWN_METRICS: Final = ("udr", "fpr", "auroc")


@dataclass(frozen=True)
class Key:
    """A score set."""

    encoder: str
    task: str
    probe: str
    modality: str
    pooling: str
    strategy: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Key:
        """The score set a table's row belongs to."""
        return cls(*(str(row[name]) for name in SCORE_SET))

    @property
    def variant(self) -> tuple[str, ...]:
        """What is left beside encoder and task."""
        return (self.probe, self.modality, self.pooling, self.strategy)


class Book:
    """The disclosed tables, looked up by score set; rows of other columns never get in.

    Parameters
    ----------
    inputs : ReportInput
    tables : Disclosed
    """

    def __init__(self, inputs: ReportInput, tables: Disclosed) -> None:
        self.audit: Audit = inputs.audit
        self.encoders: list[Row] = _encoders(inputs)
        self._titles = {one["name"]: one["title"] for one in self.encoders}
        self._metrics = _by_key(tables.metrics)
        self._sweeps = _by_key(tables.sweep)
        self._findings = _by_key(_all_findings(tables))
        variants = sorted({key.variant for key in self._metrics}, key=self._preference)
        self.variants = [dict(zip(VARIANT, variant, strict=True)) for variant in variants]
        order = {name: at for at, name in enumerate(self._titles)}
        tasks = self.tasks
        self.keys = sorted(
            self._metrics, key=lambda key: (order[key.encoder], tasks.index(key.task), variants.index(key.variant))
        )

    @property
    def tasks(self) -> list[str]:
        """Tasks with results, in the order of the config."""
        found = {key.task for key in self._metrics}
        return [task for task in self.audit.tasks if task in found] + sorted(found - set(self.audit.tasks))

    @property
    def main_task(self) -> str:
        """The task the findings speak of: the diagnosis where it was audited."""
        return DIAGNOSIS_TASK if DIAGNOSIS_TASK in self.tasks else next(iter(self.tasks), DIAGNOSIS_TASK)

    def encoder_title(self, name: str) -> str:
        """Title of an encoder."""
        return str(self._titles.get(name, name))

    def main_key(self, encoder: str, task: str) -> Key | None:
        """The score set that speaks for an encoder on a task: the primary pooling, imaging alone, unmitigated."""
        keys = [key for key in self._metrics if key.encoder == encoder and key.task == task]
        return min(keys, key=lambda key: self._preference(key.variant), default=None)

    def variant_index(self, key: Key) -> int:
        """Place of a score set's variant among `variants`."""
        return [tuple(one.values()) for one in self.variants].index(key.variant)

    @property
    def primary_metric(self) -> str:
        """The metric the findings speak of; the share missed is how a configured TPR is told."""
        metric = self.audit.fairness.primary_metric
        return "udr" if metric == "tpr" else metric

    def overall(self, key: Key, metric: str) -> Row | None:
        """Metric of all studies together."""
        rows = self._metrics.get(key, [])
        return next((row for row in rows if row["attribute"] == OVERALL and row["metric"] == metric), None)

    def threshold(self, key: Key) -> float | None:
        """Operating threshold."""
        return next((row["threshold"] for row in self._metrics.get(key, []) if row.get("threshold") is not None), None)

    def findings(self, key: Key) -> list[Row]:
        """Findings of a score set, in order of attribute and metric."""
        metrics = [self.primary_metric, *SHOWN_METRICS]
        rows = self._findings.get(key, [])
        return sorted(
            rows, key=lambda row: (self._rank(row["attribute"]), _index(metrics, row["metric"]), row["metric"])
        )

    def finding(self, key: Key, attribute: str, metric: str) -> Row | None:
        """One finding."""
        rows = self._findings.get(key, [])
        return next((row for row in rows if row["attribute"] == attribute and row["metric"] == metric), None)

    def subgroups(self, key: Key, metric: str, attribute: str | None = None) -> list[Row]:
        """Rows of one metric, attributes in the order of the config, subgroups by name with the unrecorded last."""
        rows = [
            row
            for row in self._metrics.get(key, [])
            if row["metric"] == metric and row["attribute"] != OVERALL and attribute in (None, row["attribute"])
        ]
        return sorted(
            rows, key=lambda row: (self._rank(row["attribute"]), row["subgroup"] == "unknown", row["subgroup"])
        )

    def subgroup(self, key: Key, metric: str, attribute: str, subgroup: str | None) -> Row | None:
        """One subgroup's row."""
        rows = self.subgroups(key, metric, attribute)
        return next((row for row in rows if row["subgroup"] == subgroup), None)

    def curves(self, key: Key, attribute: str) -> list[Row]:
        """Rows of the sweep for one attribute."""
        return [row for row in self._sweeps.get(key, []) if row["attribute"] == attribute]

    def attributes(self, key: Key) -> list[str]:
        """Attributes of a score set, in the order of the config."""
        found = {row["attribute"] for row in self._metrics.get(key, [])} - {OVERALL}
        return sorted(found, key=self._rank)

    def _rank(self, attribute: str) -> tuple[int, str]:
        return _index(self.audit.attributes, attribute), attribute

    def _preference(self, variant: tuple[str, ...]) -> tuple[bool, bool, bool, bool, tuple[str, ...]]:
        probe, modality, pooling, strategy = variant
        primary = self.audit.fairness.primary_pooling
        return strategy != "none", modality != "ct", pooling != primary, probe != "logistic", variant


def _index(names: Sequence[str], name: str) -> int:
    return list(names).index(name) if name in names else len(names)


def _by_key(frame: pl.DataFrame) -> dict[Key, list[Row]]:
    out: dict[Key, list[Row]] = {}
    for row in frame.iter_rows(named=True):
        out.setdefault(Key.of(row), []).append(row)
    return out


def _all_findings(tables: Disclosed) -> pl.DataFrame:
    """Findings, and beside them the gaps no finding speaks of."""
    on = [*SCORE_SET, "attribute", "metric"]
    further = [name for name in tables.gaps.columns if name in on or name not in tables.findings.columns]
    told = tables.findings.join(tables.gaps.select(further), on=on, how="left", maintain_order="left")
    untold = tables.gaps.join(tables.findings.select(on), on=on, how="anti", maintain_order="left")
    return pl.concat([told, untold], how="diagonal_relaxed")


def _encoders(inputs: ReportInput) -> list[Row]:
    """Encoders as given, then those only the tables know; controls last."""
    given = [{"control": False, **one, "title": one.get("title") or one["name"]} for one in inputs.encoders]
    names = {one["name"] for one in given}
    found = inputs.subgroup_metrics.get_column("encoder").unique().sort().to_list()
    given += [{"name": name, "title": name, "control": False} for name in found if name not in names]
    return sorted(given, key=lambda one: bool(one["control"]))


# ---------------------------------------------------------------------------------------------------------------------


def cell_view(book: Book, key: Key) -> Row:
    """Everything the page shows of one score set."""
    return {
        "id": f"{key.encoder}|{key.task}|{book.variant_index(key)}",
        "title": f"{book.encoder_title(key.encoder)} · {wording.task_title(key.task)}",
        "variant": wording.variant_title(dict(zip(VARIANT, key.variant, strict=True))),
        "overall": _subgroup_view(book, key, OVERALL, "all"),
        "groups": [
            {
                "attribute": wording.attribute_title(attribute),
                "rows": [
                    _subgroup_view(book, key, attribute, row["subgroup"])
                    for row in book.subgroups(key, "udr", attribute)
                ],
            }
            for attribute in book.attributes(key)
        ],
        "gaps": [gap_view(book, key, row) for row in book.findings(key)],
    }


def _subgroup_view(book: Book, key: Key, attribute: str, subgroup: str) -> Row:
    rows = {metric: _metric_row(book, key, metric, attribute, subgroup) for metric in SHOWN_METRICS}
    first = next((row for row in rows.values() if row), None) or {}
    counts = first.get("counts", "exact")
    return {
        "title": "All studies" if attribute == OVERALL else wording.subgroup_title(subgroup),
        "status": first.get("status", ""),
        "withheld": counts == "withheld",
        "n": wording.count(first.get("n"), counts),
        "n_pos": wording.count(first.get("n_pos"), counts),
        "metrics": [_metric_view(metric, row) for metric, row in rows.items()],
    }


def _metric_row(book: Book, key: Key, metric: str, attribute: str, subgroup: str) -> Row | None:
    if attribute == OVERALL:
        return book.overall(key, metric)
    return book.subgroup(key, metric, attribute, subgroup)


def _metric_view(metric: str, row: Row | None) -> Row:
    row = row or {}
    rounded = row.get("counts") == "rounded"
    return {
        "metric": metric,
        "value": wording.level(metric, row.get("value"), rounded=rounded),
        "interval": wording.interval(metric, row.get("ci_low"), row.get("ci_high"), rounded=rounded),
        "mde": wording.spread(metric, row.get("mde"), rounded=rounded),
        "p_rest": wording.p_number(row.get("p_rest_adjusted")),
    }


def gap_view(book: Book, key: Key, row: Row) -> Row:
    """One finding in the words of the page."""
    metric, attribute = row["metric"], row["attribute"]
    margin = book.audit.fairness.margin
    worst, best = (book.subgroup(key, metric, attribute, row[f"{end}_subgroup"]) for end in ("worst", "best"))
    rounded = worst is not None and worst["counts"] == "rounded"
    said = {
        **row,
        "worst": wording.subgroup_title(row["worst_subgroup"]) if row["worst_subgroup"] else None,
        "best": wording.subgroup_title(row["best_subgroup"]) if row["best_subgroup"] else None,
        "worst_text": _level_text(metric, worst),
        "best_text": _level_text(metric, best),
        "gap_text": wording.spread(metric, row["gap"], rounded=rounded),
        "null_text": wording.spread(metric, row["null_expected_gap"], rounded=rounded),
    }
    return {
        "encoder": book.encoder_title(key.encoder),
        "attribute": wording.attribute_title(attribute),
        "metric": wording.metric_title(metric),
        "verdict": row.get("verdict") or "",
        "verdict_title": wording.verdict_title(row.get("verdict")),
        "worst": said["worst"] or wording.NONE,
        "best": said["best"] or wording.NONE,
        "worst_value": said["worst_text"] or "",
        "best_value": said["best_text"] or "",
        "worst_tip": _tip(metric, worst),
        "best_tip": _tip(metric, best),
        "gap": said["gap_text"],
        "null": said["null_text"],
        "p_value": wording.p_number(row["p_value"]),
        "p_gap": wording.p_number(row["p_gap"]),
        "p_adjusted": wording.p_number(row.get("p_adjusted")),
        "q_value": wording.p_number(row.get("q_value")),
        "tip": _gap_tip(row),
        "sentence": wording.summary_of(
            said, key.task, margin, wording.spread(metric, worst["mde"] if worst else None, rounded=rounded)
        ),
    }


def _level_text(metric: str, row: Row | None) -> str | None:
    if row is None or row["value"] is None:
        return None
    return wording.level(metric, row["value"], rounded=row["counts"] == "rounded")


def _tip(metric: str, row: Row | None) -> str:
    """What a number hovers: its interval and counts."""
    if row is None or row["counts"] == "withheld":
        return ""
    rounded = row["counts"] == "rounded"
    return (
        f"interval {wording.interval(metric, row['ci_low'], row['ci_high'], rounded=rounded)}; "
        f"n {wording.count(row['n'], row['counts'])}, {wording.count(row['n_pos'], row['counts'])} with the outcome; "
        f"smallest difference that would have shown {wording.spread(metric, row['mde'], rounded=rounded)}"
    )


def _gap_tip(row: Row) -> str:
    parts = [
        f"by chance alone {wording.spread(row['metric'], row['null_expected_gap'])}",
        wording.p_text(row["p_value"]),
        wording.p_text(row.get("p_adjusted"), "adjusted p"),
        wording.p_text(row.get("q_value"), "q"),
    ]
    return "; ".join(parts)


# ---------------------------------------------------------------------------------------------------------------------


def cell_figures(book: Book, key: Key) -> dict[str, Any]:
    """Figures of one score set, by the slot of the page they go into."""
    return {
        "udr": _forest(book, key, "udr"),
        "auroc": _forest(book, key, "auroc"),
        "gaps": _gaps(book, key),
        "sweeps": [
            {"title": wording.attribute_title(attribute), "figure": _sweep(book, key, attribute)}
            for attribute in book.attributes(key)
            if book.curves(key, attribute)
        ],
    }


def _forest(book: Book, key: Key, metric: str) -> figures.Spec:
    overall = book.overall(key, metric)
    rows = []
    for row in book.subgroups(key, metric):
        finding = book.finding(key, row["attribute"], metric) or {}
        disparity = finding.get("verdict") == "disparity"
        title = wording.subgroup_title(row["subgroup"])
        rows.append(
            {
                "attribute": wording.attribute_title(row["attribute"]),
                "label": title,
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
    title = "positive · visible" if metric == "udr" else "studies · visible"
    return figures.forest(rows, metric, overall["value"] if overall else None, title)


def _aside(metric: str, row: Row) -> str:
    if row["counts"] == "withheld":
        return "too few to show"
    n = wording.count(row["n_pos" if metric == "udr" else "n"], row["counts"])
    return (
        f"{n} · {wording.spread(metric, row['mde'], rounded=row['counts'] == 'rounded')}"
        if row["mde"] is not None
        else n
    )


def _hover(title: str, metric: str, row: Row, finding: Row) -> str:
    if row["counts"] == "withheld":
        return ""
    rounded = row["counts"] == "rounded"
    lines = [
        f"<b>{title}</b>",
        f"{wording.metric_title(metric)} {wording.level(metric, row['value'], rounded=rounded)} "
        f"({wording.interval(metric, row['ci_low'], row['ci_high'], rounded=rounded)})",
        f"{wording.count(row['n'], row['counts'])} studies, {wording.count(row['n_pos'], row['counts'])} with the outcome",
        f"would have shown: {wording.spread(metric, row['mde'], rounded=rounded)} or more from the rest",
    ]
    if row.get("p_rest_adjusted") is not None:
        lines.append(f"against the rest: {wording.p_text(row['p_rest_adjusted'], 'adjusted p')}")
    if finding.get("gap") is not None:
        lines.append(
            f"{wording.attribute_title(row['attribute'])}: {wording.p_text(finding.get('p_adjusted'), 'adjusted p')}, "
            f"{wording.p_text(finding.get('q_value'), 'q')}"
        )
    return "<br>".join(lines)


def _gaps(book: Book, key: Key) -> figures.Spec:
    metrics = {"udr": "missed", "fpr": "false alarms", "auroc": "AUROC", "tpr": "found"}
    rows = [
        {
            "label": f"{wording.attribute_title(row['attribute'])}<br><sup>{metrics.get(row['metric'], row['metric'])}</sup>",
            "gap": row["gap"],
            "null": row["null_expected_gap"],
            "null_p95": row.get("null_gap_95"),
            "verdict": row.get("verdict"),
            "hover": f"<b>{wording.metric_title(row['metric'])}</b><br>gap {wording.spread(row['metric'], row['gap'])}<br>"
            + _gap_tip(row).replace("; ", "<br>"),
            "aside": wording.p_text(row["p_value"]) if row["gap"] is not None else "not tested",
        }
        for row in book.findings(key)
    ]
    return figures.gaps(rows, book.audit.fairness.margin)


def _sweep(book: Book, key: Key, attribute: str) -> figures.Spec:
    by_subgroup: dict[str, list[Row]] = {}
    for row in book.curves(key, attribute):
        by_subgroup.setdefault(row["subgroup"], []).append(row)
    finding = book.finding(key, attribute, "udr") or {}
    ends = (finding.get("best_subgroup"), finding.get("worst_subgroup"))
    curves = [
        {
            "banded": len(by_subgroup) < 3 or subgroup in ends,
            "label": wording.subgroup_title(subgroup),
            "threshold": [round(row["threshold"], 5) for row in rows],
            "udr": [_complement(row["tpr"]) for row in rows],
            "fpr": [row["fpr"] for row in rows],
            "low": [_complement(row["band_high"]) for row in rows],
            "high": [_complement(row["band_low"]) for row in rows],
        }
        for subgroup, rows in sorted(by_subgroup.items())
    ]
    return figures.sweep(curves, book.threshold(key))


def _complement(value: float | None) -> float | None:
    return None if value is None else 1.0 - value

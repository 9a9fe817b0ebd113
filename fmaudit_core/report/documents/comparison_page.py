"""Two audits side by side as a page: first in what they differ, then what changed. How it is found out:
`standalone/compare_audits.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.fairness import sentences
from fmaudit_core.report.text.templating import environment

#: text of a change that was not tested
UNTESTED: Final = "no test without the predictions"


@dataclass(frozen=True)
class Comparison:
    """What two audits show next to one another.

    Parameters
    ----------
    first, second : mapping
        The content of their audit.json; the second is compared with the first.
    differences : sequence of (about, wording)
        In what the audits themselves differ: cohort, settings, software. Empty where in nothing.
    only_first, only_second : sequence of str
        Models that the other audit has not.
    findings : sequence of mappings
        Findings of both, as `first` and `second`.
    rows : sequence of mappings
        All studies and each subgroup: `value`, `previous_value`, `change`; with `p_value` and `q_value` where they were tested.
    no_test : str or None
        Why there is no test.
    """

    first: Mapping[str, Any]
    second: Mapping[str, Any]
    differences: Sequence[tuple[str, str]]
    only_first: Sequence[str]
    only_second: Sequence[str]
    findings: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    no_test: str | None
    alpha: float
    confidence: float

    def significant(self) -> list[Mapping[str, Any]]:
        """Return rows that changed by more than chance explains, corrected over all rows."""
        return [row for row in self.rows if row.get("q_value") is not None and row["q_value"] <= self.alpha]

    def headline(self) -> str:
        """Return the comparison in a sentence."""
        changed = [one for one in self.findings if one["first"]["verdict"] != one["second"]["verdict"]]
        verdicts = f"{len(changed)} of {len(self.findings)} verdicts differ."
        if self.no_test is not None:
            return f"{verdicts} {self.no_test}"
        tested = [row for row in self.rows if row["status"] == "tested" and "p_value" in row]
        n = len(self.significant())
        return f"{n} of {len(tested)} tested groups and metrics changed by more than chance explains. {verdicts}"


def _model(comparison: Comparison, row: Mapping[str, Any]) -> str:
    """Return an encoder by its title as the second audit has it, with the outcome."""
    titles = {
        one["name"]: one.get("title")
        for audit_summary in (comparison.first, comparison.second)
        for one in audit_summary["encoders"]
    }
    task = formatting.task_title(row["task"], comparison.second["config"].get("task_titles", {}))
    return f"{titles.get(row['encoder']) or row['encoder']}, {task}"


def finding_views(comparison: Comparison) -> list[dict[str, str]]:
    """Return verdicts and gaps of both, those whose verdict differs first."""
    ordered = sorted(
        comparison.findings, key=lambda one: one["first"]["verdict"] == one["second"]["verdict"]
    )  # stable: the audit's order within
    return [{"model": _model(comparison, one), **_finding_view(one)} for one in ordered]


def _finding_view(one: Mapping[str, Any]) -> dict[str, str]:
    first, second, metric = one["first"], one["second"], one["metric"]
    return {
        "attribute": formatting.attribute_title(one["attribute"]),
        "metric": formatting.metric_title(metric),
        "gap_before": formatting.spread(metric, first["gap"]),
        "gap_now": formatting.spread(metric, second["gap"]),
        "verdict_before": sentences.verdict_title(first["verdict"]),
        "verdict_now": sentences.verdict_title(second["verdict"]),
        "differs": "differs" if first["verdict"] != second["verdict"] else "",
    }


def row_views(comparison: Comparison) -> list[dict[str, str]]:
    """Return every group and metric: those that changed by more than chance first, then the larger changes."""
    significant = {id(row) for row in comparison.significant()}
    shown = [row for row in comparison.rows if row["change"] is not None]
    withheld = [row for row in comparison.rows if row["change"] is None]
    shown.sort(key=lambda row: (id(row) not in significant, row.get("q_value") is None, -abs(row["change"])))
    return [
        {"model": _model(comparison, row), **_row_view(row, changed=id(row) in significant)}
        for row in [*shown, *withheld]
    ]


def _row_view(row: Mapping[str, Any], *, changed: bool) -> dict[str, str]:
    metric = row["metric"]
    rounded = row["counts"] == "rounded" or bool(row.get("rounded"))
    if row["change"] is None:
        numbers = {"before": "not shown", "now": "not shown", "change": vocabulary.DASH, "interval": ""}
    else:
        numbers = {
            "before": _level(metric, row["previous_value"], row.get("previous_interval"), rounded=rounded),
            "now": _level(metric, row["value"], row.get("interval"), rounded=rounded),
            "change": formatting.difference(metric, row["change"], rounded=rounded),
            "interval": formatting.difference_interval(metric, row["ci_low"], row["ci_high"], rounded=rounded)
            if row["ci_low"] is not None
            else "",
        }
    return {
        "group": formatting.group_label(row["attribute"], row["subgroup"]),
        "metric": formatting.metric_title(metric),
        **numbers,
        "p": formatting.p_number(row.get("p_value")),
        "q": formatting.p_number(row.get("q_value")),
        "verdict": _verdict(row, changed=changed),
        "kind": "changed" if changed else "",
    }


def _verdict(row: Mapping[str, Any], *, changed: bool) -> str:
    if "p_value" not in row:
        return UNTESTED
    if row["status"] != "tested":
        return "too few to test"
    if row["p_value"] is None:  # no study tells the two apart
        return "the same"
    return "changed" if changed else "not shown to have changed"


def _level(metric: str, value: float, interval: tuple[float | None, float | None] | None, *, rounded: bool) -> str:
    wording = formatting.level(metric, value, rounded=rounded)
    if interval is None or None in interval:
        return wording
    return f"{wording} ({formatting.interval(metric, *interval, rounded=rounded)})"


def render_comparison(comparison: Comparison) -> str:
    """Return one HTML document that needs nothing else."""
    return (
        environment()
        .get_template("templates/compare.html.jinja")
        .render(
            comparison=comparison,
            findings=finding_views(comparison),
            rows=row_views(comparison),
            style=files("fmaudit_core.report").joinpath("templates", "page.css").read_text(encoding="utf-8"),
            alpha=f"{comparison.alpha:g}",
            confidence=formatting.percent(comparison.confidence, 0),
        )
    )

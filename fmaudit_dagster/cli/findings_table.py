"""The findings as the terminal shows them. What a report holds: `fmaudit_core/report`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fmaudit_core.common.formatting import attribute_title, task_title
from fmaudit_core.common.vocabulary import OVERALL, SCORE_SET, THRESHOLD_GIVEN
from fmaudit_core.fairness.reaudit import worsenings
from fmaudit_core.fairness.sentences import verdict_title
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.report_layout import JSON, PAGE

_LEAST_WIDTH = 100
_STYLES = {"disparity": "bold red", "insufficient_evidence": "yellow"}


def print_findings(reports: Path) -> None:
    """Print the confirmatory findings of a report's folder and the path of the report.

    Numbers and sentences are the report's: it withholds what would give a suppressed subgroup's counts away.
    """
    page, summary = reports / PAGE, reports / JSON
    if not summary.exists():
        return
    audit = json.loads(summary.read_text(encoding="utf-8"))
    found, titles = audit["findings"], audit["config"].get("task_titles", {})
    confirmatory = [row for row in found if row["confirmatory"]]
    console = Console(width=max(Console().width, _LEAST_WIDTH))
    table = Table(title="Findings of the declared family", title_justify="left")
    for heading in ("Encoder", "Task", "Attribute", "Gap", "If equal", "p adjusted", "Verdict"):
        number = heading in ("Gap", "If equal", "p adjusted")
        # encoders' names often differ in their last letter only: they are kept whole, titles wrap
        table.add_column(heading, justify="right" if number else "left", no_wrap=heading == "Encoder")
    for row in confirmatory:
        table.add_row(
            escape(row["encoder"]),
            escape(task_title(row["task"], titles)),
            escape(attribute_title(row["attribute"])),
            _number(row["gap"], 2),
            _number(row["null_expected_gap"], 2),
            _number(row["p_adjusted"], 4),
            _verdict(row["verdict"]),
        )
    console.print(table)
    _print_warnings(console, audit, titles)
    for row in confirmatory:
        attribute = attribute_title(row["attribute"])
        console.print(f"- {row['encoder']}, {attribute}: {row['sentence']}", markup=False, highlight=False)
    main = {row["task"] for row in confirmatory}
    # a control is a yardstick that nobody deploys
    controls = {one["name"] for one in audit["encoders"] if one.get("control")}
    helping = [row for row in audit["recommendations"] if row["task"] in main and row["encoder"] not in controls]
    if helping:
        console.print("\nWhat would help")
    for row in helping:
        task = task_title(row["task"], titles)
        console.print(f"- {row['encoder']}, {task}: {row['sentence']}", markup=False, highlight=False)
    others = sum(row["verdict"] == "disparity" for row in found if not row["confirmatory"])
    console.print(f"{others} of {len(found) - len(confirmatory)} exploratory comparisons show a disparity as well.")
    click.echo(f"Report: {page}")


def _print_warnings(console: Console, audit: Mapping[str, Any], titles: Mapping[str, str]) -> None:
    """Print the warnings about each encoder's primary models, and that a threshold was given."""
    of_main = {tuple(row[name] for name in SCORE_SET) for row in audit["subgroup_metrics"]}
    if any(row.get("threshold_source") == THRESHOLD_GIVEN for row in audit["subgroup_metrics"]):
        console.print(f"Operating threshold: {audit['operating_threshold']}.", highlight=False)
    rows = audit.get("warnings", [])
    shown = [row for row in rows if tuple(row[name] for name in SCORE_SET) in of_main]
    for row in shown:
        named = [row["encoder"], task_title(row["task"], titles)]
        if row["attribute"] != OVERALL:
            named.append(attribute_title(row["attribute"]))
        console.print(f"[bold yellow]Warning[/]: {escape(', '.join(named))}: {escape(row['message'])}", highlight=False)
    if len(rows) > len(shown):
        console.print(
            f"{len(rows) - len(shown)} more warnings about other models: score_warnings.csv.", highlight=False
        )


def worse_than_before(workspace: Workspace) -> list[str]:
    """Return a sentence for every subgroup that got worse than in the previous audit."""
    if workspace.warehouse.version("audit_changes") is None:
        return []
    return worsenings(workspace.warehouse.read("audit_changes"))


def _verdict(verdict: str) -> str:
    return f"[{_STYLES.get(verdict, 'green')}]{verdict_title(verdict).lower()}[/]"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"

"""Two audits side by side as the terminal shows them. What a comparison is: `fmaudit_core/standalone/compare_audits.py`."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fmaudit_core.report.documents.comparison_page import Comparison, finding_views, row_views

_LEAST_WIDTH: Final = 120
#: groups shown in the terminal; the page has them all
_MOST: Final = 20


def print_comparison(comparison: Comparison) -> None:
    """Print first in what the audits differ, then what changed."""
    console = Console(width=max(Console().width, _LEAST_WIDTH), highlight=False)
    if comparison.differences:
        console.print("The audits differ in cohort, settings or software:", style="bold")
        for about, wording in comparison.differences:
            console.print(f"- {about.replace('_', ' ')}: {wording}", markup=False)
    else:
        console.print("Cohort, settings, weights and software are the same.")
    for when, models in (("before", comparison.only_first), ("now", comparison.only_second)):
        if models:
            console.print(f"Only {when}: {'; '.join(models)}.", markup=False)
    console.print(comparison.headline(), style="bold", markup=False)
    rows = row_views(comparison)
    table = Table("Model", "Group", "Metric", "Before", "Now", "Change", "q", "Changed?")
    for row in rows[:_MOST]:
        change = f"{row['change']} ({row['interval']})" if row["interval"] else row["change"]
        named = (escape(row[name]) for name in ("model", "group", "metric", "before", "now"))
        table.add_row(*named, change, row["q"], row["verdict"], style="bold" if row["kind"] else None)
    console.print(table)
    if len(rows) > _MOST:
        console.print(f"{len(rows) - _MOST} more groups and metrics are on the page.")
    for one in finding_views(comparison):
        if one["differs"]:
            of = f"{one['model']}, {one['attribute']}, {one['metric']}"
            console.print(f"- {of}: {one['verdict_before']} before, {one['verdict_now']} now.", markup=False)

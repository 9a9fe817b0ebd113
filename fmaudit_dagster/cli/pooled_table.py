"""The pooled differences as the terminal shows them."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fmaudit_core.common import formatting
from fmaudit_core.report.documents.pooled_page import Pooled

_LEAST_WIDTH = 100
_HEADINGS = ("Model", "Metric", "Group", "Sites", "Difference", "At another site", "Adjusted p")


def print_pooled(pooled: Pooled) -> None:
    """Print notes and a row per pooled subgroup."""
    for note in pooled.notes:
        click.echo(f"Note: {note}")
    table = Table(title=f"{len(pooled.sites)} sites pooled", title_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading in ("Sites", "Adjusted p") else "left")
    for one in pooled.contrasts:
        found = formatting.difference_estimate(one.metric, one.difference, one.low, one.high)
        table.add_row(
            escape(f"{one.encoder}, {formatting.task_title(one.task, pooled.titles)}"),
            formatting.metric_title(one.metric),
            escape(formatting.group_label(one.attribute, one.subgroup)),
            str(len(one.sites)),
            str(found),
            formatting.difference_interval(one.metric, one.predicted_low, one.predicted_high),
            formatting.p_number(one.p_holm),
        )
    console = Console(highlight=False)
    Console(width=max(console.width, _LEAST_WIDTH), highlight=False).print(table)

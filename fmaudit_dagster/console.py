"""What `fmaudit run` shows in the terminal: a line and a bar per step, and the findings at the end."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from fmaudit_core.plan import Step
from fmaudit_core.progress import Progress as Listener
from fmaudit_core.report.export import JSON, PAGE
from fmaudit_core.vocabulary import ATTRIBUTE_TITLES, TASK_TITLES
from fmaudit_core.workspace import Workspace
from fmaudit_dagster.progress import draw_bars
from fmaudit_dagster.runner import Outcome, run_audit

_LEAST_WIDTH = 100
_VERDICTS = {
    "disparity": "[bold red]disparity[/]",
    "no_disparity_beyond_margin": "[green]within margin[/]",
    "insufficient_evidence": "[yellow]cannot tell[/]",
}


def run_with_bars(workspace: Workspace, *, encoders: Sequence[str], tasks: Sequence[str], everything: bool) -> Outcome:
    """Run the audit with a bar for every long step."""
    from fmaudit_dagster.definitions import defs
    from fmaudit_dagster.instance import opened

    with opened(workspace) as instance, _bars() as progress:
        line = progress.add_task("looking for what is missing or stale", total=None)

        def tell(step: Step) -> None:
            progress.update(line, description=f"{', '.join(step.assets)} [dim]({step.cell})[/]")

        return run_audit(
            workspace, instance, defs, encoders=encoders, tasks=tasks, everything=everything, listener=tell
        )


@contextmanager
def _bars() -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def bar(step: str) -> Listener:
            task = progress.add_task(step, total=None)

            def report(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total, visible=done < total)

            return report

        draw_bars(bar)
        try:
            yield progress
        finally:
            draw_bars(None)


def print_findings(workspace: Workspace) -> None:
    """Print the confirmatory findings and where the report lies.

    Numbers and sentences are the report's: it withholds what would give a suppressed subgroup's counts away.
    """
    page, summary = workspace.reports / PAGE, workspace.reports / JSON
    if not summary.exists():
        return
    found = json.loads(summary.read_text(encoding="utf-8"))["findings"]
    confirmatory = [row for row in found if row["confirmatory"]]
    console = Console(width=max(Console().width, _LEAST_WIDTH))
    table = Table(title="Findings of the declared family", title_justify="left")
    for heading in ("Encoder", "Task", "Attribute", "Gap", "By chance", "p adjusted", "Verdict"):
        table.add_column(heading, justify="right" if heading in ("Gap", "By chance", "p adjusted") else "left")
    for row in confirmatory:
        table.add_row(
            row["encoder"],
            TASK_TITLES.get(row["task"], row["task"]),
            ATTRIBUTE_TITLES.get(row["attribute"], row["attribute"]),
            _number(row["gap"], 2),
            _number(row["null_expected_gap"], 2),
            _number(row["p_adjusted"], 4),
            _VERDICTS[row["verdict"]],
        )
    console.print(table)
    for row in confirmatory:
        attribute = ATTRIBUTE_TITLES.get(row["attribute"], row["attribute"])
        console.print(f"- {row['encoder']}, {attribute}: {row['sentence']}", highlight=False)
    others = sum(row["verdict"] == "disparity" for row in found if not row["confirmatory"])
    console.print(f"{others} of {len(found) - len(confirmatory)} exploratory comparisons show a disparity as well.")
    click.echo(f"Report: {page}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"

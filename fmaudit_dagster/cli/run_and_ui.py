"""`fmaudit run` and `fmaudit ui`: what makes the audit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fmaudit_dagster.cli.error_handling import (
    configured_tasks,
    need,
    registered,
    report_errors,
    say_error,
    workspace_of,
)

if TYPE_CHECKING:
    from fmaudit_core.encoders.registry import Registry

#: each process has its own libraries and tables in memory
_MOST_JOBS: Final = 4


@click.command()
@click.option(
    "--encoder", "encoders", multiple=True, shell_complete=registered,
    help="Only this encoder; may be given several times.",
)  # fmt: skip
@click.option(
    "--task", "tasks", multiple=True, shell_complete=configured_tasks,
    help="Only this task; may be given several times.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Make everything again, stale or not.")
@click.option(
    "--jobs", type=click.IntRange(min=0), default=0, envvar="FMAUDIT_JOBS",
    help="Steps made at the same time, each in its own process. 0 means one per core, at most 4.",
)  # fmt: skip
@click.option("--profile", is_flag=True, help="Print how many seconds each step took.")
@click.pass_obj
@report_errors
def run(
    config: Path, encoders: tuple[str, ...], tasks: tuple[str, ...], everything: bool, jobs: int, profile: bool
) -> None:
    """Materialise what is missing or stale, then print the findings."""
    workspace = workspace_of(config)
    need("dagster", "platform", "fmaudit run")
    from fmaudit_dagster.execution.instance import prepare

    prepare(workspace)
    from fmaudit_dagster.cli.findings_table import print_findings, worse_than_before
    from fmaudit_dagster.cli.run_progress import run_with_bars
    from fmaudit_dagster.cli.step_times import print_step_times

    for file, problem in workspace.registry.problems().items():
        click.echo(f"Passed over {file}: {problem}", err=True)
    outcome = run_with_bars(
        workspace, encoders=encoders, tasks=tasks, everything=everything, jobs=jobs or _usual_jobs()
    )
    if profile and outcome.times:
        print_step_times(outcome.times)
    no_encoder = not workspace.registry.specs()
    if not outcome.made and not outcome.failures and not no_encoder:
        click.echo("Everything is up to date: nothing to do.")
    workspace.root.fetch_report()
    print_findings(workspace.reports)
    for cell, why in outcome.failures.items():
        click.echo(f"Failed: {cell}: {why}", err=True)
    if no_encoder:
        say_error(_without_encoder(workspace.registry))
        sys.exit(2)
    worse = worse_than_before(workspace)
    for sentence in worse:
        click.echo(f"Got worse than in the audit before: {sentence}", err=True)
    if outcome.failures or (worse and workspace.audit.reaudit.severity == "error"):
        sys.exit(1)


def _usual_jobs() -> int:
    return min(os.cpu_count() or 1, _MOST_JOBS)


def _without_encoder(registry: Registry) -> str:
    """Return what to do if no encoder can be audited."""
    from fmaudit_core.encoders.spec import HOW_TO_IMPORT

    problems = " The files above are not usable." if registry.problems() else ""
    return (
        f"No encoder is registered in {registry.folder}, so there is nothing to audit.{problems} `fmaudit encoders list` shows "
        f"the shipped ones, and `fmaudit encoders add NAME` adds one. {HOW_TO_IMPORT}"
    )


@click.command()
@click.option(
    "--port",
    default=3000,
    show_default=True,
    type=click.IntRange(1, 65_534),
    help="Port on 127.0.0.1; the next one serves the report.",
)
@click.option("--read-only", is_flag=True, help="Let people look, but not launch runs.")
@click.pass_obj
@report_errors
def ui(config: Path, port: int, read_only: bool) -> None:
    """Serve the Dagster UI of this workspace on 127.0.0.1 until interrupted."""
    workspace = workspace_of(config)
    need("dagster_webserver", "platform", "fmaudit ui")
    from fmaudit_dagster.cli.server import report_address, serve

    click.echo(f"http://127.0.0.1:{port}  (Ctrl-C ends it)")
    click.echo(f"{report_address(port)}  the report")
    sys.exit(serve(workspace, port=port, read_only=read_only))

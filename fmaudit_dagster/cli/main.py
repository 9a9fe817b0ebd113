"""`fmaudit ...`: the command line. What a command does: `cli/`. Help is quick, since nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path

import click

from fmaudit_core import __version__
from fmaudit_core.config import CONFIG_NAME, audit_path_from_environment
from fmaudit_dagster.cli import archive_index, encoders, gc, planning, report_and_sql, run_and_ui, sites, standalone
from fmaudit_dagster.cli import setup as setup_commands
from fmaudit_dagster.cli.error_handling import report_errors
from fmaudit_dagster.cli.local_path import LocalPath


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fmaudit")
@click.option(
    "-c",
    "--config",
    type=LocalPath(dir_okay=False),
    help=f"The audit's YAML [default: {CONFIG_NAME}].",
)
@click.pass_context
@report_errors
def main(context: click.Context, config: Path | None) -> None:
    """Audit medical-imaging foundation models: for whom do they fail, and how sure are we."""
    context.obj = config.absolute() if config else audit_path_from_environment()


for _command in (
    setup_commands.init,
    setup_commands.doctor,
    setup_commands.completion,
    run_and_ui.run,
    run_and_ui.ui,
    report_and_sql.report,
    report_and_sql.sql,
    gc.gc,
    standalone.assess,
    standalone.series,
    planning.plan,
    sites.export,
    sites.apply,
    sites.pool,
    archive_index.index,
    encoders.encoders,
    encoders.baseline,
):
    main.add_command(_command)

"""`fmaudit ...`: the command line. What a command does: `commands/`. Help is quick, since nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path

import click

from fmaudit_core import __version__
from fmaudit_core.config import CONFIG_NAME, audit_path_from_environment
from fmaudit_dagster.commands import alone, looking, registry, running, setting_up


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fmaudit")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"The audit's YAML [default: {CONFIG_NAME}].",
)
@click.pass_context
def main(context: click.Context, config: Path | None) -> None:
    """Audit medical-imaging foundation models: for whom do they fail, and how sure are we."""
    context.obj = config.absolute() if config else audit_path_from_environment()


for _command in (
    setting_up.init, setting_up.doctor, setting_up.completion, running.run, running.ui, looking.report, looking.sql,
    alone.assess, alone.series, registry.encoders, registry.baseline,
):  # fmt: skip
    main.add_command(_command)


if __name__ == "__main__":
    main(prog_name="fmaudit")

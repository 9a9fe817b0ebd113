"""`fmaudit gc`: remove what nothing reads any more."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from fmaudit_dagster.cli.error_handling import report_errors, workspace_of

_SHOWN: Final = 5


@click.command()
@click.option("--yes", "confirmed", is_flag=True, help="Remove the files; without it they are only listed.")
@click.pass_obj
@report_errors
def gc(config: Path, confirmed: bool) -> None:
    """List the files of the workspace that nothing reads any more, and remove them with --yes.

    These are half-written files, results of encoders and tasks that are not audited any more, slices in views that no encoder
    uses, phantom cohorts of other settings, and in a bucket old versions. Nothing is removed while a step is running.
    """
    from fmaudit_core.pipeline.unused_files import remove_unused, unused_files

    workspace = workspace_of(config)
    found = unused_files(workspace)
    problems = workspace.registry.problems()
    if problems:
        click.echo(f"Files of encoders are kept, because {', '.join(problems)} cannot be read.", err=True)
    sizes = [one.n_bytes for one in found]
    for one, n_bytes in zip(found, sizes, strict=True):
        click.echo(f"{n_bytes / 1e6:12,.1f} MB  {one.kind}")
        names = one.named(workspace.home)
        for name in names[:_SHOWN]:
            click.echo(f"{'':17}{name}")
        if len(names) > _SHOWN:
            click.echo(f"{'':17}and {len(names) - _SHOWN:,} more")
    if not found:
        click.echo("Nothing to remove.")
        return
    if not confirmed:
        click.echo(f"{sum(sizes) / 1e6:,.1f} MB can be freed. `fmaudit gc --yes` removes these files.")
        return
    remove_unused(workspace, found)
    click.echo(f"Freed {sum(sizes) / 1e6:,.1f} MB.")

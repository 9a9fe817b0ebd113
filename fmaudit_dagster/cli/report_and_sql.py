"""`fmaudit report` and `fmaudit sql`: what an audit has found, and the tables behind it."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from fmaudit_core.common.errors import FmauditError
from fmaudit_dagster.cli.error_handling import report_errors, workspace_of
from fmaudit_dagster.cli.local_path import LocalPath


@click.command()
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@click.option(
    "--compare",
    "compared",
    nargs=2,
    type=LocalPath(exists=True),
    metavar="A B",
    help="Two audits side by side: workspaces (audit.yaml or its folder), report folders or audit.json files.",
)
@click.option(
    "--out",
    type=LocalPath(dir_okay=False),
    help="Where --compare writes its page [default: compare.html].",
)
@click.pass_obj
@report_errors
def report(config: Path, show: bool, compared: tuple[Path, Path] | None, out: Path | None) -> None:
    """Print the path of the report, open it, or compare two audits: what changed, and whether by more than chance."""
    if compared is not None:
        from fmaudit_core.standalone.compare_audits import compare, write_comparison
        from fmaudit_dagster.cli.comparison_table import print_comparison

        found = compare(*compared)
        page = write_comparison((out or Path("compare.html")).absolute(), found)
        print_comparison(found)
    else:
        if out is not None:
            raise click.UsageError("--out goes with --compare A B.")
        from fmaudit_core.storage.report_layout import PAGE

        workspace = workspace_of(config)
        workspace.root.fetch_report()
        page = workspace.reports / PAGE
        if not page.exists():
            raise FmauditError("there is no report yet.", where=str(page), fix="Run `fmaudit run` first.")
    click.echo(page)
    if show:
        webbrowser.open(page.as_uri())


@click.command()
@click.argument("query", required=False)
@click.pass_obj
@report_errors
def sql(config: Path, query: str | None) -> None:
    """Run QUERY over the tables, or list them. Embeddings are attached by encoder: "NAME".study_embeddings.

    Rows that are wider than the terminal are printed one column a line.
    """
    import duckdb
    import polars as pl

    from fmaudit_dagster.cli.print_rows import printed

    warehouse = workspace_of(config).warehouse
    with warehouse.connect() as connection:
        try:
            result = connection.sql(query) if query else None
            rows = pl.DataFrame({"table": warehouse.tables()}) if not query else result.pl() if result else None
        except duckdb.Error as error:
            wording = " ".join(line.strip() for line in str(error).splitlines() if line.strip() and "^" not in line)
            raise FmauditError(
                f"the query failed: {wording}",
                fix="`fmaudit sql` alone lists the tables; DESCRIBE <table> their columns.",
            ) from error
        if rows is None:
            click.echo("done")
            return
        text, n_shown = printed(rows)
        click.echo(text)
        if n_shown < rows.height:
            click.echo(
                f"{rows.height:,} rows, of which {n_shown} are shown; add a LIMIT or COPY ... TO 'file.csv'.", err=True
            )

"""`fmaudit index`: what a folder of images holds, in any layout, before there is a table or an audit.yaml."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fmaudit_core.common.errors import needs_extra
from fmaudit_dagster.cli.error_handling import report_errors, workspace_of
from fmaudit_dagster.cli.local_path import FolderOrBucket, LocalPath

if TYPE_CHECKING:
    from fmaudit_core.imaging.archive.index import Counts


@click.command()
@click.argument("folder", metavar="DIR", type=FolderOrBucket())
@click.option(
    "--out",
    type=LocalPath(dir_okay=False),
    help="Write the index as Parquet, a row per file. It holds accession numbers and UIDs.",
)
@click.option(
    "--workers", type=click.IntRange(min=0), default=0, help="Processes that read headers [default: one per core]."
)
@click.pass_obj
@report_errors
def index(config: Path, folder: Path | str, out: Path | None, workers: int) -> None:
    """Count the studies, series and modalities below DIR, and what is passed over. No identifier is printed.

    DIR may have any layout, and may be in a bucket, as s3://bucket/folder: its store is that of audit.yaml, else that of the
    environment. Every header is read once: the index is kept in the workspace, where `fmaudit run` uses it.
    """
    from fmaudit_core.config import HOME_NAME
    from fmaudit_core.config.environment import home_from_environment
    from fmaudit_core.pipeline.workspace import index_of
    from fmaudit_core.storage.atomic_write import written_beside
    from fmaudit_core.storage.bucket import Bucket
    from fmaudit_dagster.cli.progress_bars import one_bar

    with needs_extra("imaging", "fmaudit index"):
        from fmaudit_core.imaging.archive.build import update_index
    workspace = workspace_of(config) if config.is_file() else None
    home = workspace.home if workspace else home_from_environment() or config.parent / HOME_NAME
    if isinstance(folder, Path):
        found = index_of(folder.absolute(), home)
    else:
        found = index_of(workspace.bucket(folder) if workspace else Bucket(folder), home)
    with one_bar("reading headers") as progress:
        update_index(found, workers=workers, progress=progress)
    _print_counts(found.counts())
    if out is not None:
        with written_beside(out) as temporary:
            shutil.copyfile(found.files, temporary)
        click.echo(f"Wrote {out}. It identifies patients: it holds accession numbers and UIDs.")


def _print_counts(counts: Counts) -> None:
    from fmaudit_core.imaging.archive.reasons import PASSED_OVER

    rows = {
        "files": counts.n_files,
        "DICOM files": counts.n_dicom,
        "studies": counts.n_studies,
        "series": counts.n_series,
    }
    _print_rows(rows)
    click.echo(f"{'size':<22}{counts.n_bytes / 1e9:>12,.2f} GB")
    if counts.n_duplicates:
        click.echo(f"{'copies':<22}{counts.n_duplicates:>12,}  files with the SOP Instance UID of another")
    if counts.n_shared_accessions:
        click.echo(f"{'shared accessions':<22}{counts.n_shared_accessions:>12,}  accession numbers of several studies")
    click.echo("modalities, in files")
    _print_rows({f"  {name}": n for name, n in counts.modalities.items()})
    if counts.passed_over:
        click.echo("passed over, in files")
        _print_rows({f"  {reason}": n for reason, n in counts.passed_over.items()}, PASSED_OVER)


def _print_rows(rows: Mapping[str, int], meanings: Mapping[str, str] | None = None) -> None:
    for name, n in rows.items():
        meaning = (meanings or {}).get(name.strip(), "")
        click.echo(f"{name:<22}{n:>12,}{f'  {meaning}' if meaning else ''}")

"""`fmaudit export`, `fmaudit apply` and `fmaudit pool`: audits of several hospitals, without a patient leaving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fmaudit_core.common.vocabulary import ATTRIBUTES
from fmaudit_dagster.cli.error_handling import report_errors, workspace_of
from fmaudit_dagster.cli.local_path import LocalPath

if TYPE_CHECKING:
    from fmaudit_core.sites.apply_probe import Scored
    from fmaudit_core.sites.probe_file import LabelSource

_labels = click.option(
    "--labels",
    type=click.Choice(["report", "code", "adjudicated", "other"]),
    required=True,
    help="Where the labels of the outcomes come from.",
)


@click.group()
def export() -> None:
    """Write a file for other hospitals: a frozen probe, or results for pooling."""


@export.command("probe")
@click.option("--encoder", required=True, help="Name of the encoder.")
@click.option("--task", required=True, help="Name of the outcome.")
@_labels
@click.option("--out", type=LocalPath(dir_okay=False), default="probe.json", show_default=True)
@click.option(
    "--accept-membership-leak",
    is_flag=True,
    help="Export a probe with fewer than 10 training studies per dimension, which may show who was in the training set.",
)
@click.pass_obj
@report_errors
def export_probe(
    config: Path, encoder: str, task: str, labels: LabelSource, out: Path, accept_membership_leak: bool
) -> None:
    """Write the frozen logistic probe of one encoder and task, with its thresholds, to try it at another hospital."""
    from fmaudit_core.pipeline.snapshot import snapshot_of
    from fmaudit_core.sites.export_probe import export_probe as exported

    look = snapshot_of(workspace_of(config))
    probe = exported(look, encoder, task, labels=labels, accept_membership_leak=accept_membership_leak)
    click.echo(probe.write(out))


@export.command("summary")
@click.argument("source", required=False, type=LocalPath(exists=True))
@click.option("--site", required=True, help="Name of this site on the pooled page.")
@_labels
@click.option("--out", type=LocalPath(dir_okay=False), default="site.json", show_default=True)
@click.pass_obj
@report_errors
def export_summary(config: Path, source: Path | None, site: str, labels: LabelSource, out: Path) -> None:
    """Write this site's results for `fmaudit pool`: estimates and counts, as far as the report shows them.

    SOURCE is the folder of an audit, or an output folder of `fmaudit assess` [default: the audit of --config].
    """
    from fmaudit_core.sites.export_summary import export_summary as exported

    click.echo(exported(source or config, site=site, labels=labels).write(out))


@click.group()
def apply() -> None:
    """Try what another hospital exported."""


@apply.command("probe")
@click.argument("probe", type=LocalPath(exists=True, dir_okay=False))
@click.option(
    "--embeddings", type=LocalPath(exists=True, dir_okay=False), help="Embeddings in a file: no audit.yaml needed."
)
@click.option(
    "--table", type=LocalPath(exists=True, dir_okay=False), help="With --embeddings: study_id, patient_id, labels."
)
@click.option("--label", default="y_true", show_default=True, help="With --table: its column of the outcome.")
@click.option("--attributes", help="With --table: columns to compare by, with commas.")
@click.option("--encoder", help="Name of the encoder that computed the embeddings; required with --embeddings.")
@click.option(
    "--policy",
    type=click.Choice(["fixed_fpr", "fixed_sensitivity", "youden"]),
    help="Which of the probe's thresholds to use [default: that of its own audit].",
)
@click.option("--with-train", is_flag=True, help="Evaluate the training studies of this audit too; the probe saw none.")
@click.option("--out", type=LocalPath(file_okay=False), default="applied", show_default=True)
@click.pass_obj
@report_errors
def apply_probe(
    config: Path,
    probe: Path,
    embeddings: Path | None,
    table: Path | None,
    label: str,
    attributes: str | None,
    encoder: str | None,
    policy: str | None,
    with_train: bool,
    out: Path,
) -> None:
    """Score the studies here with a probe from another hospital, and assess the predictions into --out.

    With studies of the split `val`, results are shown for the threshold as brought and for one chosen here.
    """
    from fmaudit_core.pipeline.snapshot import snapshot_of
    from fmaudit_core.sites.apply_probe import assess_scored, score_file, score_workspace
    from fmaudit_core.sites.probe_file import ProbeFile
    from fmaudit_dagster.cli.findings_table import print_findings
    from fmaudit_dagster.cli.progress_bars import one_bar

    brought = ProbeFile.read(probe)
    if (embeddings is None) != (table is None) or (embeddings is not None and encoder is None):
        raise click.UsageError("--embeddings, --table and --encoder are given together.")
    settings = None
    if embeddings is not None and table is not None and encoder is not None:
        names = [one.strip() for one in (attributes or "").split(",") if one.strip()]
        scored = score_file(
            brought, embeddings, table, encoder=encoder, label=label, attributes=names or _usual(table), policy=policy
        )
    else:
        workspace = workspace_of(config)
        settings = workspace.audit.fairness
        scored = score_workspace(snapshot_of(workspace), brought, encoder=encoder, policy=policy, with_train=with_train)
    predictions = out.with_name(f"{out.name}.predictions.parquet")
    with one_bar("assessing") as progress:
        assess_scored(scored, brought, out, predictions, policy=policy, settings=settings, progress=progress)
    _print_scored(scored, brought.task.labels, predictions)
    print_findings(out)


def _usual(table: Path) -> list[str]:
    """Return the usual attributes that a table has."""
    from fmaudit_core.tabular.text_cells import column_names

    found = column_names(table, ("study_id", "patient_id"))
    return [one for one in ATTRIBUTES if one in found]


def _print_scored(scored: Scored, labels: str, predictions: Path) -> None:
    click.echo(
        f"Studies scored: {scored.n_studies:,}. Not scored, without a label: {scored.n_without_label:,}, without an embedding: "
        f"{scored.n_without_embedding:,}. Embeddings of other studies: {scored.n_without_row:,}."
    )
    click.echo(f"The probe was fitted on labels from: {labels}.")
    click.echo(f"Scores of single studies, not to be shared: {predictions}")


@click.command()
@click.argument("summaries", nargs=-1, required=True, type=LocalPath(exists=True, dir_okay=False))
@click.option("--out", type=LocalPath(file_okay=False), default="pooled", show_default=True)
@click.option(
    "--accept",
    multiple=True,
    type=click.Choice(["probe_differs", "label_source_differs", "same_patients_possible"]),
    help="A difference between the sites to accept; the page says so. May be given several times.",
)
@report_errors
def pool(summaries: tuple[Path, ...], out: Path, accept: tuple[str, ...]) -> None:
    """Pool the SUMMARIES of several sites: mean differences over hospitals, how much hospitals differ, a page."""
    from fmaudit_core.sites.pooling import pool as pooled
    from fmaudit_core.sites.summary_file import SiteSummary
    from fmaudit_core.sites.write_pooled import write_pooled
    from fmaudit_dagster.cli.pooled_table import print_pooled

    found = pooled([SiteSummary.read(path) for path in summaries], accept=accept)
    page = write_pooled(out, found)
    print_pooled(found)
    click.echo(page)

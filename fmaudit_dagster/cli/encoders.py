"""`fmaudit encoders` and `fmaudit baseline`: the registry of this audit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fmaudit_core.common.errors import UnknownNameError, did_you_mean
from fmaudit_core.common.local_paths import address_problem
from fmaudit_dagster.cli.error_handling import registered, report_errors, workspace_of
from fmaudit_dagster.cli.local_path import LocalPath

if TYPE_CHECKING:
    from fmaudit_core.encoders.sensitivity import Sensitivity
    from fmaudit_core.pipeline.run_sensitivity import Scans


@click.group()
def encoders() -> None:
    """List, add and check the encoders of this audit's registry."""


@encoders.command("list")
@click.pass_obj
@report_errors
def encoders_list(config: Path) -> None:
    """Show the registered encoders, what is wrong with other files, and the specs that ship with fmaudit."""
    from fmaudit_core.encoders.registry import shipped_specs
    from fmaudit_core.encoders.spec import load_spec

    registry = workspace_of(config).registry
    for name, spec in registry.specs().items():
        role = "control" if spec.control else f"{spec.dim}-d" if spec.embeds else "baseline, predictions alone"
        click.echo(f"{name:<24} {spec.label} ({role}; {spec.licence or 'licence not stated'})")
    for file, problem in registry.problems().items():
        click.echo(f"passed over {file}: {problem}", err=True)
    others = [load_spec(path) for name, path in shipped_specs().items() if name not in registry.specs()]
    ready = [spec.name for spec in others if not spec.needs_weights]
    if ready:
        click.echo(f"Shipped, not registered: {', '.join(ready)} (add with: fmaudit encoders add NAME)")
    for spec in others:
        if spec.published and spec.needs_weights:
            need = "an export from" if spec.published.export else f"{spec.published.files[0]} of"
            click.echo(f"{spec.name:<24} needs weights: {need} {spec.published.hub} ({spec.licence})")


def _shipped(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Names of the specs that ship, for the shell's completion."""
    from fmaudit_core.encoders.registry import shipped_specs

    return [name for name in shipped_specs() if name.startswith(incomplete)]


@encoders.command("add")
@click.argument("spec", shell_complete=_shipped)
@click.option(
    "--weights",
    type=LocalPath(exists=True),
    help="Published weights of a spec that ships without: the file, or its folder.",
)
@click.pass_obj
@report_errors
def encoders_add(config: Path, spec: str, weights: Path | None) -> None:
    """Validate SPEC, a YAML or the name of a shipped one, and copy it into the registry, its weights proved."""
    from fmaudit_core.encoders.registry import shipped_specs

    if (problem := address_problem(spec)) is not None:
        raise UnknownNameError(f"SPEC {problem}.")
    source = shipped_specs().get(spec, Path(spec))
    if not source.is_file():
        shipped = list(shipped_specs())
        raise UnknownNameError(
            f"There is neither a file {spec} nor a shipped encoder {did_you_mean(spec, shipped)}.",
            fix=f"Shipped are: {', '.join(shipped)}.",
        )
    added = workspace_of(config).registry.add(source, weights)
    if added.weights and added.weights.sha256_from == "first_seen":
        click.echo(f"No published sha256 is known; recorded that of this file: {added.weights.sha256}")
    click.echo(f"Registered {added.name}. Next: fmaudit encoders check {added.name}, then fmaudit run")


@encoders.command("check")
@click.argument("name", shell_complete=registered)
@click.option("--quick", is_flag=True, help="Do not measure how far alterations of the CT move its embedding.")
@click.pass_obj
@report_errors
def encoders_check(config: Path, name: str, *, quick: bool) -> None:
    """Prove the weights of encoder NAME, load it, probe it, and time it on this device. Exit code 1 if it must not be used.

    It also measures how far the embedding moves if the CT is flipped, resampled, shifted or compressed, compared with another
    patient. The measurement of a registered encoder is kept, and the next report shows it.
    """
    from fmaudit_core.encoders.check import check_encoder
    from fmaudit_core.pipeline import queries
    from fmaudit_core.pipeline.run_sensitivity import publish_sensitivity, sensitivity_scans

    workspace = workspace_of(config)
    spec = workspace.registry.named(name)
    scans = sensitivity_scans(workspace) if spec.sees_images and not quick else None
    found = check_encoder(
        spec,
        device=workspace.audit.extraction.device,
        cohort=queries.cohort_size(workspace, spec.view),
        scans=scans.scans if scans else None,
    )
    for label, fact in found.facts.items():
        click.echo(f"{label:<14}{fact}")
    for problem in found.problems:
        click.echo(f"problem       {problem}", err=True)
    if found.problems:
        sys.exit(1)
    if scans is not None:
        _show_sensitivity(found.sensitivity, scans)
        if name in workspace.registry.specs():
            publish_sensitivity(workspace, spec, found.sensitivity, scans)
    click.echo(f"{name} is fit for use.")


def _show_sensitivity(found: Sequence[Sensitivity], scans: Scans) -> None:
    from fmaudit_core.encoders.sensitivity_words import sensitivity_sentence

    of = "of this cohort" if scans.source == "cohort" else "of the phantom, because no CT of the cohort was read yet"
    click.echo(f"sensitivity   cosine with the unaltered CT, mean of {scans.n} patients {of}")
    for one in found:
        cosine = "      -" if one.cosine is None else f"{one.cosine:7.4f}"
        sentence = sensitivity_sentence(one.alteration, one.status, one.relative_distance)
        click.echo(f"  {cosine}     {sentence}")


@click.group()
def baseline() -> None:
    """Audit a model by its predictions alone, next to the encoders."""


@baseline.command("add")
@click.argument("predictions", type=LocalPath(dir_okay=False))
@click.option("--name", help="Name of the model, such as ct-lrcn [default: of the file].")
@click.option("--task", help="The task it is about, if neither the file nor its name contains it.")
@click.pass_obj
@report_errors
def baseline_add(config: Path, predictions: Path, name: str | None, task: str | None) -> None:
    """Join PREDICTIONS (study_id, y_score; or INSPECT's pe_pred_proba.csv) to the cohort, check its labels, and register it."""
    from fmaudit_core.pipeline.run_baselines import add_baseline

    for one, found in add_baseline(workspace_of(config), predictions, name=name, task=task).items():
        row = found.join.row(0, named=True)
        click.echo(
            f"{row['encoder']}, {one}: {row['n_scored']:,} of {row['n_rows']:,} rows joined by {row['joined_by']}; "
            f"{row['n_missed']:,} of no study here, {row['n_train']:,} of train, {row['n_unlabelled']:,} without a known "
            f"label left out; {row['n_unscored']:,} studies without a prediction."
        )
        if row["n_labels_apart"]:
            click.echo(f"  {row['n_labels_apart']:,} of {row['n_labels']:,} labels differ from ours, which are used.")
        if not found.has_threshold:
            click.echo(
                "  It has no validation studies of both classes, so it has no threshold: only its AUROC is reported."
            )
    click.echo("Next: fmaudit run")

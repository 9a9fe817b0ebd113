"""Commands that need no audit.yaml: `fmaudit assess` on anybody's predictions, `fmaudit series` on one CT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fmaudit_core.common.errors import FmauditError, needs_extra
from fmaudit_core.common.vocabulary import how_many
from fmaudit_core.imaging.choice import CHOICES
from fmaudit_core.imaging.rules import NO_RULES
from fmaudit_dagster.cli.error_handling import report_errors, workspace_of
from fmaudit_dagster.cli.local_path import LocalPath

if TYPE_CHECKING:
    from fmaudit_core.imaging.series_read import SeriesRead


@click.command()
@click.option(
    "--predictions",
    type=LocalPath(),
    required=True,
    help="CSV or Parquet: study_id, patient_id, split, y_true, y_score, a column per attribute; task and encoder if several.",
)
@click.option(
    "--attributes", help="Columns to compare by, with commas [default: race_ethnicity, sex, age_band if there]."
)
@click.option("--covariates", help="Columns that gaps are standardised for, with commas; declare them before looking.")
@click.option("--mediators", help="Those of --covariates that may follow from the subgroup, with commas.")
@click.option("--out", type=LocalPath(file_okay=False), default="assessment", show_default=True)
@click.option("--threshold", type=float, help="Operating threshold; without it one is chosen on the split `val`.")
@click.option("--permutations", type=click.IntRange(min=99), help="Permutations of each test [default: 9999].")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the permutations [default: 2026].")
@click.option(
    "--threshold-uncertainty", is_flag=True, help="Carry the chosen threshold's own uncertainty into intervals."
)
@click.option("--positive", help="Words for a positive label in y_true, with commas.")
@click.option("--negative", help="Words for a negative label in y_true, with commas.")
@click.option("--merge-levels", is_flag=True, help="Merge levels that differ by case or spacing only.")
@click.option(
    "--unlabelled",
    type=click.Choice(["refuse", "exclude"]),
    default="refuse",
    show_default=True,
    help="What to do with rows without a label: blank, NaN, or -1 (uncertain).",
)
@report_errors
def assess(
    predictions: Path,
    attributes: str | None,
    covariates: str | None,
    mediators: str | None,
    out: Path,
    threshold: float | None,
    permutations: int | None,
    seed: int | None,
    threshold_uncertainty: bool,
    positive: str | None,
    negative: str | None,
    merge_levels: bool,
    unlabelled: Literal["refuse", "exclude"],
) -> None:
    """Assess anybody's predictions: tables as Parquet and CSV, and the page, into --out. Needs no audit.yaml."""
    from fmaudit_core.config import FairnessSection, LabelWords, LevelRules
    from fmaudit_core.fairness.normal_form import PredictionRules
    from fmaudit_core.standalone.assess_file import assess_file
    from fmaudit_core.tabular.notes import note_sentences
    from fmaudit_dagster.cli.findings_table import print_findings
    from fmaudit_dagster.cli.progress_bars import one_bar

    given = {"n_permutations": permutations, "seed": seed, "threshold_uncertainty": threshold_uncertainty}
    settings = FairnessSection.model_validate({name: value for name, value in given.items() if value is not None})
    if bool(positive) != bool(negative):
        raise click.UsageError("--positive and --negative are given together.")
    rules = PredictionRules(
        LabelWords(positive=tuple(_listed(positive)), negative=tuple(_listed(negative))),
        LevelRules(merge="case" if merge_levels else "none"),
        unlabelled,
    )
    with one_bar("assessing") as progress:
        done = assess_file(
            predictions,
            out,
            attributes=_listed(attributes),
            covariates=_listed(covariates),
            mediators=_listed(mediators),
            settings=settings,
            threshold=threshold,
            rules=rules,
            progress=progress,
        )
    for sentence in note_sentences(done.assessment.notes):
        click.echo(f"Note: {sentence}.")
    print_findings(out)


def _listed(names: str | None) -> list[str]:
    """Return names that are separated by commas."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


@click.command()
@click.argument("path", type=LocalPath())
@click.option("--json", "as_json", is_flag=True, help="Print a list with one object per series.")
@click.option("--png", type=LocalPath(dir_okay=False), help="Write a picture of the largest series.")
@click.pass_obj
@report_errors
def series(config: Path, path: Path, as_json: bool, png: Path | None) -> None:
    """Read the CT series under PATH as the audit would: a line per series, its flags, geometry, HU statistics, picture.

    The rules for series are those of audit.yaml, if there is one.
    """
    with needs_extra("imaging", "fmaudit series"):
        from fmaudit_core.imaging.picture import write_montage
        from fmaudit_core.imaging.series import read_series

    found = read_series(path, rules=workspace_of(config).series_rules if config.is_file() else NO_RULES)
    if png is not None:
        if found[0].volume_hu is None:
            raise FmauditError("no series was accepted, so there is no picture of one.", where=str(path))
        write_montage(png, found[0].volume_hu)
    if as_json:
        click.echo(json.dumps([one.facts() for one in found], indent=2))
        return
    for one in found:
        _describe(one)


def _describe(series: SeriesRead) -> None:
    """Print one series: a line with its verdict and description, then its flags and geometry."""
    header = series.header
    thickness = "" if header.thickness_mm is None else f"{header.thickness_mm:g} mm"
    described = [header.description, header.kernel, header.image_type, thickness]
    verdict = ("used" if series.used else "not used") if series.status == "accepted" else series.status
    why = series.explained() or f"{series.choice} ({CHOICES[series.choice]})"
    counted = f"{how_many(series.n_slices, 'slice')}, " if series.n_slices else ""
    text = " | ".join(one for one in described if one)
    click.echo(f"{verdict}: {counted}{how_many(series.n_files, 'file')}, {why}{f': {text}' if text else ''}")
    for remark in series.remarks():
        click.echo(f"  {remark}")
    facts = series.facts()
    if series.volume_hu is not None:
        z, y, x = facts["shape_zyx"]
        dz, dy, dx = facts["spacing_zyx_mm"]
        click.echo(f"  {z} slices of {y} x {x}, {dz:g} x {dy:g} x {dx:g} mm")
        click.echo(f"  HU {facts['hu_min']} to {facts['hu_max']}, mean {facts['hu_mean']:.1f}")

"""`fmaudit plan`: how many patients a prospective audit needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fmaudit_dagster.cli.error_handling import report_errors
from fmaudit_dagster.cli.local_path import LocalPath

if TYPE_CHECKING:
    from fmaudit_core.fairness.planning import Plan


@click.command()
@click.option("--gap", type=float, help="The difference to find, such as 0.10 for 10 points.")
@click.option("--margin", type=float, help="In place of --gap: show that all differences are below this margin.")
@click.option("--power", type=float, default=0.8, show_default=True, help="Probability of finding or showing it.")
@click.option("--metric", type=click.Choice(["udr", "fpr", "auroc"]), help="The metric [default: udr].")
@click.option("--value", type=float, help="The metric in the other subgroups, such as 0.30.")
@click.option("--subgroups", metavar="NAME=SHARE,...", help="Subgroups and their shares of the patients.")
@click.option("--worse", help="The subgroup that fares worse [default: the smallest, or the worst of --from].")
@click.option("--prevalence", help="Share of studies with the outcome: one number, or NAME=SHARE,...")
@click.option("--comparisons", type=click.IntRange(min=1), help="Attributes times encoders [default: 1].")
@click.option("--studies-per-patient", type=float, help="Mean number of studies of a patient [default: 1].")
@click.option("--icc", type=float, default=0.5, show_default=True, help="Correlation of a patient's studies.")
@click.option("--from", "earlier", type=LocalPath(exists=True), help="An audit that gives all numbers not given here.")
@click.option("--attribute", help="With --from: its attribute [default: that of its first finding].")
@click.option("--encoder", help="With --from: its encoder [default: that of its first finding].")
@click.option("--draws", type=click.IntRange(min=100), default=1500, show_default=True, help="Simulated audits.")
@report_errors
def plan(
    gap: float | None,
    margin: float | None,
    power: float,
    metric: str | None,
    value: float | None,
    subgroups: str | None,
    worse: str | None,
    prevalence: str | None,
    comparisons: int | None,
    studies_per_patient: float | None,
    icc: float,
    earlier: Path | None,
    attribute: str | None,
    encoder: str | None,
    draws: int,
) -> None:
    """Plan an audit: how many patients of each subgroup, with and without the outcome, it needs to find a gap.

    The answer is simulated with the audit's own tests. Needs no audit.yaml.
    """
    from fmaudit_core.fairness import plan as planned
    from fmaudit_dagster.cli.progress_bars import one_bar

    if (gap is None) == (margin is None):
        raise click.UsageError("give either --gap or --margin.")
    if earlier is None and (attribute or encoder):
        raise click.UsageError("--attribute and --encoder go with --from.")
    given = {
        "metric": metric,
        "value": value,
        "subgroups": None if subgroups is None else _by_name(subgroups, "--subgroups"),
        "worse": worse,
        "prevalence": None if prevalence is None else _prevalence(prevalence),
        "comparisons": comparisons,
        "studies_per_patient": studies_per_patient,
    }
    numbers = _of_earlier(earlier, attribute, encoder, metric) if earlier else {}
    numbers |= {name: one for name, one in given.items() if one is not None}
    lacking = [f"--{name}" for name in ("subgroups", "prevalence", "value") if numbers.get(name) is None]
    if lacking:
        raise click.UsageError(f"{', '.join(lacking)} must be given, or an earlier audit with --from.")
    with one_bar("simulating audits") as progress:
        found = planned(gap=gap or 0.0, margin=margin, power=power, icc=icc, draws=draws, progress=progress, **numbers)
    _print_plan(found)


def _of_earlier(path: Path, attribute: str | None, encoder: str | None, metric: str | None) -> dict[str, Any]:
    """Return the numbers of an earlier audit as arguments of `plan`, and print where they are from."""
    from fmaudit_core.standalone.plan_from_audit import earlier_audit

    audit = earlier_audit(path, attribute=attribute, encoder=encoder, metric=metric)
    click.echo(f"From {path}: {audit.encoder}, {audit.attribute}, a family of {audit.comparisons}.")
    if audit.left_out:
        click.echo(f"Left out, because the audit withholds their counts or tests none: {', '.join(audit.left_out)}.")
    names = ("metric", "value", "subgroups", "worse", "prevalence", "comparisons", "studies_per_patient", "settings")
    return {name: getattr(audit, name) for name in names}


def _prevalence(text: str) -> float | dict[str, float]:
    return _by_name(text, "--prevalence") if "=" in text else _number(text, "--prevalence")


def _by_name(text: str, option: str) -> dict[str, float]:
    parts = [one.rpartition("=") for one in text.split(",") if one.strip()]
    names = [name.strip() for name, _, _ in parts]
    if not all(names) or len(set(names)) < len(names):
        raise click.UsageError(f"{option} lists each subgroup once, as NAME=SHARE with commas between.")
    return {name: _number(share, option) for name, (_, _, share) in zip(names, parts, strict=True)}


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{option}: {text.strip()!r} is not a number.") from None


def _print_plan(found: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    from fmaudit_core.common import formatting
    from fmaudit_core.common.vocabulary import how_many, subgroup_title

    design, metric = found.design, found.design.metric
    console = Console(highlight=False)
    table = Table(title="Patients to expect in the evaluated split", title_justify="left")
    for heading in ("Subgroup", formatting.metric_title(metric), "Patients", "With outcome", "Without", "Studies"):
        table.add_column(heading, justify="left" if heading == "Subgroup" else "right")
    for row in found.patients.iter_rows(named=True):
        counts = [f"{row[name]:,}" for name in ("n_patients", "n_with", "n_without", "n_studies")]
        table.add_row(subgroup_title(row["subgroup"]), formatting.level(metric, row["value"]), *counts)
    console.print(table)
    share, low, high = found.simulated_power
    last = found.rounds[-1]
    what = (
        f"a gap of {formatting.spread(metric, design.gap)} in {subgroup_title(design.worse)}"
        if design.gap
        else f"that all differences are below {formatting.margin_text(metric, design.settings.margin)}"
    )
    console.print(
        f"{found.n_patients:,} patients {'find' if design.gap else 'show'} {what} with a probability of "
        f"{formatting.percent(found.power, 0)}"
        + (f", tested at {design.alpha:.2g} for {how_many(design.comparisons, 'comparison')}." if design.gap else ".")
    )
    console.print(
        f"Simulated: {last.n_found:,} of {last.n_audits:,} audits of {last.n_patients:,} patients "
        f"({formatting.percent(share)}, 95% interval {formatting.percent(low)} to {formatting.percent(high)}). "
        f"A closed form gives {found.closed_form:,} patients."
    )
    curve = Table(title="Patients by power", title_justify="left")
    for row in found.curve.iter_rows(named=True):
        curve.add_column(formatting.percent(row["power"], 0), justify="right")
    curve.add_row(*(f"{one:,}" for one in found.curve.get_column("n_patients")))
    console.print(curve)

"""`fmaudit ...`: the command line. Heavy parts are imported by the command that needs them, so that help is quick."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fmaudit_core import __version__
from fmaudit_core.config import CONFIG_NAME, audit_path_from_environment
from fmaudit_core.errors import FmauditError, MissingExtraError

if TYPE_CHECKING:
    from fmaudit_core.workspace import Workspace

Command = TypeVar("Command", bound=Callable[..., Any])

_TABLES = 'SELECT view_name AS "table" FROM duckdb_views() WHERE NOT internal ORDER BY 1'


def _told(command: Command) -> Command:
    """Print our own errors as a paragraph and end with their exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except FmauditError as error:
            click.echo(click.wrap_text(str(error), width=100, preserve_paragraphs=True), err=True)
            sys.exit(error.exit_code)

    return wrapped  # type: ignore[return-value]  # functools.wraps keeps the signature


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


@main.command()
@click.option("--phantom", is_flag=True, help="A synthetic cohort with planted disparities, drawn on this machine.")
@click.option(
    "--table", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="CSV or Parquet, a row per study."
)
@click.option(
    "--inspect",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The INSPECT release as downloaded (docs/inspect.md).",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the table's CT series, or of INSPECT's volumes where they lie apart.",
)
@click.option(
    "--ehr",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of INSPECT's OMOP or MEDS files where they lie apart.",
)
@click.option(
    "--demographics",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Without OMOP or MEDS: person_id, sex, race_ethnicity, birth_date or age.",
)
@click.option(
    "--task", "tasks", multiple=True, help="A task's column; may be given several times [default: the eight]."
)
@click.option("--studies", type=int, help="Size of the phantom [default: 700].")
@click.option("--name", default=None, help="Title of the audit.")
@click.pass_obj
@_told
def init(
    config: Path,
    phantom: bool,
    table: Path | None,
    inspect: Path | None,
    images: Path | None,
    ehr: Path | None,
    demographics: Path | None,
    tasks: tuple[str, ...],
    studies: int | None,
    name: str | None,
) -> None:
    """Write audit.yaml and a first registry of encoders, the cohort checked at once."""
    from fmaudit_core.cohort.source import is_drawn, read_cohort
    from fmaudit_core.scaffold import write_audit
    from fmaudit_core.workspace import open_workspace

    kinds = [name for name, given in (("phantom", phantom), ("table", table), ("inspect", inspect)) if given]
    if len(kinds) != 1 or (table is not None and images is None):
        raise click.UsageError("Give one of --phantom, --inspect DIR, or --table FILE with --images DIR.")
    if inspect is None and (ehr or demographics):
        raise click.UsageError("--ehr and --demographics go with --inspect DIR.")
    paths = {"table": table, "root": inspect, "images": images, "ehr": ehr, "demographics": demographics}
    cohort: dict[str, Any] = {"kind": kinds[0]}
    if phantom:
        cohort |= {"n_studies": studies} if studies else {}
    else:
        cohort |= {key: str(path.absolute()) for key, path in paths.items() if path is not None}
    titles = {"phantom": "Phantom cohort", "inspect": "INSPECT"}
    folder = config.parent
    folder.mkdir(parents=True, exist_ok=True)
    written = write_audit(folder, cohort, name=name or titles.get(kinds[0], folder.name), tasks=tasks)
    workspace = open_workspace(written)
    if is_drawn(workspace):
        try:
            read = read_cohort(workspace)
        except FmauditError:
            written.unlink()
            raise
        click.echo(
            f"{read.studies.height} studies of {read.studies.get_column('patient_id').n_unique()} patients are valid."
        )
        for note, n, unit, detail in read.notes.iter_rows():
            click.echo(f"  {note}: {n} {unit}{f' ({detail})' if detail else ''}")
    click.echo(f"Wrote {written} and {len(workspace.registry.specs())} encoder specs. Next: fmaudit run")


@main.command()
@click.option("--encoder", "encoders", multiple=True, help="Only this encoder; may be given several times.")
@click.option("--task", "tasks", multiple=True, help="Only this task; may be given several times.")
@click.option("--all", "everything", is_flag=True, help="Make everything again, stale or not.")
@click.pass_obj
@_told
def run(config: Path, encoders: tuple[str, ...], tasks: tuple[str, ...], everything: bool) -> None:
    """Materialise what is missing or stale, then print the findings."""
    workspace = _workspace(config)
    _need("dagster", "platform", "fmaudit run")
    from fmaudit_dagster.instance import prepare

    prepare(workspace)
    from fmaudit_dagster.console import run_with_bars
    from fmaudit_dagster.findings_table import print_findings, worse_than_before

    for file, problem in workspace.registry.problems().items():
        click.echo(f"Passed over {file}: {problem}", err=True)
    outcome = run_with_bars(workspace, encoders=encoders, tasks=tasks, everything=everything)
    if not outcome.made and not outcome.failures:
        click.echo("Everything is up to date: nothing to do.")
    print_findings(workspace.reports)
    for cell, why in outcome.failures.items():
        click.echo(f"Failed: {cell}: {why}", err=True)
    worse = worse_than_before(workspace)
    for sentence in worse:
        click.echo(f"Got worse than in the audit before: {sentence}", err=True)
    if outcome.failures or (worse and workspace.audit.reaudit.severity == "error"):
        sys.exit(1)


@main.command()
@click.option("--port", default=3000, show_default=True, help="Port on 127.0.0.1.")
@click.option("--read-only", is_flag=True, help="Let people look, but not launch runs.")
@click.pass_obj
@_told
def ui(config: Path, port: int, read_only: bool) -> None:
    """Serve the Dagster UI of this workspace on 127.0.0.1 until interrupted."""
    workspace = _workspace(config)
    _need("dagster_webserver", "platform", "fmaudit ui")
    from fmaudit_dagster.server import report_address, serve

    click.echo(f"http://127.0.0.1:{port}  (Ctrl-C ends it)")
    click.echo(f"{report_address(port)}  the report")
    sys.exit(serve(workspace, port=port, read_only=read_only))


@main.command()
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    required=True,
    help="CSV or Parquet: study_id, patient_id, split, y_true, y_score, a column per attribute; task and encoder if several.",
)
@click.option(
    "--attributes", help="Columns to compare by, with commas [default: race_ethnicity, sex, age_band if there]."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="assessment", show_default=True)
@click.option("--threshold", type=float, help="Operating threshold; without it one is chosen on the split `val`.")
@click.option("--permutations", type=click.IntRange(min=99), help="Permutations of each test [default: 9999].")
@click.option("--seed", type=int, help="Seed of the permutations [default: 2026].")
@click.option(
    "--threshold-uncertainty", is_flag=True, help="Carry the chosen threshold's own uncertainty into intervals."
)
@_told
def assess(
    predictions: Path,
    attributes: str | None,
    out: Path,
    threshold: float | None,
    permutations: int | None,
    seed: int | None,
    threshold_uncertainty: bool,
) -> None:
    """Assess anybody's predictions: tables as Parquet and CSV, and the page, into --out. Needs no audit.yaml."""
    from fmaudit_core.assessing import assess_file
    from fmaudit_core.config import FairnessSection
    from fmaudit_dagster.findings_table import print_findings

    given = {"n_permutations": permutations, "seed": seed, "threshold_uncertainty": threshold_uncertainty}
    settings = FairnessSection.model_validate({name: value for name, value in given.items() if value is not None})
    names = [name.strip() for name in attributes.split(",") if name.strip()] if attributes else []
    assess_file(predictions, out, attributes=names, settings=settings, threshold=threshold)
    print_findings(out)


@main.group()
def encoders() -> None:
    """List, add and check the encoders of this audit's registry."""


@encoders.command("list")
@click.pass_obj
@_told
def encoders_list(config: Path) -> None:
    """Show the registered encoders, what is wrong with other files, and the specs that ship with fmaudit."""
    from fmaudit_core.encoders.registry import shipped_specs
    from fmaudit_core.encoders.spec import load_spec

    registry = _workspace(config).registry
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
            click.echo(f"{spec.name:<24} needs weights: {spec.published.files[0]} of {spec.published.hub}")


@encoders.command("add")
@click.argument("spec")
@click.option(
    "--weights",
    type=click.Path(path_type=Path, exists=True),
    help="Published weights of a spec that ships without: the file, or its folder.",
)
@click.pass_obj
@_told
def encoders_add(config: Path, spec: str, weights: Path | None) -> None:
    """Validate SPEC, a YAML or the name of a shipped one, and copy it into the registry, its weights proved."""
    from fmaudit_core.encoders.registry import shipped_specs

    source = shipped_specs().get(spec, Path(spec))
    added = _workspace(config).registry.add(source, weights)
    if added.weights and added.weights.sha256_from == "first_seen":
        click.echo(f"No published sha256 is known; recorded that of this file: {added.weights.sha256}")
    click.echo(f"Registered {added.name}. Next: fmaudit encoders check {added.name}, then fmaudit run")


@encoders.command("check")
@click.argument("name")
@click.pass_obj
@_told
def encoders_check(config: Path, name: str) -> None:
    """Prove the weights of encoder NAME, load it, probe it, and time it on this device. Exit code 1 if it must not be used."""
    from fmaudit_core.encoders.check import check_encoder

    workspace = _workspace(config)
    spec = workspace.registry.named(name)
    found = check_encoder(spec, device=workspace.audit.extraction.device, cohort=workspace.cohort_size(spec.view))
    for label, fact in found.facts.items():
        click.echo(f"{label:<14}{fact}")
    for problem in found.problems:
        click.echo(f"problem       {problem}", err=True)
    if found.problems:
        sys.exit(1)
    click.echo(f"{name} is fit for use.")


@main.group()
def baseline() -> None:
    """Audit a model by its predictions alone, beside the encoders."""


@baseline.command("add")
@click.argument("predictions", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", help="Name of the model, such as ct-lrcn [default: of the file].")
@click.option("--task", help="The task it is about, where neither the file nor its name tells.")
@click.pass_obj
@_told
def baseline_add(config: Path, predictions: Path, name: str | None, task: str | None) -> None:
    """Join PREDICTIONS (study_id, y_score; or INSPECT's *_pred_proba.csv) to the cohort, check its labels, and register it."""
    from fmaudit_core.baselines import add_baseline

    for one, found in add_baseline(_workspace(config), predictions, name=name, task=task).items():
        told = found.join.row(0, named=True)
        click.echo(
            f"{told['encoder']}, {one}: {told['n_scored']:,} of {told['n_rows']:,} rows joined by {told['joined_by']}; "
            f"{told['n_missed']:,} of no study here, {told['n_train']:,} of train, {told['n_unlabelled']:,} without a known "
            f"label left out; {told['n_unscored']:,} studies without a prediction."
        )
        if told["n_labels_apart"]:
            click.echo(f"  {told['n_labels_apart']:,} of {told['n_labels']:,} labels differ from ours, which are used.")
        if not found.has_threshold:
            click.echo("  It has no validation studies of both classes, so no threshold: of it AUROC alone is told.")
    click.echo("Next: fmaudit run")


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print a list with one object per series.")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture of the largest series.")
@_told
def series(path: Path, as_json: bool, png: Path | None) -> None:
    """Read the CT series under PATH as the audit would: verdict, geometry, HU statistics, picture."""
    from fmaudit_core.imaging.series import FLAGS, REASONS, read_series

    found = read_series(path)
    if png and found[0].volume_hu is not None:
        from fmaudit_core.imaging.picture import write_montage

        write_montage(png, found[0].volume_hu)
    if as_json:
        click.echo(json.dumps([one.facts() for one in found], indent=2))
        return
    for one in found:
        facts = one.facts()
        click.echo(
            f"{one.status}: {facts['n_files']} files"
            + (f", {one.reason} ({REASONS[one.reason]})" if one.reason else "")
        )
        for flag in one.flags:
            click.echo(f"  {flag}: {FLAGS[flag]}")
        if one.volume_hu is not None:
            z, y, x = facts["shape_zyx"]
            dz, dy, dx = facts["spacing_zyx_mm"]
            click.echo(f"  {z} slices of {y} x {x}, {dz:g} x {dy:g} x {dx:g} mm")
            click.echo(f"  HU {facts['hu_min']} to {facts['hu_max']}, mean {facts['hu_mean']:.1f}")


@main.command()
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@click.pass_obj
@_told
def report(config: Path, show: bool) -> None:
    """Print where the report lies, or open it."""
    from fmaudit_core.report.export import PAGE

    page = _workspace(config).reports / PAGE
    if not page.exists():
        raise FmauditError("there is no report yet.", where=str(page), fix="Run `fmaudit run` first.")
    click.echo(page)
    if show:
        webbrowser.open(page.as_uri())


@main.command()
@click.argument("query", required=False)
@click.pass_obj
@_told
def sql(config: Path, query: str | None) -> None:
    """Run QUERY over the tables, or list them. Embeddings are attached by encoder: "NAME".study_embeddings."""
    import duckdb
    import polars as pl

    warehouse = _workspace(config).warehouse
    with warehouse.connect() as connection:
        try:
            result = connection.sql(query or _TABLES)
        except duckdb.Error as error:
            raise FmauditError(f"the query failed: {str(error).splitlines()[0]}") from error
        with pl.Config(
            tbl_rows=200, tbl_cols=-1, tbl_width_chars=200, fmt_str_lengths=80, tbl_hide_dataframe_shape=True
        ):
            click.echo(result.pl() if result is not None else "done")


def _workspace(config: Path) -> Workspace:
    from fmaudit_core.workspace import open_workspace

    return open_workspace(config)


def _need(module: str, extra: str, command: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(extra, command)


if __name__ == "__main__":
    main()

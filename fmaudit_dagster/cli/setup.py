"""`fmaudit init`, `fmaudit doctor` and `fmaudit completion`: from an empty folder to an audit that can run."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.common.vocabulary import how_many
from fmaudit_core.config import ConfigError
from fmaudit_dagster.cli.error_handling import report_errors, workspace_of
from fmaudit_dagster.cli.local_path import LocalPath

if TYPE_CHECKING:
    from fmaudit_core.ehr.record_look import RecordLook
    from fmaudit_core.setup.finding import Finding

_TITLES: Final = {"phantom": "Phantom cohort", "inspect": "INSPECT"}
_MARKS: Final = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}
_SHELLS: Final[dict[str, str]] = {
    "bash": 'eval "$(fmaudit completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(fmaudit completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "fmaudit completion fish > ~/.config/fish/completions/fmaudit.fish",
}


@click.command()
@click.argument("folder", required=False, type=LocalPath(exists=True, file_okay=False))
@click.option("--phantom", is_flag=True, help="A synthetic cohort with planted disparities, drawn on this machine.")
@click.option("--table", type=LocalPath(exists=True, dir_okay=False), help="CSV or Parquet, a row per study.")
@click.option(
    "--inspect",
    type=LocalPath(exists=True, file_okay=False),
    help="The INSPECT release as downloaded (docs/inspect.md).",
)
@click.option(
    "--images",
    type=LocalPath(exists=True, file_okay=False),
    help="Folder of the table's CT series, or of INSPECT's volumes where they lie apart.",
)
@click.option(
    "--embeddings",
    multiple=True,
    type=LocalPath(exists=True, dir_okay=False),
    help="File of embeddings of the table's studies (.npz, .parquet, .h5); may be given several times. Without it and without "
    "--images, files next to the table are used.",
)
@click.option(
    "--events",
    type=LocalPath(exists=True, dir_okay=False),
    help="The table's medical record: CSV or Parquet with patient_id, time, code, value; the table then needs `time`.",
)
@click.option(
    "--ehr",
    type=LocalPath(exists=True, file_okay=False),
    help="Folder of INSPECT's OMOP or MEDS files where they lie apart.",
)
@click.option(
    "--demographics",
    type=LocalPath(exists=True, dir_okay=False),
    help="Without OMOP or MEDS: person_id, sex, race_ethnicity, birth_date or age.",
)
@click.option("--partial", is_flag=True, help="Accept a partial download of the INSPECT volumes.")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    help="A task's column; may be given several times [default: the eight; of a table: every column of labels].",
)
@click.option("--studies", type=click.IntRange(min=60), help="Size of the phantom [default: 700].")
@click.option("--name", default=None, help="Title of the audit.")
@click.option("--dry-run", is_flag=True, help="Print what would be written for FOLDER or --table FILE; write nothing.")
@click.pass_obj
@report_errors
def init(
    config: Path,
    folder: Path | None,
    phantom: bool,
    table: Path | None,
    inspect: Path | None,
    images: Path | None,
    embeddings: tuple[Path, ...],
    events: Path | None,
    ehr: Path | None,
    demographics: Path | None,
    partial: bool,
    tasks: tuple[str, ...],
    studies: int | None,
    name: str | None,
    dry_run: bool,
) -> None:
    """Write audit.yaml and a first registry of encoders, the cohort checked at once.

    Without --phantom, --table or --inspect, look at FOLDER (the working directory by default) and propose an audit of what
    lies there: a table and its CT series or embeddings, or an INSPECT download.
    """
    from fmaudit_core.setup.write_config import write_audit, write_proposal

    kinds = [kind for kind, given in (("phantom", phantom), ("table", table), ("inspect", inspect)) if given]
    _check_use(
        kinds,
        folder,
        given=bool(images or embeddings or events or ehr or demographics or partial or tasks or studies or name),
        dry_run=dry_run,
    )
    if inspect is None and (ehr or demographics or partial):
        raise click.UsageError("--ehr, --demographics and --partial go with --inspect DIR.")
    if table is None and (events or embeddings):
        raise click.UsageError("--events and --embeddings go with --table FILE.")
    if studies and not phantom:
        raise click.UsageError("--studies goes with --phantom.")
    if config.exists() and not dry_run:
        raise ConfigError("there is one already.", where=str(config), fix="Change it, or move it away first.")
    registry_was_there = (config.parent / "encoders").exists()
    if not kinds or table is not None:
        from fmaudit_core.setup.propose_config import propose, propose_of_table

        if table is None:
            proposal = propose(folder or Path.cwd(), config)
        else:
            proposal = propose_of_table(
                table, config, name=name or config.parent.name or "audit", images=images, events=events,
                embeddings=embeddings, tasks=tasks,
            )  # fmt: skip
        for sentence in proposal.saw:
            click.echo(f"saw      {sentence}", err=dry_run)
        for sentence in proposal.guessed:
            click.echo(f"guessed  {sentence}", err=dry_run)
        if dry_run:
            click.echo(proposal.text, nl=False)
            return
        write_proposal(config, proposal)
    else:
        paths = {"root": inspect, "images": images, "ehr": ehr, "demographics": demographics}
        cohort: dict[str, Any] = {"kind": kinds[0]}
        if phantom:
            cohort |= {"n_studies": studies} if studies else {}
        else:
            cohort |= {key: str(path.absolute()) for key, path in paths.items() if path is not None}
            cohort |= {"partial": True} if partial else {}
        title = name or _TITLES.get(kinds[0]) or config.parent.name or "audit"
        write_audit(config, cohort, name=title, tasks=tasks)
    _check_cohort(config, registry_was_there=registry_was_there)


def _check_use(kinds: list[str], folder: Path | None, *, given: bool, dry_run: bool) -> None:
    if len(kinds) > 1:
        raise click.UsageError("Give one of --phantom, --inspect DIR, or --table FILE.")
    if kinds and folder is not None:
        raise click.UsageError(f"FOLDER is looked at without --{kinds[0]}; give one of the two.")
    if dry_run and kinds not in ([], ["table"]):
        raise click.UsageError("--dry-run goes with FOLDER or --table FILE.")
    if not kinds and given:
        raise click.UsageError(
            "These options go with --phantom, --inspect DIR, or --table FILE; a FOLDER is looked at as it is."
        )


def _check_cohort(config: Path, *, registry_was_there: bool) -> None:
    """Read the cohort that was configured; where it is wrong nothing stays behind."""
    import polars as pl

    from fmaudit_core.cohort.outcomes import OUTCOME_KNOWN
    from fmaudit_core.pipeline.run_cohort import is_drawn, read_cohort
    from fmaudit_core.pipeline.run_ehr_probes import look_at_events
    from fmaudit_core.tabular.errors import CohortError
    from fmaudit_core.tabular.notes import note_sentences
    from fmaudit_dagster.cli.progress_bars import one_bar

    workspace = workspace_of(config)
    if is_drawn(workspace):
        try:
            with one_bar("reading headers of the images") as progress:
                read = read_cohort(workspace, progress=progress)
            look = look_at_events(workspace, read.studies)
        except FmauditError as error:
            config.unlink()
            if not registry_was_there:
                for path in workspace.audit.encoders.iterdir():
                    path.unlink()
                workspace.audit.encoders.rmdir()
            if isinstance(error, CohortError) and workspace.audit.cohort.kind == "table":
                click.echo(
                    "Nothing was written. --dry-run > audit.yaml writes the guess, to be corrected by hand.", err=True
                )
            raise
        click.echo(
            f"{read.studies.height} studies of {read.studies.get_column('patient_id').n_unique()} patients are valid."
        )
        before = None
        for step, n, _ in read.flow.filter(~pl.col("step").str.starts_with(f"{OUTCOME_KNOWN}: ")).iter_rows():
            if before is not None and n < before:
                click.echo(f"  left out by the rule `{step}`: {before - n}")
            before = n
        for sentence in note_sentences(read.notes):
            click.echo(f"  {sentence}")
        if look is not None:
            _print_events(look)
    record = workspace.record
    wording = "none: only imaging is audited" if record is None else f"as {record.form}, alone and together with CT"
    click.echo(f"Medical record: {wording}.")
    specs = workspace.registry.specs()
    coming = (
        "fmaudit run"
        if specs
        else "fmaudit encoders list, then fmaudit encoders add NAME: no encoder is registered yet"
    )
    click.echo(f"Wrote {config} and {how_many(len(specs), 'encoder spec')}. Next: {coming}")


def _print_events(look: RecordLook) -> None:
    """Print how many events there are, and how many are before the studies."""
    others = f", and {look.n_others:,} rows of other patients" if look.n_others else ""
    click.echo(
        f"Events: {look.n_rows:,} rows of {look.n_patients:,} of {look.n_cohort:,} patients{others}; {look.n_before:,} are "
        f"before the study's cutoff, {look.n_same_day:,} on its day at or after the cutoff, {look.n_later:,} later."
    )
    for reason, n in look.lost.items():
        click.echo(f"  {reason}: {n:,} {'row' if n == 1 else 'rows'}, not used")


@click.command()
@click.option(
    "--port", default=3000, show_default=True, type=click.IntRange(1, 65_534), help="The port of `fmaudit ui`."
)
@click.option("--fix", "fix_it", is_flag=True, help="Apply safe fixes.")
@click.option("--cluster", is_flag=True, help="Look at every node of the Ray cluster of `compute:`, too.")
@click.pass_obj
@report_errors
def doctor(config: Path, port: int, fix_it: bool, cluster: bool) -> None:
    """Look at everything an audit needs and report what is wrong and how to fix it. Exit code 1 where there is a problem."""
    from fmaudit_core.setup.doctor import examine

    findings = []
    for finding in examine(config):
        _say(finding)
        findings.append(finding)
    if all(finding.about not in ("audit.yaml", "bucket") or finding.status != "problem" for finding in findings):
        from fmaudit_core.setup.cluster_doctor import examine_cluster
        from fmaudit_dagster.cli.doctor import examine_platform

        workspace = workspace_of(config)
        for finding in chain(
            examine_platform(workspace, port=port, fix_it=fix_it), examine_cluster(workspace) if cluster else ()
        ):
            _say(finding)
            findings.append(finding)
    problems = sum(finding.status == "problem" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    if any(finding.fixable for finding in findings) and not fix_it:
        click.echo("`fmaudit doctor --fix` fixes what is marked with *.")
    if problems:
        click.echo(f"{how_many(problems, 'problem')} and {how_many(warnings, 'warning')}.", err=True)
        sys.exit(1)
    click.echo(f"No problem, {how_many(warnings, 'warning')}." if warnings else "All is well.")


def _say(finding: Finding) -> None:
    mark = "*" if finding.fixable else " "
    click.echo(f"{_MARKS[finding.status]}{mark}{finding.about:<14}{finding.message}")
    if finding.fix:
        click.echo(f"{'':>23}-> {finding.fix}")


@click.command()
@click.argument("shell", type=click.Choice(sorted(_SHELLS)))
@click.option("--how", is_flag=True, help="Print how to install it instead.")
@click.pass_context
def completion(context: click.Context, shell: str, how: bool) -> None:
    """Print the completion script of SHELL: commands, options, and the names of encoders and tasks."""
    from click.shell_completion import get_completion_class

    if how:
        click.echo(_SHELLS[shell])
        return
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click knows no completion for {shell}.")
    script = kind(context.find_root().command, {}, "fmaudit", "_FMAUDIT_COMPLETE")
    click.echo(script.source_template % script.source_vars())

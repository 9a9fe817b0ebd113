"""What to make next when a spec landed or changed, while other steps are still at work. Without any: `stale_steps.py`.

A look at the registry must be cheap: no image file, no cohort table and no checkpoint is read here. Whether those have changed is
for the re-audit to say, which makes the cohort and the slices again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fmaudit_core.encoders.errors import EncoderError
from fmaudit_core.encoders.registry import Registry
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.pipeline.stale_steps import LEVELS, Recorded, Step, stale_steps
from fmaudit_core.pipeline.versions import COHORT_TABLES, Versions
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.digests import digest
from fmaudit_core.storage.report_layout import PAGE
from fmaudit_core.storage.warehouse import WHOLE, Cell

#: whether a step, or one that makes some of the same assets, is at work or waits for its turn
IsRunning = Callable[[Step], bool]
#: why a step is not tried again for the version it would make, None where it may be
FailureReason = Callable[[Step], str | None]

#: levels so short that the findings wait for them; they do not wait for an encoder that encodes for hours
_SHORT = ("probe_fits", "fusion_fits", "probe_predictions")
#: unpartitioned levels that the findings do not read: they neither wait for them nor end with them
_BESIDE = (("mitigation_capacity",),)


@dataclass
class Next:
    """What can be made now, what is awaited, and what has failed as it stands."""

    steps: list[Step] = field(default_factory=list)
    pending: list[Step] = field(default_factory=list)
    #: name of a step -> why it is not tried again until its inputs change
    failure_reasons: dict[str, str] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Whether nothing is to be made and nothing awaited."""
        return not self.steps and not self.pending


def usable_specs(registry: Registry) -> tuple[dict[str, EncoderSpec], dict[str, str]]:
    """Specs whose checkpoint, or file of embeddings, is there, and what is wrong with every other file or encoder, by its name.

    A checkpoint is not read: the step that loads it proves its SHA-256.
    """
    specs, problems = registry.specs(), registry.problems()
    for name, spec in specs.items():
        try:
            spec.located_files()
        except EncoderError as error:
            problems[name] = str(error)
    return {name: spec for name, spec in specs.items() if name not in problems}, problems


def next_steps(
    workspace: Workspace,
    usable: Mapping[str, EncoderSpec],
    *,
    recorded: Recorded,
    is_running: IsRunning,
    failure_reason: FailureReason,
) -> Next:
    """Every step whose inputs are fresh, that is stale itself, is not at work, and has not failed for this version.

    Parameters
    ----------
    usable : mapping of name to EncoderSpec
        The encoders to bring up to date; all that are registered decide what the slices and findings hold.

    Returns
    -------
    Next
        Its steps may run together, in any order. An encoder's chain goes on while another one's waits or has failed; the findings
        wait for no encoding, unless nothing else has changed.
    """
    registered = workspace.registry.specs()
    versions = Versions(workspace, registered)
    found = Next()
    ready = list(usable)
    for level in LEVELS[:-2]:
        # what is being made, by whomever, is not read before it is whole
        at_work = [cell for cell in _cells(level, ready, workspace.audit.tasks) if is_running(Step(level, cell))]
        found.pending += [Step(level, cell) for cell in at_work]
        if WHOLE in at_work and level not in _BESIDE:
            return found
        held = {cell.encoder for cell in at_work}
        for step in _stale(workspace, level, versions, recorded, [name for name in ready if name not in held]):
            _sort_in(found, step, is_running, failure_reason)
            held.add(step.cell.encoder)
        if "" in held and level not in _BESIDE:
            return found
        ready = [name for name in ready if name not in held]
    _findings(found, versions, recorded, is_running, failure_reason)
    return found


def fingerprint(workspace: Workspace) -> str:
    """Digest of all that `next_steps` depends on, by names, sizes and times of files: a look at a few hundred of them at most."""
    specs, _ = usable_specs(workspace.registry)
    made_of = [path for spec in specs.values() for path in spec.located_files()]
    tables = workspace.warehouse.root.rglob("*.parquet")
    embeddings = workspace.warehouse.root.glob("embeddings/*.duckdb")
    registry = workspace.audit.encoders.glob("*.y*ml")
    page = workspace.reports / PAGE
    return digest(sorted(_seen([workspace.audit_yaml, page, *registry, *made_of, *tables, *embeddings])))


def _seen(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:  # not there yet, or replaced at this moment
            yield f"{path}: none"
        else:
            yield f"{path}: {status.st_size} {status.st_mtime_ns}"


def _sort_in(found: Next, step: Step, is_running: IsRunning, failure_reason: FailureReason) -> None:
    if is_running(step):
        found.pending.append(step)
    elif (why := failure_reason(step)) is not None:
        found.failure_reasons[step.name] = why
    else:
        found.steps.append(step)


def _cells(level: Sequence[str], encoders: Sequence[str], tasks: Sequence[str]) -> list[Cell]:
    if level[0] in ("studies", "ct_slices", "ehr_features", "ehr_fits"):
        return [WHOLE]
    if level in _BESIDE:
        return [WHOLE]
    if level[0] in ("probe_predictions", "mitigation_results"):
        return [Cell(encoder, task) for encoder in encoders for task in tasks]
    return [Cell(encoder) for encoder in encoders]


def _stale(
    workspace: Workspace, level: tuple[str, ...], versions: Versions, recorded: Recorded, ready: list[str]
) -> list[Step]:
    if level == COHORT_TABLES:
        made = all(recorded(name, WHOLE) is not None for name in level)
        return [] if made else [Step(level, WHOLE, "first")]
    if level == ("ct_slices",):
        return _stale_slices(workspace, versions, recorded)
    steps = stale_steps(
        workspace,
        level,
        recorded=recorded,
        encoders=versions.encoders,
        only_encoders=ready,
        only_tasks=workspace.audit.tasks,
    )
    return [_with_fits(step, versions, recorded) for step in steps]


def _with_fits(step: Step, versions: Versions, recorded: Recorded) -> Step:
    """An encoder's probes in one run with its embeddings, where the new embeddings will make them stale for certain."""
    if step.assets != ("study_embeddings",):
        return step
    expected = versions.probe_fits(step.cell.encoder, embeddings=step.version)
    if recorded("probe_fits", step.cell) == expected:
        return step
    return Step((*step.assets, "probe_fits"), step.cell, step.version)


def _stale_slices(workspace: Workspace, versions: Versions, recorded: Recorded) -> list[Step]:
    """The slices, where a registered view has none or they are not of the published studies."""
    listed = versions.listed(workspace.warehouse.read("studies"))
    wanted = sorted(versions.views_seen())
    step = Step(("ct_slices",), WHOLE, digest(wanted, listed))
    if not wanted:
        return []
    if recorded("ct_slices", WHOLE) is None or workspace.warehouse.version("ct_views") is None:
        return [step]
    views = workspace.warehouse.read("ct_views")
    of_studies = views.get_column("of_studies").to_list() if "of_studies" in views.columns else []
    there = set(views.get_column("view").to_list())
    return [] if there.issuperset(wanted) and of_studies and set(of_studies) == {listed} else [step]


def _findings(
    found: Next, versions: Versions, recorded: Recorded, is_running: IsRunning, failure_reason: FailureReason
) -> None:
    """Findings and report, once what they read is not just being made."""
    cells = versions.audited_cells()
    if not cells or any(_is_short(step) for step in (*found.steps, *found.pending)):
        return
    audited = {cell.encoder for cell in cells}
    pending = {step.cell.encoder for step in (*found.steps, *found.pending)} - audited
    fresh = {expected := versions.audit_findings(), versions.audit_findings(pending=pending)}
    if pending:  # an encoder that has failed meanwhile is named with what comes next
        failed = {name.split("/")[1] for name in found.failure_reasons if "/" in name} - audited
        fresh.add(versions.audit_findings(pending=pending | failed))
    steps = []
    if recorded("audit_findings", WHOLE) not in fresh:
        steps = [Step(("audit_findings",), WHOLE, expected)]
        if recorded("audit_report", WHOLE) != versions.audit_report(findings=expected):
            steps = [Step(("audit_findings", "audit_report"), WHOLE, expected)]
    elif not (versions.workspace.reports / PAGE).exists() or (
        # new slices alone wait for the encoder they were made for
        found.idle and recorded("audit_report", WHOLE) != versions.audit_report()
    ):
        steps = [Step(("audit_report",), WHOLE, versions.audit_report())]
    for step in steps:
        _sort_in(found, step, is_running, failure_reason)


def _is_short(step: Step) -> bool:
    return step.name.split("/")[0] in _SHORT

"""What to make next: the stale steps whose inputs are fresh, and that are neither running nor failed.

The command line, the daemon and the UI all ask `next_steps`. Whether the cohort's own files changed is asked apart, by
`changed_sources.py`: here no image, no cohort table and no checkpoint is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from fmaudit_core.common.vocabulary import ACQUISITION
from fmaudit_core.pipeline.changed_sources import source_fingerprint
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.steps import STEPS, By, Step
from fmaudit_core.pipeline.versions import expected_version, is_fresh, recorded_version, stale_tables
from fmaudit_core.storage.digests import digest
from fmaudit_core.storage.warehouse import WHOLE, Cell


@dataclass(frozen=True)
class StaleStep:
    """A step to make for one cell.

    Parameters
    ----------
    assets : tuple of str
        Those to make: of a step with several only the stale ones, and those of steps that are made in the same run.
    version : str
        What its tables will have; a step that failed for a version is not tried again for it.
    """

    step: Step
    cell: Cell
    assets: tuple[str, ...]
    version: str = ""

    @property
    def name(self) -> str:
        """Its step, encoder and task."""
        return "/".join(part for part in (self.step.name, self.cell.encoder, self.cell.task) if part)


#: whether one of a step's assets is being made, or waits for its turn
IsRunning = Callable[[StaleStep], bool]
#: why a step is not tried again for its version, None if it may be
FailureReason = Callable[[StaleStep], str | None]


class Held(IntEnum):
    """Why a cell cannot be read yet; the higher one counts."""

    SOON = 1  #: it is to be made
    LONG = 2  #: something that may take hours is to be made first
    FAILED = 3


@dataclass
class Next:
    """What can be made now, what is running, and what failed as it stands."""

    steps: list[StaleStep] = field(default_factory=list)
    pending: list[StaleStep] = field(default_factory=list)
    #: name of a step -> why it is not tried again until its inputs change
    failure_reasons: dict[str, str] = field(default_factory=dict)
    held: dict[tuple[str, Cell], Held] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Whether nothing is to be made and nothing is running."""
        return not self.steps and not self.pending


def next_steps(
    look: Snapshot,
    *,
    encoders: Sequence[str],
    tasks: Sequence[str],
    is_running: IsRunning,
    failure_reason: FailureReason,
) -> Next:
    """Return the stale steps with fresh inputs that are neither running nor already failed for their version.

    They may run together, in any order. One encoder's chain goes on while another's waits or has failed.

    Parameters
    ----------
    encoders, tasks : sequence of str
        What to bring up to date; the findings and the report are of all that is registered and configured.
    """
    found = Next()
    for step in STEPS:
        for cell in step.cells(look, encoders, tasks):
            held = _place(found, look, step, cell, is_running, failure_reason)
            if held is not None:
                found.held[step.name, cell] = held
    return found


def _place(
    found: Next, look: Snapshot, step: Step, cell: Cell, is_running: IsRunning, failure_reason: FailureReason
) -> Held | None:
    """Sort one cell of a step into what is found; return why it cannot be read, None if it can."""
    soon = Held.LONG if step.long else Held.SOON
    running = StaleStep(step, cell, step.assets)
    if is_running(running):
        found.pending.append(running)
        return soon
    if _joins(found, look, step, cell):
        return found.held[step.with_input, cell]
    waits = _waits(found, look, step, cell)
    if waits is not None:
        return waits
    due = _due(found, look, step, cell)
    if due is None:
        return None
    if (why := failure_reason(due)) is not None:
        found.failure_reasons[due.name] = why
        return Held.FAILED
    found.steps.append(due)
    return soon


def _joins(found: Next, look: Snapshot, step: Step, cell: Cell) -> bool:
    """Add a step to the run that makes its input, if both are stale and nothing else is waited for."""
    if not step.with_input:
        return False
    at = next((at for at, one in enumerate(found.steps) if (one.step.name, one.cell) == (step.with_input, cell)), None)
    if at is None or (not step.last and _waits(found, look, step, cell, but=step.with_input) is not None):
        return False
    host, stale = found.steps[at], _stale_assets(look, step, cell)
    found.steps[at] = replace(host, assets=(*host.assets, *stale))
    return True


def _waits(found: Next, look: Snapshot, step: Step, cell: Cell, *, but: str = "") -> Held | None:
    """Return why a cell waits for its inputs: not for gathered cells that take hours, nor for optional inputs that failed."""
    if step.last and not found.idle:
        return Held.SOON
    absent = (but, *step.absent(look, cell), *(() if look.workspace.audit.acquisition_levels else (ACQUISITION,)))
    sources = {
        source.name: source
        for name, source in step.input_steps.items()
        if name not in absent and source.name not in absent
    }
    if step.last:
        sources = {step.with_input: sources[step.with_input]}
    waits: list[Held] = []
    for source in sources.values():
        if step.by == By.WHOLE and source.by != By.WHOLE:
            waits += [held for (name, _), held in found.held.items() if name == source.name and held == Held.SOON]
            continue
        held = found.held.get((source.name, source.by.cell(cell)))
        if held is not None and not (held == Held.FAILED and source.name in step.optional):
            waits.append(held)
    return max(waits, default=None)


def _due(found: Next, look: Snapshot, step: Step, cell: Cell) -> StaleStep | None:
    """Return the step to run for one cell, None if it is fresh."""
    if step.sources:
        return _due_source(look, step)
    if step.gathers and not step.last and any(is_fresh(one, step) for one in _without_pending(found, look)):
        return None
    stale = _stale_assets(look, step, cell)
    return StaleStep(step, cell, tuple(stale), expected_version(look, step, cell)) if stale else None


def _stale_assets(look: Snapshot, step: Step, cell: Cell) -> list[str]:
    """Return the assets to materialise: the stale ones of several, or the only one if any of its tables is stale."""
    if len(step.assets) > 1:
        return stale_tables(look, step, cell)
    return [] if is_fresh(look, step, cell) else list(step.assets)


def _due_source(look: Snapshot, step: Step) -> StaleStep | None:
    """Yield the cohort or the slices if one of their tables is lost, or a registered view has no slices of these studies."""
    lost = any(recorded_version(look, step, table) is None for table in step.tables)
    if step.name == "cohort":
        return StaleStep(step, WHOLE, step.assets, source_fingerprint(look.workspace)) if lost else None
    wanted, listed = look.view_keys(), look.image_list()
    if not lost:
        views = look.workspace.warehouse.read("ct_views")
        of_studies = set(views.get_column("of_studies")) if "of_studies" in views.columns else set()
        if set(wanted) <= set(views.get_column("view")) and of_studies == {listed}:
            return None
    return StaleStep(step, WHOLE, step.assets, digest(wanted, listed))


def _without_pending(found: Next, look: Snapshot) -> Iterator[Snapshot]:
    """Return the workspace with and without encoders that have no statistics yet: a new encoder does not make the findings stale.

    An encoder that failed meanwhile is named with the next findings.
    """
    yield look
    audited = {cell.encoder for cell in look.audited_cells()}
    pending = {step.cell.encoder for step in (*found.steps, *found.pending)} - audited - {""}
    failed = {name.split("/")[1] for name in found.failure_reasons if "/" in name} - audited
    if pending:
        yield look.without(pending)
        yield look.without(pending | failed)

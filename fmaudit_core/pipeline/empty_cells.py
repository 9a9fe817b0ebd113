"""Cells for which a step has nothing to make, and why: they are recorded as such, so that no partition looks forgotten."""

from __future__ import annotations

from typing import Final

from fmaudit_core.pipeline import facts
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.steps import STEPS, By, Condition, Step
from fmaudit_core.storage.warehouse import WHOLE, Cell

_UNMITIGATED: Final = "mitigation is switched off in audit.yaml, or this model has no embeddings."
#: condition of a step -> why it has nothing to make where the condition does not hold
REASONS: Final[dict[Condition, str]] = {
    facts.reads_images: "no encoder reads images, and no attribute or covariate is read from their headers.",
    facts.embeds: "this is a baseline: it has predictions and no embeddings.",
    facts.has_record: "the audit has no medical record.",
    facts.is_fused: "this model is not combined with a medical record.",
    facts.has_networks: "no neural probe is trained on this model; a control has the linear probe only.",
    facts.has_covariates: "audit.yaml declares no covariates.",
    facts.is_refitted: "equal training counts are switched off in audit.yaml, or this model has no embeddings.",
    facts.is_searched: "the search for subgroups is switched off in audit.yaml, or this model has no embeddings.",
    facts.is_mitigated: _UNMITIGATED,
    facts.is_compared: _UNMITIGATED,
    facts.is_audited: "no model is registered.",
}


def why_empty(look: Snapshot, step: Step, cell: Cell) -> str | None:
    """Return why a step has nothing to make for a cell under this audit.yaml and registry; None if it has.

    A step that gathers cells has nothing to make only if none of them ever will have.
    """
    tasks = look.workspace.audit.tasks
    if step.gathers:
        gathered = [source for source in step.input_steps.values() if source.by != By.WHOLE]
        return None if any(source.cells(look, look.encoders, tasks) for source in gathered) else REASONS[step.when]
    encoders = [cell.encoder] if cell.encoder else []
    if cell in step.cells(look, encoders, [cell.task]):
        return None
    return "this model is not audited on this task." if step.when(look, cell) else REASONS[step.when]


def empty_cells(look: Snapshot) -> list[tuple[Step, Cell, str]]:
    """Return every cell of the registered encoders and the audited tasks for which a step has nothing to make, and why."""
    audit = look.workspace.audit
    by_encoder = [Cell(encoder) for encoder in look.encoders]
    every = {
        By.WHOLE: [WHOLE],
        By.ENCODER: by_encoder,
        By.ENCODER_TASK: [Cell(one.encoder, task) for one in by_encoder for task in audit.tasks],
    }
    found = ((step, cell, why_empty(look, step, cell)) for step in STEPS for cell in every[step.by])
    return [(step, cell, why) for step, cell, why in found if why is not None]

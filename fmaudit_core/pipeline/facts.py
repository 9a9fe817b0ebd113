"""What decides a step's tables besides its inputs and settings, and for whom it makes any; `steps.py` declares which."""

from __future__ import annotations

from collections.abc import Sequence

from fmaudit_core.config.published import public_config
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.probes.baseline import JOINED_BY
from fmaudit_core.storage.warehouse import PREVIOUS, Cell


def embeds(look: Snapshot, cell: Cell) -> bool:
    """Return whether the encoder has embeddings; a baseline has none."""
    return look.encoders[cell.encoder].embeds


def has_record(look: Snapshot, _: Cell) -> bool:
    """Return whether the cohort has a medical record that is audited."""
    return look.workspace.record is not None


def is_fused(look: Snapshot, cell: Cell) -> bool:
    """Return whether an encoder is fused with the medical record."""
    return embeds(look, cell) and has_record(look, cell) and "ct+ehr" in look.workspace.audit.probes.modalities


def has_networks(look: Snapshot, cell: Cell) -> bool:
    """Return whether neural probes are trained on an encoder's embeddings."""
    return bool(look.workspace.network_kinds(look.encoders[cell.encoder]))


def is_mitigated(look: Snapshot, cell: Cell) -> bool:
    """Return whether mitigations of an encoder are tried."""
    return look.workspace.audit.mitigation.enabled and embeds(look, cell)


def is_compared(look: Snapshot, _: Cell) -> bool:
    """Return whether there are results of mitigations to compare."""
    return look.workspace.audit.mitigation.enabled and bool(look.mitigated_cells())


def reads_images(look: Snapshot, _: Cell) -> bool:
    """Return whether any encoder is run on CT, or an attribute or covariate is read from its headers."""
    return bool(look.views_seen()) or bool(look.workspace.audit.acquisition_levels)


def has_covariates(look: Snapshot, _: Cell) -> bool:
    """Return whether gaps are standardised for covariates."""
    return bool(look.workspace.audit.covariates)


def is_refitted(look: Snapshot, cell: Cell) -> bool:
    """Return whether an encoder's probes are refitted with equal training counts."""
    return embeds(look, cell) and look.workspace.audit.exploration.training_counts


def is_searched(look: Snapshot, cell: Cell) -> bool:
    """Return whether subgroups that nobody named are searched for among an encoder's studies."""
    return embeds(look, cell) and look.workspace.audit.exploration.discovered_subgroups


def is_audited(look: Snapshot, _: Cell) -> bool:
    """Return whether there are any statistics."""
    return bool(look.audited_cells())


def encoder_input(look: Snapshot, cell: Cell) -> Sequence[object]:
    """Return the encoder and what it reads: the slices of its view, or the list of studies if it looks at no CT."""
    spec = look.encoders[cell.encoder]
    return spec.digest(), look.slices_version(spec.view) if spec.sees_images else look.studies("study_id")


def record_files(look: Snapshot, _: Cell) -> Sequence[object]:
    """Return the fingerprint of the files of the medical record."""
    return (None if look.workspace.record is None else look.workspace.record.fingerprint(),)


def networks(look: Snapshot, cell: Cell) -> Sequence[object]:
    """Return the kinds of neural probes, and the pooling they read."""
    embedded = look.version("study_embeddings", cell) is not None
    kinds = look.workspace.network_kinds(look.encoders[cell.encoder])
    return kinds, look.workspace.primary_pooling(cell.encoder) if embedded else None


def baseline_file(look: Snapshot, cell: Cell) -> Sequence[object]:
    """Return a baseline's file and the columns it is joined by."""
    spec = look.encoders[cell.encoder]
    return () if spec.embeds else (spec.predictions_of(cell.task).sha256, look.studies(*JOINED_BY))


def task_name(_: Snapshot, cell: Cell) -> Sequence[object]:
    """Return the task."""
    return (cell.task,)


def widths(look: Snapshot, _: Cell) -> Sequence[object]:
    """Return the dimension of each mitigated encoder, and whether it is a control."""
    names = sorted({cell.encoder for cell in look.mitigated_cells()})
    return ([(name, look.encoders[name].dim, look.encoders[name].control) for name in names],)


def audit_before(look: Snapshot, _: Cell) -> Sequence[object]:
    """Return the versions of the scores of the audit before."""
    return ({str(cell): look.version(PREVIOUS, cell) for cell in look.audited_cells()},)


def family(look: Snapshot, _: Cell) -> Sequence[object]:
    """Return what the findings tell of each registered encoder."""
    return sorted((name, spec.control, spec.label) for name, spec in look.encoders.items()), look.baselines()


def shown(look: Snapshot, _: Cell) -> Sequence[object]:
    """Return what the report shows of each encoder and of the settings."""
    encoders = {
        name: (
            spec.digest(),
            spec.label,
            spec.licence,
            spec.source,
            spec.control,
            look.version("encoder_sensitivity", Cell(name)),
        )
        for name, spec in look.encoders.items()
    }
    return encoders, public_config(look.workspace.audit)

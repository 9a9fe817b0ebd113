"""Export of the frozen probe of a workspace, and the rule against exporting one that shows who it was trained on."""

from __future__ import annotations

from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.errors import UnknownNameError, did_you_mean
from fmaudit_core.common.formatting import task_title
from fmaudit_core.config import FairnessSection
from fmaudit_core.encoders.embeddings_reader import read_study_ids
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.fairness.thresholds import choose_threshold
from fmaudit_core.pipeline.queries import chosen_c
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.steps import step_of
from fmaudit_core.pipeline.versions import is_fresh
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.probes.primary_score_set import PRIMARY_MODALITY, PRIMARY_PROBE
from fmaudit_core.sites.errors import SiteError
from fmaudit_core.sites.probe_file import Counts, EncoderIdentity, LabelSource, Policy, ProbeFile, Task, Threshold
from fmaudit_core.storage.warehouse import Cell, WarehouseError

#: with fewer training studies per dimension a probe is not exported unless that is accepted
LEAST_PER_DIMENSION: Final = 10


def export_probe(
    look: Snapshot, encoder: str, task: str, *, labels: LabelSource, accept_membership_leak: bool = False
) -> ProbeFile:
    """Return the probe of one encoder and task, in the encoder's primary pooling.

    Parameters
    ----------
    labels : str
        Source of the outcome's labels.
    accept_membership_leak : bool
        Export a probe with fewer than `LEAST_PER_DIMENSION` training studies per dimension.

    Raises
    ------
    UnknownNameError
        The encoder has no embeddings or is not registered, or the task is not audited.
    WarehouseError
        The probe is not fitted on the current inputs.
    SiteError
        The probe may show who was in the training set.
    """
    spec = embedding_spec(look, encoder)
    workspace, cell = look.workspace, Cell(encoder, task)
    if task not in workspace.audit.tasks:
        known = workspace.audit.tasks
        raise UnknownNameError(f"there is no task {did_you_mean(task, known)}; the tasks are {', '.join(known)}.")
    if not (
        is_fresh(look, step_of("probe_fits"), Cell(encoder)) and is_fresh(look, step_of("probe_predictions"), cell)
    ):
        raise WarehouseError(
            "the probe is not fitted on the current inputs.", where=str(cell), fix="Run `fmaudit run` first."
        )
    fit = chosen_fit(workspace, encoder, task)
    if fit["n_train"] < LEAST_PER_DIMENSION * spec.dim and not accept_membership_leak:
        raise SiteError(
            "membership_leak",
            f"{fit['n_train']:,} training studies for {spec.dim:,} dimensions are fewer than {LEAST_PER_DIMENSION} per "
            "dimension, so that the coefficients may show who was in the training set.",
            where=str(cell),
            fix="Train on more studies, or accept it with --accept-membership-leak, as when patients consented to it.",
        )
    return ProbeFile(
        encoder=encoder_identity(spec),
        task=Task(name=task, title=task_title(task, workspace.audit.task_titles), labels=labels),
        pooling=fit["pooling"],
        c=fit["c"],
        coefficients=tuple(fit["coefficients"]),
        intercept=fit["intercept"],
        **_chosen_on_validation(workspace, cell, fit),
    )


def embedding_spec(look: Snapshot, encoder: str) -> EncoderSpec:
    """Return a registered encoder that has embeddings.

    Raises
    ------
    UnknownNameError
        There is none of that name.
    """
    known = sorted(name for name, spec in look.encoders.items() if spec.embeds)
    if encoder not in known:
        raise UnknownNameError(
            f"there is no encoder with embeddings called {did_you_mean(encoder, known)}; there are {', '.join(known)}."
        )
    return look.encoders[encoder]


def encoder_identity(spec: EncoderSpec) -> EncoderIdentity:
    """Return the identity of an encoder; its weights are not known if its embeddings were computed elsewhere."""
    return EncoderIdentity(name=spec.name, digest=spec.digest() if spec.sees_images else None, dim=spec.dim)


def chosen_fit(workspace: Workspace, encoder: str, task: str) -> dict[str, Any]:
    """Return the row of `probe_fits` whose scores are the primary ones: primary pooling, C chosen on validation."""
    pooling = workspace.primary_pooling(encoder)
    c = chosen_c(workspace, Cell(encoder, task), pooling)
    fits = workspace.warehouse.read("probe_fits", Cell(encoder))
    return fits.filter(task=task, pooling=pooling, strategy="none", c=c).row(0, named=True)


def _chosen_on_validation(workspace: Workspace, cell: Cell, fit: dict[str, Any]) -> dict[str, Any]:
    """Return `thresholds` and `counts`."""
    warehouse, settings = workspace.warehouse, workspace.audit.fairness
    scores = warehouse.read("probe_predictions", cell).filter(
        probe=PRIMARY_PROBE, modality=PRIMARY_MODALITY, pooling=fit["pooling"], split="val"
    )
    y_true, y_score = scores.get_column("y_true").to_numpy(), scores.get_column("y_score").to_numpy()
    embedded = read_study_ids(warehouse.embeddings_path(cell.encoder))
    trained = workspace.probed_studies().filter(pl.col("study_id").is_in(embedded), split="train")
    labels = warehouse.read("labels").filter(task=cell.task).join(trained, on="study_id", how="semi")
    least, own = settings.suppress_under, settings.threshold_policy
    policies = sorted(get_args(Policy), key=lambda policy: policy != own)
    return {
        "thresholds": tuple(_threshold(policy, y_true, y_score, settings, str(cell)) for policy in policies),
        "counts": Counts(
            n_train=fit["n_train"],
            n_train_positive=_unless_small(int(labels.get_column("label").sum()), fit["n_train"], least),
            n_validation=len(y_true),
            n_validation_positive=_unless_small(int(y_true.sum()), len(y_true), least),
        ),
    }


def _threshold(
    policy: Policy,
    y_true: npt.NDArray[np.bool_],
    y_score: npt.NDArray[np.float64],
    settings: FairnessSection,
    where: str,
) -> Threshold:
    chosen = settings.model_copy(update={"threshold_policy": policy})
    target = getattr(settings, policy, None)
    return Threshold(policy=policy, target=target, value=choose_threshold(y_true, y_score, chosen, where=where))


def _unless_small(n: int, of: int, least: int) -> int | None:
    return n if min(n, of - n) >= least else None

"""Logistic probes of one audit on disk: what the steps of the platform call."""

from __future__ import annotations

import polars as pl

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.encoders.embeddings_reader import check_embeddings
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.probes.selection import fit_probes


def fit_encoder(workspace: Workspace, spec: EncoderSpec, *, progress: Progress = silent) -> pl.DataFrame:
    """Fit the probes of one encoder, for every task, pooling and C.

    Raises
    ------
    EncoderError
        Its embeddings are not those of every usable study, or of another dimension.
    """
    audit, warehouse = workspace.audit, workspace.warehouse
    path, studies = warehouse.embeddings_path(spec.name), workspace.usable_studies(spec)
    check_embeddings(path, dim=spec.dim, studies=studies)
    return fit_probes(
        workspace.embeddings(spec.name),
        workspace.probed_studies(),
        warehouse.read("labels"),
        encoder=spec.name,
        tasks=audit.tasks,
        c_grid=audit.probes.c_grid,
        progress=progress,
    )

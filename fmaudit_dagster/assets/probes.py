"""Probes on frozen embeddings: all fits of an encoder at once, then the scores of each task."""

from typing import Any

import dagster as dg
import polars as pl

from fmaudit_core.encoders.embeddings_reader import check_embeddings
from fmaudit_core.fairness.thresholds import with_thresholds
from fmaudit_core.pipeline.run_baselines import score_baseline
from fmaudit_core.pipeline.run_ehr_probes import predict
from fmaudit_core.pipeline.run_network_probes import probe_with_networks
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.probes.primary_score_set import of_primary_probe
from fmaudit_core.probes.selection import fit_probes
from fmaudit_core.storage.warehouse import PREVIOUS, Cell
from fmaudit_dagster.assets.embeddings import GPU_POOL
from fmaudit_dagster.configured import gpu_tags
from fmaudit_dagster.metadata import OWNERS, bars, counted, made
from fmaudit_dagster.partitions import ENCODER, ENCODER_BY_TASK, cell_of
from fmaudit_dagster.progress import progress_of
from fmaudit_dagster.resources import AuditWorkspace


@dg.asset(
    group_name="probes",
    partitions_def=ENCODER,
    deps=["study_embeddings", "studies", "labels"],
    kinds={"numpy", "parquet"},
    owners=OWNERS,
)
def probe_fits(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """Logistic probes of one encoder for every task, pooling and C, as columns of one problem."""
    workspace, cell = audit.open(), cell_of(context)
    warehouse = workspace.warehouse
    version = audit.versions(workspace).probe_fits(cell.encoder)
    check_embeddings(
        warehouse.embeddings_path(cell.encoder),
        dim=workspace.registry.spec(cell.encoder).dim,
        studies=workspace.usable_studies(workspace.registry.spec(cell.encoder)),
    )

    fits = fit_probes(
        workspace.embeddings(cell.encoder),
        warehouse.read("studies"),
        warehouse.read("labels"),
        encoder=cell.encoder,
        tasks=workspace.audit.tasks,
        c_grid=workspace.audit.probes.c_grid,
        progress=progress_of(context, f"probes of {cell.encoder}"),
    )

    published = warehouse.publish("probe_fits", fits, version=version, cell=cell)
    return made(published, fits, most_iterations=int(fits.get_column("iterations").to_numpy().max()))


@dg.asset(
    group_name="probes",
    partitions_def=ENCODER,
    deps=["study_embeddings", "studies", "labels"],
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    pool=GPU_POOL,
    op_tags=gpu_tags(),
    tags={"fmaudit/compute": "gpu"},
)
def neural_fits(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """Probes of one encoder that are networks: perceptrons, attention and recurrence over slices; scores on val and test.

    A control is read linearly only: its partition stays empty.
    """
    workspace, cell = audit.open(), cell_of(context)
    version = audit.versions(workspace).neural_fits(cell.encoder)

    found = probe_with_networks(workspace, cell.encoder, progress=progress_of(context, f"networks of {cell.encoder}"))

    workspace.warehouse.publish("probe_seeds", found.seeds, version=version, cell=cell)
    workspace.warehouse.publish("equal_attention", found.equal, version=version, cell=cell)
    published = workspace.warehouse.publish("neural_fits", found.scores, version=version, cell=cell)
    return made(published, found.scores, networks=counted(found.seeds, "status"), chosen=found.seeds["chosen"].sum())


@dg.asset(
    group_name="probes",
    partitions_def=ENCODER_BY_TASK,
    deps=["probe_fits", "ehr_fits", "fusion_fits", "neural_fits", "study_embeddings", "studies", "labels"],
    kinds={"numpy", "parquet"},
    owners=OWNERS,
)
def probe_predictions(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """Scores on val and test of every probe as validation chose it, with the trail of that; a baseline's as they came."""
    workspace, cell = audit.open(), cell_of(context)
    warehouse, versions = workspace.warehouse, audit.versions(workspace)
    version = versions.probe_predictions(cell)
    if cell.encoder in versions.baselines():
        return _baseline(workspace, cell, version)

    predictions = predict(workspace, cell)
    scores = with_thresholds(predictions.scores, workspace.audit.fairness)

    warehouse.keep("probe_predictions", PREVIOUS, cell, before=version)
    warehouse.publish("probe_selection", predictions.trail, version=version, cell=cell)
    published = warehouse.publish("probe_predictions", scores, version=version, cell=cell)
    chosen = predictions.trail.filter("chosen")
    name = pl.concat_str("probe", "modality", "pooling", separator=", ")
    validated = dict(chosen.select(name, "val_auroc").iter_rows())
    return made(
        published,
        scores,
        unscored=predictions.n_unscored,
        validation_auroc=max(of_primary_probe(chosen).get_column("val_auroc").to_list()),
        by_score_set=bars(validated, top=1.0),
    )


def _baseline(workspace: Workspace, cell: Cell, version: str) -> dg.MaterializeResult[Any]:
    """Predictions computed elsewhere, joined to the cohort; and how they were joined."""
    found, warehouse = score_baseline(workspace, cell), workspace.warehouse
    warehouse.keep("probe_predictions", PREVIOUS, cell, before=version)
    warehouse.publish("baseline_joins", found.join, version=version, cell=cell)
    published = warehouse.publish("probe_predictions", found.scores, version=version, cell=cell)
    told = found.join.row(0, named=True)
    return made(published, found.scores, **{name: told[name] for name in told if name not in ("encoder", "task")})

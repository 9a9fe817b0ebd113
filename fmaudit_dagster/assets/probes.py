"""Probes on frozen embeddings: all fits of an encoder at once, then the scores of each task."""

from typing import Any

import dagster as dg
import polars as pl

from fmaudit_core.encoders.store import check_embeddings
from fmaudit_core.fairness.thresholds import with_thresholds
from fmaudit_core.probes.scored import score_sets
from fmaudit_core.probes.selection import choose_and_predict, fit_probes
from fmaudit_core.probing import probe_with_networks
from fmaudit_core.warehouse import PREVIOUS, Cell
from fmaudit_dagster.assets.embeddings import GPU_POOL
from fmaudit_dagster.configured import gpu_tags
from fmaudit_dagster.metadata import OWNERS, bars, counted, made
from fmaudit_dagster.partitions import ENCODER, ENCODER_BY_TASK, cell_of
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
    """Probes of one encoder that are networks: perceptrons, attention and recurrence over slices; scores on val and test."""
    workspace, cell = audit.open(), cell_of(context)
    version = audit.versions(workspace).neural_fits(cell.encoder)

    found = probe_with_networks(workspace, cell.encoder)

    workspace.warehouse.publish("probe_seeds", found.seeds, version=version, cell=cell)
    workspace.warehouse.publish("equal_attention", found.equal, version=version, cell=cell)
    published = workspace.warehouse.publish("neural_fits", found.scores, version=version, cell=cell)
    return made(published, found.scores, networks=counted(found.seeds, "status"), chosen=found.seeds["chosen"].sum())


@dg.asset(
    group_name="probes",
    partitions_def=ENCODER_BY_TASK,
    deps=["probe_fits", "neural_fits", "study_embeddings", "studies", "labels"],
    kinds={"numpy", "parquet"},
    owners=OWNERS,
)
def probe_predictions(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """Scores on val and test by every probe: the logistic ones whose C validation chose, and those fitted as networks."""
    workspace, cell = audit.open(), cell_of(context)
    warehouse = workspace.warehouse
    versions = audit.versions(workspace)
    version = versions.probe_predictions(cell)
    fitted = [warehouse.read(name, Cell(cell.encoder)) for name in versions.scored_fits(cell.encoder)]

    predictions = choose_and_predict(
        warehouse.read("probe_fits", Cell(cell.encoder)),
        workspace.embeddings(cell.encoder),
        warehouse.read("studies"),
        warehouse.read("labels"),
        encoder=cell.encoder,
        task=cell.task,
    )
    more = score_sets(fitted, warehouse.read("studies"), warehouse.read("labels"), task=cell.task)
    scores = with_thresholds(pl.concat([predictions.scores, more]), workspace.audit.fairness)

    warehouse.keep("probe_predictions", PREVIOUS, cell, before=version)
    warehouse.publish("probe_selection", predictions.trail, version=version, cell=cell)
    published = warehouse.publish("probe_predictions", scores, version=version, cell=cell)
    chosen = predictions.trail.filter("chosen")
    validated = dict(chosen.select("pooling", "val_auroc").iter_rows())
    return made(
        published,
        scores,
        unscored=predictions.n_unscored,
        validation_auroc=max(validated.values()),
        by_pooling=bars(validated, top=1.0),
    )

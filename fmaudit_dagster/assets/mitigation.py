"""Would a mitigation help, whom, and at what price: strategies fitted per encoder, held against the probe per task."""

from typing import Any

import dagster as dg
import polars as pl

from fmaudit_core.pipeline.run_mitigation import compare_capacity, evaluate_cell, mitigate_encoder, probe_demographics
from fmaudit_dagster.assets.embeddings import GPU_POOL
from fmaudit_dagster.configured import gpu_tags
from fmaudit_dagster.metadata import OWNERS, bars, counted, made
from fmaudit_dagster.partitions import ENCODER, ENCODER_BY_TASK, cell_of
from fmaudit_dagster.progress import progress_of
from fmaudit_dagster.resources import AuditWorkspace


@dg.asset(
    group_name="embeddings",
    partitions_def=ENCODER,
    deps=["study_embeddings", "probe_fits", "studies"],
    kinds={"numpy", "pytorch", "parquet"},
    owners=OWNERS,
)
def demographic_probes(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """How well race and ethnicity, sex and age are read off the embeddings of one encoder, beside dealt labels."""
    workspace, cell = audit.open(), cell_of(context)
    version = audit.versions(workspace).demographic_probes(cell.encoder)

    probes = probe_demographics(workspace, cell.encoder)

    published = workspace.warehouse.publish("demographic_probes", probes, version=version, cell=cell)
    linear = probes.filter((pl.col("probe") == "logistic") & pl.col("balanced_auroc").is_not_null())
    return made(
        published,
        probes,
        balanced_auroc=bars(dict(linear.select("attribute", "balanced_auroc").iter_rows()), top=1.0),
    )


@dg.asset(
    group_name="mitigation",
    partitions_def=ENCODER,
    deps=["probe_fits", "study_embeddings", "studies", "labels"],
    kinds={"numpy", "pytorch", "parquet"},
    owners=OWNERS,
    pool=GPU_POOL,
    op_tags=gpu_tags(),
    tags={"fmaudit/compute": "gpu"},
)
def mitigation_scores(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """Scores of every strategy aimed at every attribute, for every task; how each was fitted, what fresh probes still read."""
    workspace, cell = audit.open(), cell_of(context)
    version = audit.versions(workspace).mitigation_scores(cell.encoder)

    found = mitigate_encoder(
        workspace, cell.encoder, progress=progress_of(context, f"adversarial training, {cell.encoder}")
    )

    warehouse = workspace.warehouse
    warehouse.publish("mitigation_runs", found.runs, version=version, cell=cell)
    warehouse.publish("mitigation_leakage", found.leakage, version=version, cell=cell)
    published = warehouse.publish("mitigation_scores", found.scores, version=version, cell=cell)
    return made(published, found.scores, runs=counted(found.runs, "status"))


@dg.asset(
    group_name="mitigation",
    partitions_def=ENCODER_BY_TASK,
    deps=["mitigation_scores", "studies"],
    kinds={"numba", "parquet"},
    owners=OWNERS,
)
def mitigation_results(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """Every strategy against the probe as it was: gap, subgroups, AUROC."""
    workspace, cell = audit.open(), cell_of(context)
    version = audit.versions(workspace).mitigation_results(cell)

    found = evaluate_cell(workspace, cell, progress=progress_of(context, f"mitigations of {cell}"))

    warehouse = workspace.warehouse
    warehouse.publish("mitigation_subgroups", found.mitigation_subgroups, version=version, cell=cell)
    results = found.mitigation_results
    published = warehouse.publish("mitigation_results", results, version=version, cell=cell)
    return made(published, results, outcome=counted(results, "status"))


@dg.asset(
    group_name="mitigation",
    deps=["mitigation_results", "mitigation_scores", "demographic_probes"],
    kinds={"numba", "pytorch", "parquet"},
    owners=OWNERS,
)
def mitigation_capacity(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """Reductions against how separable an attribute is; encoders in pairs on the same patients; one along a ladder of widths."""
    workspace = audit.open()
    versions = audit.versions(workspace)
    version = versions.mitigation_capacity()

    found = compare_capacity(
        workspace,
        versions.mitigated_cells(),
        versions.encoders,
        progress=progress_of(context, "the ladder of widths"),
    )

    warehouse = workspace.warehouse
    warehouse.publish("mitigation_interactions", found.mitigation_interactions, version=version)
    warehouse.publish("mitigation_ladder", found.mitigation_ladder, version=version)
    published = warehouse.publish("mitigation_capacity", found.mitigation_capacity, version=version)
    return made(
        published,
        found.mitigation_capacity,
        pairs=found.mitigation_interactions.height,
        rungs=found.mitigation_ladder.height,
    )

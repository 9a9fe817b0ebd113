"""The medical record: features known before each study, and the probes that read them."""

from typing import Any

import dagster as dg
import polars as pl

from fmaudit_core.pipeline.run_ehr_probes import TRAIL_OF, fit_of_record, fuse, read_record
from fmaudit_dagster.metadata import OWNERS, SOURCES_POOL, bars, made
from fmaudit_dagster.partitions import ENCODER, cell_of
from fmaudit_dagster.progress import progress_of
from fmaudit_dagster.resources import AuditWorkspace


@dg.asset(group_name="cohort", deps=["studies"], kinds={"polars", "numba", "parquet"}, owners=OWNERS, pool=SOURCES_POOL)
def ehr_features(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """What the medical record held of each study's patient before its cutoff: days, recency and last value of every code."""
    workspace = audit.open()
    version = audit.versions(workspace).ehr_features()

    found = read_record(workspace, progress=progress_of(context, "reading the medical record"))

    warehouse = workspace.warehouse
    warehouse.publish("ehr_rows", found.rows, version=version)
    warehouse.publish("ehr_vocabulary", found.vocabulary, version=version)
    warehouse.publish("ehr_dropped", found.dropped, version=version)
    published = warehouse.publish("ehr_features", found.features, version=version)
    left_out = found.dropped.filter((pl.col("unit") == "events") & (pl.col("n") > 0))
    return made(
        published,
        found.features,
        cutoff=workspace.audit.ehr.cutoff,
        events=int(found.rows.get_column("n_events").sum()),
        codes=found.vocabulary.height,
        left_out=bars(dict(left_out.select("what", "n").iter_rows())),
    )


@dg.asset(
    group_name="probes",
    deps=["ehr_features", "studies", "labels"],
    kinds={"numpy", "scikit-learn", "parquet"},
    owners=OWNERS,
)
def ehr_fits(audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """Logistic regression and boosted trees on the medical record alone, every task: their scores on val and test."""
    workspace = audit.open()
    version = audit.versions(workspace).ehr_fits()

    found = fit_of_record(workspace)

    warehouse = workspace.warehouse
    warehouse.publish(TRAIL_OF["ehr_fits"], found.trail, version=version)
    warehouse.publish("ehr_coefficients", found.coefficients, version=version)
    published = warehouse.publish("ehr_fits", found.scores, version=version)
    shown = {"by_task": _validated(found.trail, "logistic"), "not_fitted": dict(found.not_fitted)}
    return made(published, found.scores, **shown)


@dg.asset(
    group_name="probes",
    partitions_def=ENCODER,
    deps=["probe_fits", "ehr_fits", "ehr_features", "study_embeddings", "studies", "labels"],
    kinds={"numpy", "parquet"},
    owners=OWNERS,
)
def fusion_fits(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """CT and medical record together, early and late, every task: scores of one encoder on val and test."""
    workspace, cell = audit.open(), cell_of(context)
    version = audit.versions(workspace).fusion_fits(cell.encoder)

    found = fuse(workspace, cell.encoder)

    workspace.warehouse.publish(TRAIL_OF["fusion_fits"], found.trail, version=version, cell=cell)
    published = workspace.warehouse.publish("fusion_fits", found.scores, version=version, cell=cell)
    shown = {"by_task": _validated(found.trail, "logistic"), "not_fitted": dict(found.not_fitted)}
    return made(published, found.scores, **shown)


def _validated(trail: pl.DataFrame, probe: str) -> dg.MarkdownMetadataValue:
    chosen = trail.filter(pl.col("chosen") & (pl.col("probe") == probe))
    return bars(dict(chosen.select("task", "val_auroc").iter_rows()), top=1.0)

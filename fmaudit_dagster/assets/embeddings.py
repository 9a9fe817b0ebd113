"""Frozen encoders turn slices into one DuckDB file of embeddings each."""

from typing import Any

import dagster as dg

from fmaudit_core.pipeline.run_embeddings import embed
from fmaudit_dagster.configured import gpu_tags
from fmaudit_dagster.metadata import OWNERS, bars
from fmaudit_dagster.partitions import ENCODER, cell_of
from fmaudit_dagster.progress import progress_of
from fmaudit_dagster.resources import AuditWorkspace

#: one encoder at a time on one GPU: the pool serialises, the tags let a cluster schedule by resource
GPU_POOL = "gpu"


@dg.asset(
    group_name="embeddings",
    partitions_def=ENCODER,
    deps=["ct_slices"],
    kinds={"pytorch", "duckdb"},
    owners=OWNERS,
    pool=GPU_POOL,
    op_tags=gpu_tags(),
    tags={"fmaudit/compute": "gpu"},
)
def study_embeddings(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """One vector per study and pooling from one frozen encoder, and its slice embeddings beside them."""
    workspace = audit.open()
    encoder = cell_of(context).encoder
    version = audit.versions(workspace).study_embeddings(encoder)
    spec = workspace.registry.spec(encoder)

    result = embed(
        workspace,
        encoder,
        version=version,
        progress=progress_of(context, f"encoding with {encoder}"),
    )

    return dg.MaterializeResult(
        data_version=dg.DataVersion(result.version),
        metadata={
            "dagster/row_count": result.n_studies,
            "slices": result.n_slices,
            "dimension": spec.dim,
            "device": result.device,
            "slices per second": round(result.slices_per_second, 1),
            "batch size": result.batch_size,
            "sha256": spec.sha256 or "no weights",
            "path": dg.MetadataValue.path(str(workspace.warehouse.embeddings_path(encoder))),
            "studies": bars({"embedded": result.n_studies, "failed": result.n_failed}),
        },
    )

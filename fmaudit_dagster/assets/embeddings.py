"""Frozen encoders turn slices into one DuckDB file of embeddings each."""

from collections.abc import Iterator

import dagster as dg

from fmaudit_core.pipeline.run_embeddings import embed, read_together
from fmaudit_dagster.assets.step_asset import Result, Work, step_asset
from fmaudit_dagster.metadata import bars


@step_asset("study_embeddings", kinds={"pytorch", "duckdb"})
def study_embeddings(work: Work) -> Iterator[Result]:
    """One vector per study and pooling from one frozen encoder, and its slice embeddings."""
    encoder = work.cell.encoder
    spec = work.look.encoders[encoder]
    result = embed(
        work.workspace, encoder, version=work.version, together=read_together(work.look, encoder),
        progress=work.progress(f"encoding with {encoder}"),
    )  # fmt: skip
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(result.version),
        metadata={
            "dagster/row_count": result.n_studies,
            "slices": result.n_slices,
            "dimension": spec.dim,
            "device": result.device,
            "slices per second": round(result.slices_per_second, 1),
            "batch size": result.batch_size,
            "sha256": spec.sha256 or "no weights",
            "path": dg.MetadataValue.path(str(work.workspace.warehouse.embeddings_path(encoder))),
            "studies": bars({"embedded": result.n_studies, "failed": result.n_failed}),
        },
    )

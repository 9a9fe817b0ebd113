"""CT series become 8-bit slices, written once per series and view."""

import dagster as dg
import polars as pl

from fmaudit_dagster.metadata import OWNERS, counted, made
from fmaudit_dagster.progress import progress_of
from fmaudit_dagster.resources import AuditWorkspace


@dg.asset(group_name="imaging", deps=["studies"], kinds={"dicom", "zstd"}, owners=OWNERS)
def ct_slices(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult:
    """Slices of every study in the views of all registered encoders; each series accepted or quarantined and why."""
    workspace = audit.open()
    studies = workspace.warehouse.read("studies")
    versions = audit.versions(workspace)
    views = {spec.view.key(): spec.view for spec in versions.encoders.values()}
    images = [(study, workspace.table.images / path) for study, path in studies.select("study_id", "image_path").iter_rows()]

    quality = workspace.slices.build(
        images,
        list(views.values()),
        workers=workspace.audit.imaging.workers,
        min_slices=workspace.audit.imaging.min_slices,
        progress=progress_of(context, "reading CT series"),
    )

    of_view = versions.views(studies)
    table = pl.DataFrame({"view": list(of_view), "version": list(of_view.values())}, schema={"view": pl.String, "version": pl.String})
    published = workspace.warehouse.publish("slice_quality", quality, version=versions.ct_slices(studies))
    workspace.warehouse.publish("ct_views", table, version=published.version)
    quarantined = quality.filter(pl.col("status") == "quarantined")
    return made(
        published,
        quality,
        accepted=quality.height - quarantined.height,
        quarantined=quarantined.height,
        views=len(views),
        **({"quarantined by reason": counted(quarantined, "reason")} if quarantined.height else {}),
    )

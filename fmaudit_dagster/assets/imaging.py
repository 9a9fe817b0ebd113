"""CT series become slices, written once per series and view."""

from typing import Any

import dagster as dg
import polars as pl

from fmaudit_dagster.metadata import OWNERS, SOURCES_POOL, counted, made
from fmaudit_dagster.progress import progress_of
from fmaudit_dagster.resources import AuditWorkspace


@dg.asset(group_name="imaging", deps=["studies"], kinds={"numpy"}, owners=OWNERS, pool=SOURCES_POOL)
def ct_slices(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """Slices of every study in the views of all registered encoders; each series accepted, or quarantined and why."""
    workspace = audit.open()
    studies = workspace.warehouse.read("studies")
    versions = audit.versions(workspace)
    store = workspace.repairing_slice_store()
    made_of = versions.views(studies)

    quality = store.build(
        list(store.images.items()),
        list(versions.views_seen().values()),
        workers=workspace.audit.imaging.workers,
        rules=workspace.series_rules,
        progress=progress_of(context, "reading CT series"),
    )

    version = versions.ct_slices(made_of)
    workspace.warehouse.publish("ct_views", versions.view_table(made_of, studies), version=version)
    published = workspace.warehouse.publish("slice_quality", quality, version=version)
    quarantined = quality.filter(pl.col("status") == "quarantined")
    return made(
        published,
        quality,
        accepted=quality.height - quarantined.height,
        quarantined=quarantined.height,
        outcome=counted(quality.with_columns(pl.concat_str("status", "reason", separator=" ")), "status"),
    )

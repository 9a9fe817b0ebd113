"""Who is audited: validated studies and labels, and the count of every exclusion."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from fmaudit_core.pipeline.run_cohort import read_cohort
from fmaudit_dagster.metadata import OWNERS, SOURCES_POOL, counted, made
from fmaudit_dagster.progress import progress_of
from fmaudit_dagster.resources import AuditWorkspace

_SPECS = [
    dg.AssetSpec(
        name, group_name="cohort", kinds={"polars", "parquet"}, owners=OWNERS, description=text, skippable=True
    )
    for name, text in {
        "studies": "One row per CT study: patient, split, age band, sex, race and ethnicity.",
        "labels": "One row per study and task; NULL where the outcome is censored or unknown.",
        "cohort_flow": "How many studies and patients are left after each rule.",
        "label_flow": "Known and censored outcomes per task, split and subgroup.",
        "cohort_notes": "What was repaired or chosen when the files were read.",
    }.items()
]


@dg.multi_asset(specs=_SPECS, can_subset=True, pool=SOURCES_POOL)
def cohort(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> Iterator[dg.MaterializeResult[Any]]:
    """Read the cohort, validate it whole, publish its tables."""
    workspace = audit.open()
    read = read_cohort(workspace, progress=progress_of(context, "drawing the phantom cohort"))
    versions = audit.versions(workspace).cohort(read)
    known = read.labels.drop_nulls("label")
    plots: dict[str, dict[str, Any]] = {
        "studies": {"by split": counted(read.studies, "split"), "by age band": counted(read.studies, "age_band")},
        "labels": {"positives by task": counted(known.filter("label"), "task")},
    }
    for name, frame in read.tables().items():
        if dg.AssetKey(name) in context.selected_asset_keys:
            published = workspace.warehouse.publish(name, frame, version=versions[name])
            yield made(published, frame, asset=name, **plots.get(name, {}))

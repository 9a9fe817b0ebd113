"""Who is audited: validated studies and labels, and the count of every exclusion."""

import dagster as dg

from fmaudit_core.cohort.source import read_cohort
from fmaudit_dagster.metadata import OWNERS, counted, described
from fmaudit_dagster.progress import progress_of
from fmaudit_dagster.resources import AuditWorkspace

_SPECS = [
    dg.AssetSpec(name, group_name="cohort", kinds={"polars", "parquet"}, owners=OWNERS, description=text, skippable=True)
    for name, text in {
        "studies": "One row per CT study: patient, split, age band, sex, race and ethnicity.",
        "labels": "One row per study and task; NULL where the outcome is censored or unknown.",
        "cohort_flow": "How many studies and patients each rule left out.",
    }.items()
]


@dg.multi_asset(specs=_SPECS, can_subset=True)
def cohort(context: dg.AssetExecutionContext, audit: AuditWorkspace):  # noqa: ANN201  # Dagster reads the generator
    """Read the cohort, validate it whole, publish its tables."""
    workspace = audit.open()
    read = read_cohort(workspace, progress=progress_of(context, "drawing the phantom cohort"))
    versions = audit.versions(workspace).cohort(read)
    frames = {"studies": read.studies, "labels": read.labels, "cohort_flow": read.flow}
    plots = {"studies": ("split", "age_band"), "labels": ("task",), "cohort_flow": ()}
    for name, frame in frames.items():
        if dg.AssetKey(name) not in context.selected_asset_keys:
            continue
        published = workspace.warehouse.publish(name, frame, version=versions[name])
        more = {f"by {column}": counted(frame, column) for column in plots[name]}
        yield dg.MaterializeResult(
            asset_key=name,
            data_version=dg.DataVersion(published.version),
            metadata=described(published, frame, **more),
        )

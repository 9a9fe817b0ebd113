"""For whom it fails, and how sure we are: the statistics of one encoder on one task."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from fmaudit_core.fairness import assess
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.versions import FAIRNESS_TABLES
from fmaudit_core.probes.primary_score_set import is_primary_probe, of_primary_score_set
from fmaudit_dagster.metadata import OWNERS, bars, made, trends
from fmaudit_dagster.partitions import ENCODER_BY_TASK, cell_of
from fmaudit_dagster.progress import progress_of
from fmaudit_dagster.resources import AuditWorkspace

_TEXTS = {
    "subgroup_metrics": "AUROC, TPR, FPR and UDR of every subgroup, with counts and intervals clustered by patient.",
    "fairness_gaps": "How far apart subgroups are, and how far apart equal ones would lie.",
    "threshold_sweep": "TPR and FPR of every subgroup at every threshold, within a simultaneous band.",
    "subgroup_calibration": "Calibration slope, intercept and error of every subgroup.",
    "calibration_tests": "Whether subgroups are calibrated alike: homogeneity of slopes and of intercepts, exploratory.",
    "cross_group_auroc": "How often a positive of one subgroup scores above a negative of another (xAUC).",
    "intersections": "Two attributes at a time: metrics of every intersection, and a corrected search for the worst off.",
    "score_warnings": "What to check about scores, labels and thresholds before a verdict is read.",
}


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            name,
            deps=["probe_predictions", "studies"],
            group_name="fairness",
            kinds={"numba", "parquet"},
            owners=OWNERS,
            description=_TEXTS[name],
            skippable=True,
        )
        for name in FAIRNESS_TABLES
    ],
    partitions_def=ENCODER_BY_TASK,
    can_subset=True,
)
def fairness(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> Iterator[dg.MaterializeResult[Any]]:
    """Assess the predictions of one encoder on one task."""
    workspace, cell = audit.open(), cell_of(context)
    settings = workspace.audit.fairness
    version = audit.versions(workspace).fairness(cell)

    # a baseline without validation studies has no threshold: of it AUROC alone is told
    found = assess(
        queries.predictions(workspace, [cell]),
        attributes=workspace.audit.attributes,
        settings=settings,
        declared=is_primary_probe(),
        unvalidated=True,
        progress=progress_of(context, f"statistics of {cell}"),
    )

    told = pl.col("metric") == settings.primary_metric
    metrics = of_primary_score_set(found.subgroup_metrics.filter(told), settings.primary_pooling)
    shown = metrics.drop_nulls("value")
    gaps = of_primary_score_set(found.fairness_gaps.filter(told), settings.primary_pooling)
    plots: dict[str, dict[str, Any]] = {
        "subgroup_metrics": {
            settings.primary_metric: bars(dict(shown.select("subgroup", "value").iter_rows()), top=1.0),
            **trends(dict(shown.select("subgroup", "value").iter_rows()), f"{settings.primary_metric}: "),
        },
        "fairness_gaps": {
            "gap": bars(dict(gaps.drop_nulls("gap").select("attribute", "gap").iter_rows()), top=1.0),
            **trends(dict(gaps.select("attribute", "gap").iter_rows()), "gap: "),
            **trends(dict(gaps.select("attribute", "p_value").iter_rows()), "p: "),
        },
    }
    for name in FAIRNESS_TABLES:
        if dg.AssetKey(name) in context.selected_asset_keys:
            frame: pl.DataFrame = getattr(found, name)
            published = workspace.warehouse.publish(name, frame, version=version, cell=cell)
            yield made(published, frame, asset=name, **plots.get(name, {}))

"""For whom it fails, and how sure we are: the statistics of one encoder on one task."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.adjusted_gaps import adjusted_gaps as standardise
from fmaudit_core.fairness.assess import Assessment
from fmaudit_core.fairness.discovery import discover
from fmaudit_core.fairness.training_counts import training_counts as refit
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.run_exploration import searched_studies, studies_of_probe
from fmaudit_core.pipeline.steps import FAIRNESS_TABLES
from fmaudit_core.probes.primary_score_set import is_primary_probe, of_primary_score_set
from fmaudit_dagster.assets.step_asset import Result, Work, step_asset
from fmaudit_dagster.metadata import bars, counted, trends

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


@step_asset("fairness", kinds={"numba", "parquet"}, texts=_TEXTS)
def fairness(work: Work) -> Iterator[Result]:
    """Assess the predictions of one encoder on one task."""
    audit = work.workspace.audit
    # a baseline without validation studies has no threshold, so only its AUROC is reported
    found = assess(
        queries.predictions(work.workspace, [work.cell]),
        attributes=audit.attributes,
        settings=audit.fairness,
        declared=is_primary_probe(),
        unvalidated=True,
        progress=work.progress(f"statistics of {work.cell}"),
    )
    frames = {name: getattr(found, name) for name in FAIRNESS_TABLES}
    yield from work.publish_each(frames, _plots(found, audit.fairness))


@step_asset("adjusted_gaps", kinds={"numpy", "parquet"})
def adjusted_gaps(work: Work) -> Iterator[Result]:
    """Every subgroup against the others, before and after standardising for the declared covariates."""
    audit, workspace = work.workspace.audit, work.workspace
    found = standardise(
        queries.standardised_predictions(workspace, work.cell),
        audit.attributes,
        audit.covariates,
        audit.fairness,
        mediators=audit.mediators,
        gaps=workspace.warehouse.read("fairness_gaps", work.cell),
    )
    yield work.publish({"adjusted_gaps": found}, outcome=counted(found, "status"))


@step_asset("training_counts", kinds={"numpy", "parquet"})
def training_counts(work: Work) -> Iterator[Result]:
    """Gaps with the probe refitted on equal training counts of every subgroup, and on as many studies at random."""
    audit = work.workspace.audit
    found = refit(studies_of_probe(work.workspace, work.cell), audit.attributes, audit.fairness)
    frames = {"training_counts": found.counts, "learning_curves": found.curves}
    yield work.publish(frames, outcome=counted(found.counts, "status"))


@step_asset("discovered_subgroups", kinds={"numpy", "parquet"})
def discovered_subgroups(work: Work) -> Iterator[Result]:
    """Subgroups that nobody named: found in training and validation, tested on test, described."""
    found = discover(searched_studies(work.workspace, work.cell), work.workspace.audit.fairness)
    frames = {f"discovered_{name}": getattr(found, name) for name in ("subgroups", "traits", "members")}
    confirmed = int(found.subgroups["confirmed"].sum())
    yield work.publish(frames, outcome=counted(found.subgroups, "status"), confirmed=confirmed)


def _plots(found: Assessment, settings: FairnessSection) -> Mapping[str, Mapping[str, Any]]:
    """Return the metadata and plots of the primary metric."""
    name, primary = settings.primary_metric, settings.primary_pooling
    primary_rows = pl.col("metric") == name
    metrics = of_primary_score_set(found.subgroup_metrics.filter(primary_rows), primary).drop_nulls("value")
    gaps = of_primary_score_set(found.fairness_gaps.filter(primary_rows), primary)
    values = dict(metrics.select("subgroup", "value").iter_rows())
    return {
        "subgroup_metrics": {name: bars(values, top=1.0), **trends(values, f"{name}: ")},
        "fairness_gaps": {
            "gap": bars(dict(gaps.drop_nulls("gap").select("attribute", "gap").iter_rows()), top=1.0),
            **trends(dict(gaps.select("attribute", "gap").iter_rows()), "gap: "),
            **trends(dict(gaps.select("attribute", "p_value").iter_rows()), "p: "),
        },
    }

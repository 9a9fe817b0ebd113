"""What the audit found, and the page that says so."""

from typing import Any

import dagster as dg
import polars as pl

from fmaudit_core.fairness.comparisons import model_comparisons
from fmaudit_core.fairness.findings import findings
from fmaudit_core.fairness.modalities import modality_comparisons
from fmaudit_core.fairness.reaudit import audit_changes
from fmaudit_core.fairness.score_warnings import withhold_verdicts
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.run_network_probes import compare_aggregations
from fmaudit_core.pipeline.run_report import recommendations, report_files, report_input
from fmaudit_core.pipeline.versions import FAIRNESS_TABLES
from fmaudit_core.probes.primary_score_set import of_primary_probe
from fmaudit_core.report.export import write_report
from fmaudit_dagster.execution.run_history import runs_behind
from fmaudit_dagster.metadata import OWNERS, counted, made, report_link, trends
from fmaudit_dagster.resources import AuditWorkspace


@dg.asset(group_name="report", deps=[*FAIRNESS_TABLES, "probe_predictions"], kinds={"numba", "parquet"}, owners=OWNERS)
def audit_findings(audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """A verdict per encoder, task, attribute and metric, corrected over the declared family; encoders compared in
    pairs, each with itself in the audit before, with the medical record in place of CT or beside it, and each way to
    aggregate its slices with their mean.
    """
    workspace = audit.open()
    versions = audit.versions(workspace)
    cells, warehouse = versions.audited_cells(), workspace.warehouse
    version, absent = versions.audit_findings(), versions.unaudited()

    found = findings(
        queries.confirmatory_predictions(workspace, cells, versions.encoders),
        of_primary_probe(warehouse.read_cells("fairness_gaps", cells)),
        of_primary_probe(warehouse.read_cells("subgroup_metrics", cells)),
        attributes=workspace.audit.attributes,
        settings=workspace.audit.fairness,
        titles={name: spec.label for name, spec in versions.encoders.items()},
    )

    # cells of an older fmaudit have no warnings yet
    warned = [cell for cell in cells if warehouse.version("score_warnings", cell) is not None]
    if warned:
        warnings = warehouse.read_cells("score_warnings", warned)
        found = withhold_verdicts(found, warnings, {name: spec.label for name, spec in versions.encoders.items()})

    test, attributes, settings = (
        queries.compared_predictions(workspace, cells),
        workspace.audit.attributes,
        workspace.audit.fairness,
    )
    compared = model_comparisons(test, attributes, settings, baselines=versions.baselines())
    changes = audit_changes(
        test, queries.previous_predictions(workspace, cells), attributes, settings, workspace.audit.reaudit
    )

    modalities = modality_comparisons(queries.modality_predictions(workspace, cells), settings)
    aggregations = compare_aggregations(workspace, cells, versions.encoders)

    warehouse.publish("unaudited", absent, version=version)
    warehouse.publish("modality_comparisons", modalities, version=version)
    warehouse.publish("spatial_aggregation", aggregations, version=version)
    warehouse.publish("audit_changes", changes, version=version)
    warehouse.publish("model_comparisons", compared, version=version)
    published = warehouse.publish("audit_findings", found, version=version)
    warehouse.refresh_views()
    told = found.filter("confirmatory").with_columns(cell=pl.concat_str("encoder", "attribute", separator=", "))
    return made(
        published,
        found,
        disparities=found.filter(verdict="disparity").height,
        verdicts=counted(found, "verdict"),
        **trends(dict(told.select("cell", "p_adjusted").iter_rows()), "adjusted p: "),
        report=report_link(workspace),
        got_worse=changes.filter("worse").height,
        without_findings=", ".join(absent.get_column("encoder").unique().sort()) or "none",
    )


@dg.asset(
    group_name="report",
    deps=[
        "audit_findings", "cohort_flow", "label_flow", "cohort_notes", "ct_slices", "demographic_probes",
        "mitigation_results", "mitigation_capacity",
    ],
    kinds={"plotly"},
    owners=OWNERS,
)  # fmt: skip
def audit_report(context: dg.AssetExecutionContext, audit: AuditWorkspace) -> dg.MaterializeResult[Any]:
    """The page for people and the files for machines; which mitigation to take, or why none; published figures beside ours,
    where the cohort is the paper's.
    """
    workspace = audit.open()
    versions = audit.versions(workspace)
    version = versions.audit_report()

    encoders = [name for name, spec in versions.encoders.items() if spec.embeds]
    runs = runs_behind(context.instance, encoders) | {"audit_report": context.run.run_id}
    shown = report_input(workspace, versions, runs)
    written = write_report(workspace.reports, shown)

    advice = recommendations(written)
    workspace.warehouse.publish("mitigation_recommendations", advice, version=version)
    workspace.warehouse.publish("paper_comparison", shown.paper_comparison, version=version)
    files = report_files(written)
    published = workspace.warehouse.publish("report_files", files, version=version)
    workspace.warehouse.refresh_views()
    return made(
        published,
        files,
        page=report_link(workspace),
        megabytes=written.page.stat().st_size / 1e6,
        recommendations=counted(advice, "verdict"),
    )

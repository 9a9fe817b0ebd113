"""What the audit found, and the page that says so."""

import dagster as dg
import polars as pl

from fmaudit_core.fairness.findings import findings
from fmaudit_core.lineage import file_digest
from fmaudit_core.report.export import write_report
from fmaudit_core.report.inputs import report_input
from fmaudit_dagster.metadata import OWNERS, counted, made
from fmaudit_dagster.resources import AuditWorkspace


@dg.asset(
    group_name="report",
    deps=["subgroup_metrics", "fairness_gaps", "threshold_sweep", "probe_predictions"],
    kinds={"polars", "parquet"},
    owners=OWNERS,
)
def audit_findings(audit: AuditWorkspace) -> dg.MaterializeResult:
    """Verdict per encoder, task, attribute and metric, after correction over the whole family of tests."""
    workspace = audit.open()

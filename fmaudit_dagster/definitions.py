"""The one Definitions object: what `dagster`, the UI and the command line load."""

import dagster as dg

from fmaudit_dagster.assets.cohort import cohort
from fmaudit_dagster.assets.embeddings import study_embeddings
from fmaudit_dagster.assets.fairness import fairness
from fmaudit_dagster.assets.imaging import ct_slices
from fmaudit_dagster.assets.probes import probe_fits, probe_predictions
from fmaudit_dagster.assets.report import audit_findings, audit_report
from fmaudit_dagster.checks import CHECKS
from fmaudit_dagster.resources import served_audit

ASSETS = [
    cohort,
    ct_slices,
    study_embeddings,
    probe_fits,
    probe_predictions,
    fairness,
    audit_findings,
    audit_report,
]

defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=CHECKS,
    resources={"audit": served_audit()},
    # a run is a process of its own already; steps share it, as they share the warehouse
    executor=dg.in_process_executor,
)

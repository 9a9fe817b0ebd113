"""The one Definitions object: what `dagster`, the UI and the command line load."""

from pathlib import Path

import dagster as dg

from fmaudit_core.config import audit_path_from_environment
from fmaudit_dagster.assets.cohort import cohort
from fmaudit_dagster.assets.ehr import ehr_features, ehr_fits, fusion_fits
from fmaudit_dagster.assets.embeddings import study_embeddings
from fmaudit_dagster.assets.fairness import adjusted_gaps, discovered_subgroups, fairness, training_counts
from fmaudit_dagster.assets.imaging import ct_slices
from fmaudit_dagster.assets.mitigation import (
    demographic_probes,
    mitigation_capacity,
    mitigation_results,
    mitigation_scores,
)
from fmaudit_dagster.assets.probes import neural_fits, probe_fits, probe_predictions
from fmaudit_dagster.assets.report import audit_findings, audit_report
from fmaudit_dagster.checks import CHECKS
from fmaudit_dagster.execution.sensors import SCHEDULES, SENSORS
from fmaudit_dagster.resources import AuditWorkspace

ASSETS = [
    cohort,
    ehr_features,
    ct_slices,
    study_embeddings,
    probe_fits,
    ehr_fits,
    fusion_fits,
    neural_fits,
    probe_predictions,
    fairness,
    adjusted_gaps,
    training_counts,
    discovered_subgroups,
    demographic_probes,
    mitigation_scores,
    mitigation_results,
    mitigation_capacity,
    audit_findings,
    audit_report,
]


def definitions_for(audit_yaml: Path) -> dg.Definitions:
    """Return the platform for one audit.yaml; the file is read when a step runs, and may be written later."""
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=CHECKS,
        sensors=SENSORS,
        schedules=SCHEDULES,
        resources={"audit": AuditWorkspace(audit_yaml=str(audit_yaml))},
        # a run is a process of its own already; steps share it, as they share the warehouse
        executor=dg.in_process_executor,
    )


defs = definitions_for(audit_path_from_environment())

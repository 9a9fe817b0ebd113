"""The findings of one audit on disk, and the comparisons published with them: what the step of the platform calls."""

from __future__ import annotations

import polars as pl

from fmaudit_core.fairness.comparisons import model_comparisons
from fmaudit_core.fairness.findings import findings
from fmaudit_core.fairness.modalities import modality_comparisons
from fmaudit_core.fairness.reaudit import audit_changes
from fmaudit_core.fairness.score_warnings import withhold_verdicts
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.run_network_probes import compare_aggregations
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.probes.primary_score_set import of_primary_probe


def find(look: Snapshot) -> dict[str, pl.DataFrame]:
    """Return the findings over all published statistics and every comparison of models, by the table's name."""
    workspace, cells, audit = look.workspace, look.audited_cells(), look.workspace.audit
    test = queries.compared_predictions(workspace, cells)
    before = queries.previous_predictions(workspace, cells)
    return {
        "audit_findings": _verdicts(look),
        "model_comparisons": model_comparisons(test, audit.attributes, audit.fairness, baselines=look.baselines()),
        "modality_comparisons": modality_comparisons(queries.modality_predictions(workspace, cells), audit.fairness),
        "audit_changes": audit_changes(test, before, audit.attributes, audit.fairness, audit.reaudit),
        "spatial_aggregation": compare_aggregations(workspace, cells, look.encoders),
        "unaudited": look.unaudited(),
    }


def _verdicts(look: Snapshot) -> pl.DataFrame:
    """Return a verdict per gap, corrected over the declared family; withheld if a warning requires it."""
    workspace, cells, warehouse = look.workspace, look.audited_cells(), look.workspace.warehouse
    titles = {name: spec.label for name, spec in look.encoders.items()}
    found = findings(
        queries.confirmatory_predictions(workspace, cells, look.encoders),
        of_primary_probe(warehouse.read_cells("fairness_gaps", cells)),
        of_primary_probe(warehouse.read_cells("subgroup_metrics", cells)),
        attributes=workspace.audit.attributes,
        settings=workspace.audit.fairness,
        titles=titles,
    )
    return withhold_verdicts(found, warehouse.read_cells("score_warnings", cells), titles)

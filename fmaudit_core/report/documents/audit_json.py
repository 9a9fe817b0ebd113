"""What audit.json holds: the audit as one document for machines, all of it passed through `disclosure/disclosure.py`.

Its JSON Schema ships as `schemas/audit.schema.json`: keys may be added under the same major version, none may go or change its
meaning. The cards and checklists are written from this document alone, so they can tell nothing that it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import polars as pl

import fmaudit_core
from fmaudit_core.cohort.outcomes import OUTCOME_KNOWN
from fmaudit_core.common.vocabulary import OVERALL, SCORE_SET
from fmaudit_core.config.published import public_config
from fmaudit_core.report.disclosure.disclosure import Disclosed
from fmaudit_core.report.index.report_data import ReportData
from fmaudit_core.report.index.score_set_index import Key, ScoreSetIndex
from fmaudit_core.report.input.report_input import ReportInput
from fmaudit_core.report.sections.mitigation import all_advice
from fmaudit_core.report.sections.subgroups import gap_view
from fmaudit_core.report.sections.summary import executive_summary
from fmaudit_core.report.text.methods import limits, methods, operating_threshold

#: major.minor of the schema; a file of another major version is read by nobody
SCHEMA_VERSION: Final = "1.2"
#: the schema's file next to audit.json, and in the package
SCHEMA: Final = "audit.schema.json"
#: of each score set and metric, so many of the intersections that fare worst go into the summary
_WORST: Final = 3
_SUBGROUP: Final = (
    *SCORE_SET, "attribute", "subgroup", "metric", "status", "counts", "n", "n_pos", "n_neg", "value", "ci_low", "ci_high",
    "mde", "threshold", "threshold_source",
)  # fmt: skip
_FINDING: Final = (
    *SCORE_SET, "attribute", "metric", "confirmatory", "verdict", "gap", "null_expected_gap", "worst_subgroup",
    "best_subgroup", "p_value", "p_gap", "p_adjusted", "q_value", "not_covered", "sentence",
)  # fmt: skip


def schema_text() -> str:
    """Return the JSON Schema of audit.json, as it ships."""
    return files("fmaudit_core.report").joinpath("schemas", SCHEMA).read_text(encoding="utf-8")


def with_report_sentences(shown: ReportData) -> pl.DataFrame:
    """Return findings with the page's sentences: those of the table may count a neighbour of a small group."""
    findings = shown.tables.findings
    wording = [gap_view(shown.index, Key.of(row), row).sentence for row in findings.to_dicts()]
    return findings.with_columns(sentence=pl.Series(wording, dtype=pl.String))


def summary(
    inputs: ReportInput, shown: ReportData, findings: pl.DataFrame, digests: Mapping[str, str]
) -> dict[str, Any]:
    """Return the content of audit.json.

    Parameters
    ----------
    findings : frame
        As `with_report_sentences` gives them.
    digests : mapping of file name to SHA-256
        The CSV files that belong to it.
    """
    tables, index, mitigation_index = shown.tables, shown.index, shown.mitigation_index
    overview = executive_summary(index)
    return {
        "$schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "name": inputs.audit.name,
        "generated_at": inputs.generated_at,
        "fmaudit": fmaudit_core.__version__,
        "headline": overview.headline,
        "main_task": index.main_task,
        "primary_metric": index.primary_metric,
        "verdicts": {one.verdict: one.n for one in overview.counts},
        "findings": [_only(row, _FINDING) for row in findings.iter_rows(named=True)],
        "recommendations": all_advice(index, mitigation_index),
        "subgroup_metrics": _of_main_models(index, tables.metrics),
        **_beside_findings(tables),
        "operating_threshold": operating_threshold(inputs.audit.fairness.threshold_policy, index.threshold_sources()),
        "warnings": tables.warnings.to_dicts(),
        "cohort_counts": tables.studies.to_dicts(),
        "cohort_flow": inputs.flow.to_dicts(),
        "slice_quality": inputs.slice_quality.to_dicts(),
        "methods": [{"about": about, "text": text} for about, text in methods(inputs, shown)],
        "limits": limits(inputs.audit),
        "config": public_config(inputs.audit),
        "encoders": [dict(one) for one in inputs.encoders],
        "provenance": dict(sorted(inputs.provenance.items())),
        "runs": dict(sorted(inputs.runs.items())),
        "tables": dict(digests),
    }


def cohort_size(audit_summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `n_studies` and `n_patients` of the cohort after its last rule; empty if audit.json has no flow.

    The steps after it count the studies whose outcome is known, task by task, and are no smaller cohorts.
    """
    rules = [step for step in audit_summary["cohort_flow"] if step["step"].partition(":")[0] != OUTCOME_KNOWN]
    return rules[-1] if rules else {}


def _of_main_models(index: ScoreSetIndex, metrics: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the subgroup metrics of the primary model of each encoder and task; those of the others are in the CSV."""
    return [_only(row, _SUBGROUP) for row in metrics.iter_rows(named=True) if index.is_main(Key.of(row))]


def _only(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}


def _beside_findings(tables: Disclosed) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the larger tables that readers ask for first; the rest is in the CSV files."""
    tested = tables.cross.filter(status="tested").drop_nulls("value").sort("value")
    ranked = tables.intersections.filter(pl.col("rank") <= _WORST)
    return {
        "calibration": tables.calibration.filter(attribute=OVERALL).to_dicts(),
        "calibration_tests": tables.calibration_tests.drop_nulls("p_value").to_dicts(),
        "lowest_cross_group_auroc": tested.group_by(*SCORE_SET, "attribute", maintain_order=True)
        .first()
        .sort(*SCORE_SET, "attribute")
        .to_dicts(),
        "worst_intersections": ranked.sort(*SCORE_SET, "metric", "rank").to_dicts(),
        "paper_comparison": tables.paper.to_dicts(),
        "model_comparisons": tables.comparisons.filter(attribute=OVERALL).to_dicts(),
        "spatial_aggregation": tables.aggregations.to_dicts(),
        "adjusted_gaps": tables.adjusted.to_dicts(),
        "training_counts": tables.training_counts.to_dicts(),
        "discovered_subgroups": tables.regions.to_dicts(),
        "discovered_traits": tables.traits.to_dicts(),
        "worse_than_before": tables.changes.filter("worse").to_dicts(),
    }

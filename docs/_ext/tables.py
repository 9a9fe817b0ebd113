"""Reference of the warehouse's tables: columns and types from the schemas in the code, meanings from
`fmaudit_core/tables/descriptions.yaml`.

`tests/platform/test_graph.py` holds this list against what an audit publishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import dataframely as dy
import polars as pl

from fmaudit_core.cohort.outcomes import LABEL_FLOW
from fmaudit_core.cohort.schema import Flow, Label, Note, Study
from fmaudit_core.config import EhrSection
from fmaudit_core.ehr.features import day_columns
from fmaudit_core.fairness.aggregation import AGGREGATION_SCHEMA
from fmaudit_core.fairness.assess import METRICS_SCHEMA, SWEEP_SCHEMA
from fmaudit_core.fairness.calibration_tests import TESTS_SCHEMA
from fmaudit_core.fairness.comparisons import COMPARISONS_SCHEMA
from fmaudit_core.fairness.findings import FINDINGS_SCHEMA
from fmaudit_core.fairness.gap_rows import GAPS_SCHEMA
from fmaudit_core.fairness.intersections import INTERSECTIONS_SCHEMA
from fmaudit_core.fairness.modalities import MODALITIES_SCHEMA
from fmaudit_core.fairness.reaudit import CHANGES_SCHEMA
from fmaudit_core.fairness.score_shift import CALIBRATION_SCHEMA, CROSS_SCHEMA
from fmaudit_core.fairness.score_warnings import WARNINGS_SCHEMA
from fmaudit_core.fairness.thresholds import SCORE_SET
from fmaudit_core.imaging.slices import QUALITY_SCHEMA
from fmaudit_core.mitigation.attribute_leakage import LEAKAGE_SCHEMA
from fmaudit_core.mitigation.capacity import CAPACITY_SCHEMA, INTERACTIONS_SCHEMA
from fmaudit_core.mitigation.demographics import PROBES_SCHEMA
from fmaudit_core.mitigation.evaluate import RESULTS_SCHEMA, SUBGROUPS_SCHEMA
from fmaudit_core.mitigation.runs import RUNS_SCHEMA, SCORES_SCHEMA
from fmaudit_core.pipeline.run_mitigation import LADDER_SCHEMA
from fmaudit_core.pipeline.snapshot import UNAUDITED_SCHEMA
from fmaudit_core.probes.baseline import JOINS_SCHEMA
from fmaudit_core.probes.neural import EQUAL_SCHEMA, SEEDS_SCHEMA
from fmaudit_core.probes.neural import SCORES_SCHEMA as NETWORK_SCORES_SCHEMA
from fmaudit_core.report.text.recommendations import TOLD_SCHEMA
from fmaudit_core.reproduction.compare import COMPARISON_SCHEMA
from fmaudit_core.tables.descriptions import meaning_of

_TEXT, _WHOLE, _NUMBER, _TRUTH = pl.String(), pl.Int64(), pl.Float64(), pl.Boolean()
_OF_SET: Final = dict.fromkeys(SCORE_SET, _TEXT)
_PREDICTIONS: Final = {
    **_OF_SET,
    "study_id": _TEXT,
    "patient_id": _TEXT,
    "split": _TEXT,
    "y_true": _TRUTH,
    "y_score": _NUMBER,
    "threshold": _NUMBER,
}
#: scores of further probes, before they are put together with the encoder's own
_FURTHER: Final = {name: kind for name, kind in _PREDICTIONS.items() if name not in ("encoder", "threshold")}
_SELECTION: Final = {
    **{name: kind for name, kind in _OF_SET.items() if name != "strategy"},
    "c": _NUMBER,
    "val_auroc": _NUMBER,
    "chosen": _TRUTH,
}
_OF_TREES: Final = {"leaves": _WHOLE, "trees": _WHOLE}


@dataclass(frozen=True)
class Table:
    """A table of the warehouse: what a row is, what it is cut by, its columns."""

    about: str
    by: str
    schema: pl.Schema


def _table(about: str, by: str, schema: pl.Schema | dict[str, pl.DataType] | type[dy.Schema]) -> Table:
    columns = schema.create_empty().schema if isinstance(schema, type) else schema
    # the words of an enumeration are published as text
    told = {name: _TEXT if isinstance(kind, pl.Enum) else kind for name, kind in columns.items()}
    return Table(about, by, pl.Schema(told))


_WHOLE_COHORT, _ENCODER, _CELL = "", "encoder", "encoder and task"
#: in the order of the asset graph
TABLES: Final = {
    "studies": _table(
        "A CT study. Further attributes follow, `time` where it is known, and of INSPECT what its tables say of a volume.",
        _WHOLE_COHORT,
        Study,
    ),
    "labels": _table("What is known of one task for one study.", _WHOLE_COHORT, Label),
    "cohort_flow": _table("What is left of the cohort after a step.", _WHOLE_COHORT, Flow),
    "label_flow": _table("Known and censored outcomes of a subgroup in a split.", _WHOLE_COHORT, LABEL_FLOW),
    "cohort_notes": _table("What was repaired or chosen when the files were read.", _WHOLE_COHORT, Note),
    "slice_quality": _table("A CT series: accepted, or quarantined and why.", _WHOLE_COHORT, QUALITY_SCHEMA),
    "ct_views": _table(
        "A view some registered encoder has of the slices.",
        _WHOLE_COHORT,
        dict.fromkeys(("view", "version", "values", "windows", "of_studies"), _TEXT),
    ),
    "demographic_probes": _table("How well an attribute is read off the embeddings.", _ENCODER, PROBES_SCHEMA),
    "probe_fits": _table(
        "A fitted probe.",
        _ENCODER,
        {
            **dict.fromkeys(("encoder", "pooling", "strategy", "task"), _TEXT),
            "c": _NUMBER,
            "n_train": _WHOLE,
            "iterations": _WHOLE,
            "intercept": _NUMBER,
            "coefficients": pl.List(pl.Float64),
        },
    ),
    "ehr_features": _table(
        "What a study's past holds of a code; a column `days_N` for each of `ehr: windows_days`. "
        "Tables of the medical record are there where a cohort has one.",
        _WHOLE_COHORT,
        {
            "row": pl.UInt32(),
            "code_id": pl.UInt32(),
            **dict.fromkeys(day_columns(EhrSection().windows_days), pl.UInt32()),
            "days_ago": pl.Float32(),
            "last_value": pl.Float32(),
        },
    ),
    "ehr_rows": _table(
        "A study's past under one cutoff.",
        _WHOLE_COHORT,
        {
            "row": pl.UInt32(),
            **dict.fromkeys(("study_id", "split", "cutoff"), _TEXT),
            **dict.fromkeys(("cutoff_time", "last_event_time"), pl.Datetime("us")),
            "n_events": _WHOLE,
        },
    ),
    "ehr_vocabulary": _table(
        "A code that is kept.",
        _WHOLE_COHORT,
        {"code_id": pl.UInt32(), "code": _TEXT, "n_patients": _WHOLE, "n_with_value": _WHOLE},
    ),
    "ehr_dropped": _table(
        "What of the record was left out.", _WHOLE_COHORT, {"what": _TEXT, "unit": _TEXT, "n": _WHOLE}
    ),
    "ehr_fits": _table("A study's score by a probe on the record alone.", _WHOLE_COHORT, _FURTHER),
    "ehr_selection": _table(
        "A setting of such a probe that was tried.",
        _WHOLE_COHORT,
        {**{name: kind for name, kind in _SELECTION.items() if name != "encoder"}, **_OF_TREES},
    ),
    "ehr_coefficients": _table(
        "What weighs in the logistic probe on the record.",
        _WHOLE_COHORT,
        {"task": _TEXT, "code": _TEXT, "kind": _TEXT, "coefficient": _NUMBER},
    ),
    "fusion_fits": _table("A study's score by a probe on CT and record together.", _ENCODER, _FURTHER),
    "fusion_selection": _table(
        "A setting of such a probe that was tried.",
        _ENCODER,
        {name: kind for name, kind in _SELECTION.items() if name != "encoder"},
    ),
    "neural_fits": _table("A study's score by a probe that is a network.", _ENCODER, NETWORK_SCORES_SCHEMA),
    "probe_seeds": _table("A network that was trained.", _ENCODER, SEEDS_SCHEMA),
    "equal_attention": _table("A study's score by attention that weighs every slice alike.", _ENCODER, EQUAL_SCHEMA),
    "baseline_joins": _table("How a baseline's predictions were joined to the cohort.", _CELL, JOINS_SCHEMA),
    "probe_selection": _table(
        "A setting of a probe that was tried; `leaves` and `trees` where the cohort has a medical record.",
        _CELL,
        {**_SELECTION, **_OF_TREES},
    ),
    "probe_predictions": _table("A study's score.", _CELL, _PREDICTIONS),
    "previous_predictions": _table("A study's score in the audit before.", _CELL, _PREDICTIONS),
    "subgroup_metrics": _table("A metric in a subgroup.", _CELL, METRICS_SCHEMA),
    "fairness_gaps": _table("The gap of a metric by an attribute.", _CELL, GAPS_SCHEMA),
    "threshold_sweep": _table("A subgroup's rates at a threshold.", _CELL, SWEEP_SCHEMA),
    "subgroup_calibration": _table("A subgroup's calibration.", _CELL, CALIBRATION_SCHEMA),
    "calibration_tests": _table("Whether an attribute's subgroups share a calibration parameter.", _CELL, TESTS_SCHEMA),
    "cross_group_auroc": _table("Positives of one subgroup ranked against negatives of another.", _CELL, CROSS_SCHEMA),
    "intersections": _table("A metric in an intersection of attributes.", _CELL, INTERSECTIONS_SCHEMA),
    "score_warnings": _table("What to check before a verdict is read.", _CELL, WARNINGS_SCHEMA),
    "mitigation_scores": _table("A study's score under a run of a strategy.", _ENCODER, SCORES_SCHEMA),
    "mitigation_runs": _table("How a run was fitted.", _ENCODER, RUNS_SCHEMA),
    "mitigation_leakage": _table(
        "What a fresh probe reads of the attribute, before and after.", _ENCODER, LEAKAGE_SCHEMA
    ),
    "mitigation_results": _table(
        "A run of a strategy held against the probe as it was, by one attribute.", _CELL, RESULTS_SCHEMA
    ),
    "mitigation_subgroups": _table("A strategy's change in a subgroup.", _CELL, SUBGROUPS_SCHEMA),
    "mitigation_capacity": _table(
        "A strategy's reduction beside how separable the attribute is.", _WHOLE_COHORT, CAPACITY_SCHEMA
    ),
    "mitigation_interactions": _table("A strategy's reduction under two encoders.", _WHOLE_COHORT, INTERACTIONS_SCHEMA),
    "mitigation_ladder": _table(
        "`mitigation_results` of one encoder projected to fewer dimensions.", _WHOLE_COHORT, LADDER_SCHEMA
    ),
    "audit_findings": _table("A gap, corrected over the declared family and judged.", _WHOLE_COHORT, FINDINGS_SCHEMA),
    "model_comparisons": _table("Two models on the same patients.", _WHOLE_COHORT, COMPARISONS_SCHEMA),
    "spatial_aggregation": _table(
        "A way to put slices together, or another view, held against the mean of the slices.",
        _WHOLE_COHORT,
        AGGREGATION_SCHEMA,
    ),
    "mitigation_recommendations": _table(
        "Which strategy to take for an encoder and task, or why none; judged by the findings, in the words of the report.",
        _WHOLE_COHORT,
        TOLD_SCHEMA,
    ),
    "paper_comparison": _table("A figure of the paper beside ours.", _WHOLE_COHORT, COMPARISON_SCHEMA),
    "modality_comparisons": _table(
        "A model on CT, on the medical record or on both, beside CT alone and the record alone.",
        _WHOLE_COHORT,
        MODALITIES_SCHEMA,
    ),
    "audit_changes": _table("A model against itself in the audit before.", _WHOLE_COHORT, CHANGES_SCHEMA),
    "unaudited": _table("An encoder and task without findings.", _WHOLE_COHORT, UNAUDITED_SCHEMA),
    "report_files": _table("A file of the report.", _WHOLE_COHORT, {"file": _TEXT, "bytes": _WHOLE, "sha256": _TEXT}),
}


def reference() -> str:
    """Markdown of every table under a heading of its own."""
    return "\n\n".join(_section(name, table) for name, table in TABLES.items())


def _section(name: str, table: Table) -> str:
    cut = f" One file per {table.by}." if table.by else ""
    rows = [f"| `{column}` | {_kind(kind)} | {meaning_of(name, column)} |" for column, kind in table.schema.items()]
    return "\n".join([f"(table-{name})=", f"## `{name}`", "", f"{table.about}{cut}", "", *_HEAD, *rows])


_HEAD: Final = ("| column | type | meaning |", "|---|---|---|")


def _kind(kind: pl.DataType) -> str:
    if isinstance(kind, pl.List):
        return f"list of {_kind(kind.inner)}"
    if kind.is_integer():
        return "whole number"
    if kind.is_float():
        return "number"
    return {pl.Boolean: "truth value", pl.Datetime: "time"}.get(type(kind), "text")

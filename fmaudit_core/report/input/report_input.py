"""What a report is made of. Rows about single studies or patients are refused: the page gets counts, never people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from fmaudit_core.config import Audit
from fmaudit_core.report.errors import ReportError
from fmaudit_core.tables.findings import PAPER_COMPARISON
from fmaudit_core.tables.probes import BASELINE_JOINS

#: what tells one trained model from another, within one encoder and task
VARIANT: Final = ("probe", "modality", "pooling", "strategy")
#: one score set: one threshold, one row of every overview
SCORE_SET: Final = ("encoder", "task", *VARIANT)
#: the attribute under which the metrics of all studies together are stored
OVERALL: Final = "overall"

_Columns = dict[str, type[pl.DataType]]


def _columns(names: Sequence[str], of: type[pl.DataType]) -> _Columns:
    return dict.fromkeys(names, of)


_KEY: Final = _columns(SCORE_SET, pl.String)
_NUMBER: Final = pl.Float64
STUDIES: Final = pl.Schema(
    {"split": pl.String, "attribute": pl.String, "subgroup": pl.String, "n_studies": pl.Int64, "n_patients": pl.Int64}
)
FLOW: Final = pl.Schema({"step": pl.String, "n_studies": pl.Int64, "n_patients": pl.Int64})
SLICE_QUALITY: Final = pl.Schema({"status": pl.String, "reason": pl.String, "n": pl.Int64})
METRICS: Final = pl.Schema(
    {
        **_KEY,
        **_columns(("attribute", "subgroup", "metric"), pl.String),
        **_columns(("n", "n_pos", "n_neg"), pl.Int64),
        **_columns(("value", "ci_low", "ci_high"), _NUMBER),
        **_columns(("status",), pl.String),
        **_columns(("mde",), _NUMBER),
    }
)
GAPS: Final = pl.Schema(
    {
        **_KEY,
        **_columns(("attribute", "metric"), pl.String),
        **_columns(("gap", "null_expected_gap"), _NUMBER),
        **_columns(("best_subgroup", "worst_subgroup"), pl.String),
        **_columns(("p_value", "p_gap"), _NUMBER),
    }
)
SWEEP: Final = pl.Schema(
    {
        **_KEY,
        **_columns(("attribute", "subgroup"), pl.String),
        **_columns(("threshold", "tpr", "fpr", "band_low", "band_high"), _NUMBER),
    }
)
#: shown where a table has them
OPTIONAL_METRICS: Final = ("threshold", "p_rest", "p_rest_adjusted", "threshold_source")
#: between the names of crossed attributes, and between those of their levels
CROSSED: Final = " x "
#: one of two models that are compared: all of a score set but its task
MODEL: Final = tuple(name for name in SCORE_SET if name != "task")
_COUNTS: Final = _columns(("n", "n_pos", "n_neg"), pl.Int64)
_ESTIMATE: Final = _columns(("value", "ci_low", "ci_high"), _NUMBER)
CALIBRATION: Final = pl.Schema(
    {
        **_KEY,
        **_columns(("attribute", "subgroup", "status"), pl.String),
        **_COUNTS,
        **_columns(("slope", "slope_low", "slope_high", "intercept", "intercept_low", "intercept_high"), _NUMBER),
        **_columns(("ece", "ece_by_chance"), _NUMBER),
    }
)
CALIBRATION_TESTS: Final = pl.Schema(
    {
        **_KEY,
        **_columns(("attribute", "parameter", "status"), pl.String),
        **_columns(("n_subgroups",), pl.Int64),
        **_columns(("q_statistic", "p_value", "q_value"), _NUMBER),
    }
)
CROSS: Final = pl.Schema(
    {
        **_KEY,
        **_columns(("attribute", "positives_of", "negatives_of", "status"), pl.String),
        **_columns(("n_pos", "n_neg"), pl.Int64),
        **_ESTIMATE,
    }
)
INTERSECTIONS: Final = pl.Schema(
    {
        **_KEY,
        **_columns(("attribute", "subgroup"), pl.String),
        **_columns(("depth",), pl.Int64),
        **_columns(("metric",), pl.String),
        **_COUNTS,
        **_ESTIMATE,
        **_columns(("status",), pl.String),
        **_columns(("mde", "difference", "p_worse", "p_worse_adjusted"), _NUMBER),
        **_columns(("rank",), pl.Int64),
    }
)
COMPARISONS: Final = pl.Schema(
    {
        **_columns(("task",), pl.String),
        **_columns(MODEL, pl.String),
        **_columns([f"other_{name}" for name in MODEL], pl.String),
        **_columns(("attribute", "subgroup", "metric", "status"), pl.String),
        **_COUNTS,
        **_columns(("value", "other_value", "difference", "ci_low", "ci_high"), _NUMBER),
        **_columns(("p_value", "q_value", "p_non_inferior"), _NUMBER),
        **_columns(("non_inferior",), pl.Boolean),
        **_columns(("verdict",), pl.String),
    }
)
CHANGES: Final = pl.Schema(
    {
        **_KEY,
        **_columns(("attribute", "subgroup", "metric", "status"), pl.String),
        **_COUNTS,
        **_columns(("value", "previous_value", "change", "ci_low", "ci_high"), _NUMBER),
        **_columns(("p_value", "q_value", "p_worse", "q_worse"), _NUMBER),
        **_columns(("worse",), pl.Boolean),
    }
)
_OVER: Final = [
    column.format(name) for name in ("ct", "ehr") for column in ("over_{}", "over_{}_low", "over_{}_high", "p_over_{}")
]
MODALITIES: Final = pl.Schema(
    {
        **_columns(("encoder", "task", "probe", "modality", "pooling", "status"), pl.String),
        **_COUNTS,
        **_ESTIMATE,
        **_columns(_OVER, _NUMBER),
    }
)
WARNINGS: Final = pl.Schema(
    {
        **_KEY,
        **_columns(("attribute", "subgroup", "code", "metric"), pl.String),
        **_columns(("withholds",), pl.Boolean),
        **_columns(("value", "low", "high"), _NUMBER),
        **_columns(("other_subgroup",), pl.String),
        **_columns(("other_value",), _NUMBER),
        **_columns(("message",), pl.String),
    }
)
LABEL_FLOW: Final = pl.Schema(
    {
        **_columns(("task", "split", "attribute", "subgroup"), pl.String),
        **_columns(("n_studies", "n_patients", "n_positive", "n_negative", "n_censored"), pl.Int64),
    }
)
NOTES: Final = pl.Schema({"note": pl.String, "n": pl.Int64, "unit": pl.String, "detail": pl.String})
#: order of display
AGGREGATIONS: Final = ("mean", "max", "median", "attention", "lrcn")
SPATIAL: Final = pl.Schema(
    {
        **_columns(("encoder", "task", "comparison", "aggregation", "probe", "view_of", "status"), pl.String),
        **_COUNTS,
        **_columns(("auroc", "ci_low", "ci_high", "reference_auroc"), _NUMBER),
        **_columns(("difference", "difference_low", "difference_high", "p_value", "p_holm", "q_value"), _NUMBER),
        **_columns(("equal_difference", "equal_low", "equal_high", "equal_p"), _NUMBER),
        **_columns(("seeds",), pl.Int64),
        **_columns(("seed_mean", "seed_sd", "n_slices"), _NUMBER),
    }
)
FINDINGS: Final = pl.Schema(
    [
        *GAPS.items(),
        *_columns(("p_adjusted", "q_value"), _NUMBER).items(),
        ("verdict", pl.String),
        ("sentence", pl.String),
    ]
)
#: a run of a strategy
RUN: Final = ("encoder", "task", "strategy", "target_attribute", "alpha", "seed")
_RUN: Final[_Columns] = {
    **_columns(RUN[:4], pl.String),
    **_columns(("alpha",), _NUMBER),
    **_columns(("seed",), pl.Int64),
}
MITIGATION: Final = pl.Schema(
    {
        **_RUN,
        **_columns(("attribute", "status", "reason"), pl.String),
        **_columns(("chosen", "interpretable", "levelling_down"), pl.Boolean),
        **_columns(("auroc", "auroc_before", "auroc_delta", "auroc_delta_low", "auroc_delta_high"), _NUMBER),
        **_columns(("gap_before", "gap_after", "reduction", "ci_low", "ci_high"), _NUMBER),
        **_columns(("p_reduction", "p_adjusted", "p_widened"), _NUMBER),
        **_columns(("worst_subgroup", "best_subgroup"), pl.String),
        **_columns(("worst_subgroup_udr_delta", "best_subgroup_udr_delta"), _NUMBER),
        **_columns(("udr_before", "udr_after", "fpr_before", "fpr_after"), _NUMBER),
        **_columns(("n_seeds", "n_collapsed", "n_diverged"), pl.Int64),
        **_columns(("gap_seed_sd", "auroc_seed_sd", "gap_sampling_se"), _NUMBER),
    }
)
MITIGATED: Final = pl.Schema(
    {
        **_RUN,
        **_columns(("attribute", "subgroup", "metric", "status"), pl.String),
        **_columns(("chosen",), pl.Boolean),
        **_columns(("before", "after", "delta", "ci_low", "ci_high"), _NUMBER),
    }
)
ADVICE: Final = pl.Schema(
    {
        **_columns(("encoder", "task", "strategy", "target_attribute"), pl.String),
        **_columns(("alpha",), _NUMBER),
        **_columns(("verdict",), pl.String),
        **_columns(("reduction", "p_adjusted"), _NUMBER),
        **_columns(("worst_subgroup",), pl.String),
        **_columns(("worst_subgroup_udr_delta", "auroc_delta"), _NUMBER),
    }
)
LEAKAGE: Final = pl.Schema(
    {
        **_RUN,
        **_columns(("stage", "probe"), pl.String),
        **_columns(("macro_f1", "balanced_auroc", "ci_low", "ci_high", "control_balanced_auroc"), _NUMBER),
    }
)
PROBES: Final = pl.Schema(
    {
        **_columns(("encoder", "attribute", "probe"), pl.String),
        **_columns(("macro_f1", "balanced_auroc", "control_macro_f1", "control_balanced_auroc"), _NUMBER),
        **_columns(("ci_low", "ci_high"), _NUMBER),
        **_columns(("status",), pl.String),
        **_columns(("width",), pl.Int64),
    }
)
CAPACITY: Final = pl.Schema(
    {
        **_columns(("encoder", "task", "strategy", "attribute"), pl.String),
        **_columns(("alpha",), _NUMBER),
        **_columns(("width",), pl.Int64),
        **_columns(
            ("balanced_auroc", "control_balanced_auroc", "gap_before", "reduction", "ci_low", "ci_high"), _NUMBER
        ),
        **_columns(("p_reduction", "auroc_delta"), _NUMBER),
        **_columns(("interpretable",), pl.Boolean),
    }
)
INTERACTIONS: Final = pl.Schema(
    {
        **_columns(("task", "strategy", "attribute", "encoder", "other_encoder"), pl.String),
        **_columns(("reduction", "other_reduction", "difference", "ci_low", "ci_high", "p_value", "q_value"), _NUMBER),
    }
)
LADDER: Final = pl.Schema(
    {
        **_columns(("encoder", "task", "strategy", "attribute"), pl.String),
        **_columns(("alpha",), _NUMBER),
        **_columns(("width",), pl.Int64),
        **_columns(("balanced_auroc", "auroc", "gap_before", "reduction", "ci_low", "ci_high"), _NUMBER),
        **_columns(("interpretable",), pl.Boolean),
    }
)


_TABLES: Final[Mapping[str, pl.Schema]] = {
    "studies": STUDIES,
    "flow": FLOW,
    "slice_quality": SLICE_QUALITY,
    "subgroup_metrics": METRICS,
    "fairness_gaps": GAPS,
    "threshold_sweep": SWEEP,
    "audit_findings": FINDINGS,
    "subgroup_calibration": CALIBRATION,
    "calibration_tests": CALIBRATION_TESTS,
    "cross_group_auroc": CROSS,
    "intersections": INTERSECTIONS,
    "model_comparisons": COMPARISONS,
    "audit_changes": CHANGES,
    "modality_comparisons": MODALITIES,
    "score_warnings": WARNINGS,
    "label_flow": LABEL_FLOW,
    "notes": NOTES,
    "baselines": BASELINE_JOINS.schema,
    "paper_comparison": PAPER_COMPARISON.schema,
    "mitigation_results": MITIGATION,
    "mitigation_subgroups": MITIGATED,
    "mitigation_recommendations": ADVICE,
    "mitigation_leakage": LEAKAGE,
    "demographic_probes": PROBES,
    "mitigation_capacity": CAPACITY,
    "mitigation_interactions": INTERACTIONS,
    "mitigation_ladder": LADDER,
    "spatial_aggregation": SPATIAL,
}
_ABOUT_ONE_PERSON: Final = ("study_id", "patient_id", "series_uid", "person_id", "image_path", "y_true", "y_score")


@dataclass(frozen=True)
class ReportInput:
    """Everything the page shows. The same inputs give the same page, byte for byte.

    Parameters
    ----------
    audit : Audit
        The config that was used: methods and limits are written from it.
    subgroup_metrics, fairness_gaps, threshold_sweep, audit_findings : frames
    subgroup_calibration, calibration_tests, cross_group_auroc, intersections, model_comparisons : frames, optional
    audit_changes, spatial_aggregation : frames, optional
        As `fairness/` makes them; counts of small subgroups are withheld here, whatever the frames hold.
    score_warnings : frame of `WARNINGS`, optional
        What to check before a verdict is read; see `fairness/score_warnings.py`.
    modality_comparisons : frame of `MODALITIES`
        What CT, the medical record and both tell, over all studies.
    studies : frame of `STUDIES`
        Studies and patients per split, attribute and subgroup; see `count_studies`.
    flow : frame of `FLOW`
    slice_quality : frame of `SLICE_QUALITY`
        Series per status and reason; see `count_series`.
    label_flow, notes : frames, optional
        Known and censored outcomes, and what was repaired or chosen when the cohort was read; see `cohort/`.
    baselines : frame, optional
        How predictions that were computed elsewhere were joined; see `probes/baseline.py`.
    paper_comparison : frame, optional
        Published figures next to this audit's; see `reproduction/`.
    mitigation_results and the other tables of `mitigation/` : frames, optional
    encoders : sequence of mappings
        `name`, and where known `title`, `dim`, `weights_sha256`, `licence`, `source`, `control`, `n_studies`,
        and `baseline` of a model that is audited by its predictions alone.
    provenance : mapping of str to str
        Input digests and versions.
    runs : mapping of str to str, optional
        Of what was made the id of the run that made it.
    generated_at : str, optional
        Shown as given; without it the page carries no date.

    Raises
    ------
    ReportError
        A frame lacks a column, or holds rows about single studies or patients.
    """

    audit: Audit
    subgroup_metrics: pl.DataFrame
    fairness_gaps: pl.DataFrame
    threshold_sweep: pl.DataFrame
    audit_findings: pl.DataFrame
    subgroup_calibration: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CALIBRATION))
    calibration_tests: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CALIBRATION_TESTS))
    cross_group_auroc: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CROSS))
    intersections: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=INTERSECTIONS))
    model_comparisons: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=COMPARISONS))
    audit_changes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CHANGES))
    modality_comparisons: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=MODALITIES))
    spatial_aggregation: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SPATIAL))
    score_warnings: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=WARNINGS))
    studies: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=STUDIES))
    flow: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=FLOW))
    slice_quality: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SLICE_QUALITY))
    label_flow: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LABEL_FLOW))
    notes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=NOTES))
    baselines: pl.DataFrame = field(default_factory=lambda: BASELINE_JOINS.frame())
    paper_comparison: pl.DataFrame = field(default_factory=lambda: PAPER_COMPARISON.frame())
    mitigation_results: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=MITIGATION))
    mitigation_subgroups: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=MITIGATED))
    mitigation_recommendations: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ADVICE))
    mitigation_leakage: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LEAKAGE))
    demographic_probes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PROBES))
    mitigation_capacity: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CAPACITY))
    mitigation_interactions: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=INTERACTIONS))
    mitigation_ladder: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LADDER))
    encoders: Sequence[Mapping[str, Any]] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)
    generated_at: str | None = None

    def __post_init__(self) -> None:
        for name, schema in _TABLES.items():
            frame: pl.DataFrame = getattr(self, name)
            missing = [column for column in schema if column not in frame.columns]
            if missing:
                raise ReportError(f"the table lacks {', '.join(missing)}.", where=name)
            personal = [column for column in _ABOUT_ONE_PERSON if column in frame.columns]
            if personal:
                raise ReportError(
                    f"the table has the column {', '.join(personal)}: rows about single people do not go into a report.",
                    where=name,
                    fix="Give counts: `count_studies` and `count_series` make them.",
                )


def count_studies(studies: pl.DataFrame, attributes: Sequence[str]) -> pl.DataFrame:
    """Return studies and patients per split, attribute and subgroup, a frame of `STUDIES`.

    Parameters
    ----------
    studies : frame with `split`, `patient_id` and a column per attribute
        Attributes without a column are left out.
    """
    counted = [
        studies.select("split", "patient_id", subgroup=pl.col(attribute).cast(pl.String), attribute=pl.lit(attribute))
        .group_by("split", "attribute", "subgroup")
        .agg(n_studies=pl.len().cast(pl.Int64), n_patients=pl.col("patient_id").n_unique().cast(pl.Int64))
        for attribute in attributes
        if attribute in studies.columns
    ]
    if not counted:
        return pl.DataFrame(schema=STUDIES)
    long = pl.concat(counted).with_columns(pl.col("split").cast(pl.String))
    return long.select(STUDIES.names()).sort("attribute", "subgroup", "split")


def count_series(slice_quality: pl.DataFrame) -> pl.DataFrame:
    """Series per status and reason, a frame of `SLICE_QUALITY`, the most frequent first."""
    counted = slice_quality.group_by("status", pl.col("reason").fill_null("")).agg(n=pl.len().cast(pl.Int64))
    return counted.select(SLICE_QUALITY.names()).sort("status", "n", "reason", descending=[False, True, False])

"""The inputs of a report. Rows about single studies or patients are refused: the page receives counts only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import Audit
from fmaudit_core.report.errors import ReportError
from fmaudit_core.tables import cohort, fairness
from fmaudit_core.tables.cohort import COHORT_FLOW, COHORT_NOTES
from fmaudit_core.tables.encoders import ENCODER_SENSITIVITY
from fmaudit_core.tables.fairness import (
    CROSS_GROUP_AUROC,
    FAIRNESS_GAPS,
    SCORE_WARNINGS,
    SUBGROUP_CALIBRATION,
    SUBGROUP_METRICS,
    THRESHOLD_SWEEP,
)
from fmaudit_core.tables.findings import (
    AUDIT_CHANGES,
    AUDIT_FINDINGS,
    MITIGATION_RECOMMENDATIONS,
    MODALITY_COMPARISONS,
    MODEL_COMPARISONS,
    PAPER_COMPARISON,
    SPATIAL_AGGREGATION,
)
from fmaudit_core.tables.mitigation import (
    DEMOGRAPHIC_PROBES,
    MITIGATION_CAPACITY,
    MITIGATION_INTERACTIONS,
    MITIGATION_LADDER,
    MITIGATION_LEAKAGE,
    MITIGATION_RESULTS,
    MITIGATION_SUBGROUPS,
)
from fmaudit_core.tables.probes import BASELINE_JOINS

_KEY: Final = " ".join(SCORE_SET)
#: a run of a strategy
RUN: Final = ("encoder", "task", "strategy", "target_attribute", "alpha", "seed")
#: between the names of crossed attributes, and between those of their levels
CROSSED: Final = " x "
#: order of display
AGGREGATIONS: Final = ("mean", "max", "median", "attention", "lrcn")
#: shown where a table has them
OPTIONAL_METRICS: Final = ("threshold", "p_rest", "p_rest_adjusted", "threshold_source")

# counts of the tables about single studies, in place of them
STUDIES: Final = pl.Schema(
    {"split": pl.String, "attribute": pl.String, "subgroup": pl.String, "n_studies": pl.Int64, "n_patients": pl.Int64}
)
SLICE_QUALITY: Final = pl.Schema(
    {"status": pl.String, "reason": pl.String, "used": pl.Boolean, "choice": pl.String, "n": pl.Int64}
)
# published tables, or those of their columns that the report shows
FLOW: Final = COHORT_FLOW.schema
LABEL_FLOW: Final = cohort.LABEL_FLOW.schema
NOTES: Final = COHORT_NOTES.schema
METRICS: Final = SUBGROUP_METRICS.part(
    f"{_KEY} attribute subgroup metric n n_pos n_neg value ci_low ci_high status mde"
)
GAPS: Final = FAIRNESS_GAPS.part(
    f"{_KEY} attribute metric gap null_expected_gap best_subgroup worst_subgroup p_value p_gap"
)
FINDINGS: Final = AUDIT_FINDINGS.part(f"{' '.join(GAPS)} p_adjusted q_value verdict sentence")
SWEEP: Final = THRESHOLD_SWEEP.part(f"{_KEY} attribute subgroup threshold tpr fpr band_low band_high")
CALIBRATION: Final = SUBGROUP_CALIBRATION.schema
CALIBRATION_TESTS: Final = fairness.CALIBRATION_TESTS.schema
CROSS: Final = CROSS_GROUP_AUROC.schema
INTERSECTIONS: Final = fairness.INTERSECTIONS.schema
WARNINGS: Final = SCORE_WARNINGS.schema
ADJUSTED: Final = fairness.ADJUSTED_GAPS.schema
TRAINING: Final = fairness.TRAINING_COUNTS.schema
CURVES: Final = fairness.LEARNING_CURVES.schema
DISCOVERED: Final = fairness.DISCOVERED_SUBGROUPS.schema
TRAITS: Final = fairness.DISCOVERED_TRAITS.schema
COMPARISONS: Final = MODEL_COMPARISONS.schema
CHANGES: Final = AUDIT_CHANGES.schema
MODALITIES: Final = MODALITY_COMPARISONS.schema
SPATIAL: Final = SPATIAL_AGGREGATION.schema
SENSITIVITY: Final = ENCODER_SENSITIVITY.schema
MITIGATION: Final = MITIGATION_RESULTS.part(
    f"{' '.join(RUN)} attribute status reason chosen interpretable levelling_down "
    "auroc auroc_before auroc_delta auroc_delta_low auroc_delta_high gap_before gap_after reduction ci_low ci_high "
    "p_reduction p_adjusted p_widened worst_subgroup best_subgroup worst_subgroup_udr_delta best_subgroup_udr_delta "
    "udr_before udr_after fpr_before fpr_after n_seeds n_collapsed n_diverged gap_seed_sd auroc_seed_sd gap_sampling_se"
)
MITIGATED: Final = MITIGATION_SUBGROUPS.part(
    f"{' '.join(RUN)} attribute subgroup metric status chosen before after delta ci_low ci_high"
)
ADVICE: Final = MITIGATION_RECOMMENDATIONS.part(
    "encoder task strategy target_attribute alpha verdict reduction p_adjusted worst_subgroup worst_subgroup_udr_delta "
    "auroc_delta"
)
LEAKAGE: Final = MITIGATION_LEAKAGE.part(
    f"{' '.join(RUN)} stage probe macro_f1 balanced_auroc ci_low ci_high control_balanced_auroc"
)
PROBES: Final = DEMOGRAPHIC_PROBES.part(
    "encoder attribute probe macro_f1 balanced_auroc control_macro_f1 control_balanced_auroc ci_low ci_high status width"
)
CAPACITY: Final = MITIGATION_CAPACITY.part(
    "encoder task strategy attribute alpha width balanced_auroc control_balanced_auroc gap_before reduction ci_low ci_high "
    "p_reduction auroc_delta interpretable"
)
INTERACTIONS: Final = MITIGATION_INTERACTIONS.part(
    "task strategy attribute encoder other_encoder reduction other_reduction difference ci_low ci_high p_value q_value"
)
LADDER: Final = MITIGATION_LADDER.part(
    "encoder task strategy attribute alpha width balanced_auroc auroc gap_before reduction ci_low ci_high interpretable"
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
    "adjusted_gaps": ADJUSTED,
    "training_counts": TRAINING,
    "learning_curves": CURVES,
    "discovered_subgroups": DISCOVERED,
    "discovered_traits": TRAITS,
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
    "encoder_sensitivity": SENSITIVITY,
}
_ABOUT_ONE_PERSON: Final = (
    "study_id",
    "patient_id",
    "study_uid",
    "series_uid",
    "person_id",
    "image_path",
    "y_true",
    "y_score",
)


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
    adjusted_gaps : frame of `ADJUSTED`, optional
        Gaps before and after standardising for covariates; see `fairness/adjusted_gaps.py`.
    encoder_sensitivity : frame of `SENSITIVITY`, optional
        How far alterations of a CT move embeddings; see `encoders/sensitivity.py`.
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
    montages : mapping of (encoder, task, region) to PNG in base64, optional
        Slices of the regions of `discovered_subgroups`; shown only where the region is, and only with `report: images: true`.
    encoders : sequence of mappings
        `name`, and where known `title`, `dim`, `weights_sha256`, `licence`, `source`, `control`, `n_studies`,
        and `baseline` of a model that is audited by its predictions alone.
    provenance : mapping of str to str
        Input digests and versions.
    runs : mapping of str to str, optional
        Of what was made the id of the run that made it.
    cell_runs : mapping of (table, encoder, task) to str, optional
        The same of single partitions.
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
    encoder_sensitivity: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SENSITIVITY))
    score_warnings: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=WARNINGS))
    adjusted_gaps: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ADJUSTED))
    training_counts: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TRAINING))
    learning_curves: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CURVES))
    discovered_subgroups: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DISCOVERED))
    discovered_traits: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TRAITS))
    studies: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=STUDIES))
    flow: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=FLOW))
    slice_quality: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SLICE_QUALITY))
    label_flow: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LABEL_FLOW))
    notes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=NOTES))
    baselines: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=BASELINE_JOINS.schema))
    paper_comparison: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PAPER_COMPARISON.schema))
    mitigation_results: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=MITIGATION))
    mitigation_subgroups: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=MITIGATED))
    mitigation_recommendations: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ADVICE))
    mitigation_leakage: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LEAKAGE))
    demographic_probes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PROBES))
    mitigation_capacity: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CAPACITY))
    mitigation_interactions: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=INTERACTIONS))
    mitigation_ladder: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LADDER))
    montages: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    encoders: Sequence[Mapping[str, Any]] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)
    cell_runs: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
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
    """Series per status, reason and choice, a frame of `SLICE_QUALITY`: the used ones first, then the most frequent."""
    by = ("status", pl.col("reason").fill_null(""), "used", pl.col("choice").fill_null(""))
    counted = slice_quality.group_by(by).agg(n=pl.len().cast(pl.Int64)).select(SLICE_QUALITY.names())
    order = ["status", "used", "n", "reason", "choice"]
    return counted.sort(order, descending=[False, True, True, False, False])

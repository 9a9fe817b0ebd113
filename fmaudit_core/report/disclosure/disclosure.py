"""Small groups stay unseen: what leaves the audit is passed through here first, for the page and the exports alike.

A subgroup under the rule is *protected*: none of its numbers is shown. Its counts must not follow from its neighbours'
either: where an attribute has a protected subgroup, the counts of the others are rounded to tens and their rates to whole
percent, and their threshold curves are drawn in coarse steps, whose height then tells no denominator. Who is protected and how
counts are rounded: `small_group_rounding.py`; intersections: `intersections.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import MODEL, SCORE_SET, subgroup_title
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.findings import judged_as_found
from fmaudit_core.fairness.score_warnings import NONE_OR_ALL_CALLED, STUDIES_PER_PATIENT, message
from fmaudit_core.report.disclosure.adjusted_gaps import shown_adjusted_gaps
from fmaudit_core.report.disclosure.exploration import (
    shown_curves,
    shown_regions,
    shown_training_counts,
    shown_traits,
)
from fmaudit_core.report.disclosure.intersections import shown_intersections
from fmaudit_core.report.disclosure.mitigation import Mitigation, shown_mitigation
from fmaudit_core.report.disclosure.outcomes import shown_label_flow, shown_notes
from fmaudit_core.report.disclosure.reproduction import shown_paper
from fmaudit_core.report.disclosure.small_group_rounding import (
    DECIMALS,
    apply_disclosure,
    flag_protected,
    is_small,
    protected_levels,
)
from fmaudit_core.report.input.report_input import (
    CALIBRATION,
    CALIBRATION_TESTS,
    CHANGES,
    COMPARISONS,
    CROSS,
    OPTIONAL_METRICS,
    SPATIAL,
    WARNINGS,
    ReportInput,
)

#: columns whose values have one row per subgroup
_SUBGROUP: Final = [*SCORE_SET, "attribute"]
_METRIC: Final = [*_SUBGROUP, "metric"]
_COUNTS: Final = ("n", "n_pos", "n_neg")
_VALUES: Final = ("value", "ci_low", "ci_high", "mde")
_ESTIMATE: Final = ("value", "ci_low", "ci_high")
_CALIBRATIONS: Final = (
    "slope", "slope_low", "slope_high", "intercept", "intercept_low", "intercept_high", "ece", "ece_by_chance",
)  # fmt: skip
_DIFFERENCES: Final = ("value", "other_value", "difference", "ci_low", "ci_high")
_CHANGES: Final = ("value", "previous_value", "change", "ci_low", "ci_high")
_CHANGED: Final = ("p_value", "q_value", "p_worse", "q_worse", "worse")
_COMPARED: Final = ("p_value", "q_value", "p_non_inferior", "non_inferior", "verdict")
_PAIR: Final = ("task", *MODEL, *(f"other_{name}" for name in MODEL))
_COARSE_STEP: Final = 0.05
_SWEEP_POINTS: Final = 41
_CURVES: Final = ("tpr", "fpr", "band_low", "band_high", "fpr_band_low", "fpr_band_high")
_SPREADS: Final = ("gap", "null_expected_gap", "null_gap_95", "corrected_sd", "corrected_sd_low", "corrected_sd_high")


@dataclass(frozen=True)
class Disclosed:
    """The tables as they may be shown.

    Parameters
    ----------
    metrics, calibration, comparisons, changes : frames
        With a column `counts`: ``exact``, ``rounded`` or ``withheld``. Withheld rows have no number at all.
    gaps, findings, sweep : frames
    calibration_tests : frame
        As it is: only subgroups with at least 50 patients of each class enter.
    cross : frame
        Pairs of subgroups that may both be shown, with `counts`.
    intersections : frame
        With `counts` as in metrics, but ``unsaid`` in place of ``rounded``: no counts, estimates in whole percent.
    studies : frame
        With `counts` as in metrics.
    mitigation : Mitigation
    label_flow, notes, paper : frames
    warnings : frame
        With messages in the page's words.
    adjusted : frame
        With `counts` as in metrics.
    training_counts, learning_curves, regions, traits : frames
        In whole percent and in tens.
    """

    metrics: pl.DataFrame
    gaps: pl.DataFrame
    findings: pl.DataFrame
    sweep: pl.DataFrame
    calibration: pl.DataFrame
    calibration_tests: pl.DataFrame
    cross: pl.DataFrame
    intersections: pl.DataFrame
    comparisons: pl.DataFrame
    changes: pl.DataFrame
    aggregations: pl.DataFrame
    studies: pl.DataFrame
    mitigation: Mitigation
    label_flow: pl.DataFrame
    notes: pl.DataFrame
    paper: pl.DataFrame
    warnings: pl.DataFrame
    adjusted: pl.DataFrame
    training_counts: pl.DataFrame
    learning_curves: pl.DataFrame
    regions: pl.DataFrame
    traits: pl.DataFrame


def disclose(inputs: ReportInput) -> Disclosed:
    """Withhold, round and thin until no small group can be read off, directly or by subtraction."""
    settings = inputs.audit.fairness
    protected = protected_levels(inputs.subgroup_metrics, _METRIC, None, settings)
    protected = protected_levels(inputs.subgroup_calibration, _SUBGROUP, protected, settings)
    metrics = _metrics(inputs.subgroup_metrics, protected)
    studies = _studies(inputs.studies, protected, inputs.subgroup_metrics, settings.suppress_under)
    regions = shown_regions(inputs.discovered_subgroups, protected)
    return Disclosed(
        metrics=metrics,
        gaps=_rounded_spreads(judged_as_found(inputs.fairness_gaps, inputs.audit_findings), protected),
        findings=_rounded_spreads(inputs.audit_findings, protected),
        sweep=_sweep(inputs.threshold_sweep, protected),
        calibration=_calibration(inputs.subgroup_calibration, protected),
        calibration_tests=inputs.calibration_tests.select(CALIBRATION_TESTS.names()),
        cross=_cross(inputs.cross_group_auroc, metrics, protected),
        intersections=shown_intersections(inputs.intersections, inputs.subgroup_metrics, protected, settings),
        comparisons=_comparisons(inputs.model_comparisons, protected, settings),
        changes=disclosed_changes(inputs.audit_changes, protected, settings),
        studies=studies,
        mitigation=shown_mitigation(inputs, protected),
        label_flow=shown_label_flow(inputs.label_flow, protected, studies, settings),
        notes=shown_notes(inputs.notes, settings),
        paper=shown_paper(inputs, protected),
        aggregations=_aggregations(inputs.spatial_aggregation, settings.suppress_under),
        warnings=_warnings(inputs.score_warnings, protected),
        adjusted=shown_adjusted_gaps(inputs.adjusted_gaps, inputs.audit_findings, protected, settings),
        training_counts=shown_training_counts(inputs.training_counts, protected, settings),
        learning_curves=shown_curves(inputs.learning_curves, protected),
        regions=regions,
        traits=shown_traits(inputs.discovered_traits, regions, protected),
    )


def _metrics(metrics: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    # columns beyond the contract may count too: only known ones of a protected or rounded row pass
    further = [name for name in OPTIONAL_METRICS if name in metrics.columns]
    named = [*_METRIC[:-1], "subgroup", "metric", *_COUNTS, *_VALUES, "status", *further]
    return _suppressed(
        apply_disclosure(
            flag_protected(metrics.select(named), protected), _METRIC, _COUNTS, values=_VALUES, tests=further
        )
    )


def _suppressed(rows: pl.DataFrame) -> pl.DataFrame:
    """Give all withheld rows one status, so that it does not show which class is small."""
    return rows.with_columns(status=pl.when(counts="withheld").then(pl.lit("suppressed")).otherwise("status"))


def _calibration(calibration: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    rows = flag_protected(calibration.select(CALIBRATION.names()), protected)
    return _suppressed(apply_disclosure(rows, _SUBGROUP, _COUNTS, values=_CALIBRATIONS))


def _comparisons(comparisons: pl.DataFrame, protected: pl.DataFrame, settings: FairnessSection) -> pl.DataFrame:
    """Return comparisons as they may be shown: of the fewer studies both models scored, a subgroup may be small here alone."""
    by = [*_PAIR, "attribute", "metric"]
    rows = comparisons.select(COMPARISONS.names())
    here = flag_protected(rows, protected_levels(rows, by, protected, settings))
    return _suppressed(apply_disclosure(here, by, _COUNTS, values=_DIFFERENCES, tests=_COMPARED))


def disclosed_changes(changes: pl.DataFrame, protected: pl.DataFrame, settings: FairnessSection) -> pl.DataFrame:
    """Return changes between two audits as they may be shown: of the fewer studies of both, a subgroup may be small here alone.

    Parameters
    ----------
    changes : frame of `CHANGES`
    protected : frame of task, attribute, subgroup
        Those that are protected already.
    """
    rows = changes.select(CHANGES.names())
    here = flag_protected(rows, protected_levels(rows, _METRIC, protected, settings))
    return _suppressed(apply_disclosure(here, _METRIC, _COUNTS, values=_CHANGES, tests=_CHANGED))


def _aggregations(aggregations: pl.DataFrame, rule: int) -> pl.DataFrame:
    """Withhold all numbers of rows under the rule; rows are of all studies together, so no neighbour reveals them."""
    rows = aggregations.select(SPATIAL.names())
    hidden = is_small(rule)
    shown = [
        pl.when(hidden).then(None).otherwise(name).alias(name) for name, kind in SPATIAL.items() if kind != pl.String
    ]
    few = hidden & pl.col("status").is_in(["tested", "interval_only", "reference"])
    return rows.with_columns(*shown, status=pl.when(few).then(pl.lit("suppressed")).otherwise("status"))


def _warnings(warnings: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    """Return warnings that name no protected subgroup; next to one, numbers are rounded and exact counts left out."""
    rows = flag_protected(warnings.select(WARNINGS.names()), protected)
    others = protected.rename({"subgroup": "other_subgroup"})
    rows = rows.join(others, on=["task", "attribute", "other_subgroup"], how="anti", maintain_order="left")
    # that no study of a subgroup is called positive is a count: its neighbours' would follow from the total
    rows = rows.filter(~pl.col("protected") & ~(pl.col("coarse") & (pl.col("code") == NONE_OR_ALL_CALLED)))
    rounded = {
        name: pl.when(code=STUDIES_PER_PATIENT).then(pl.col(name).round(1)).otherwise(pl.col(name).round(DECIMALS))
        for name in ("value", "low", "high", "other_value")
    }
    numbers = [pl.when("coarse").then(coarse).otherwise(name).alias(name) for name, coarse in rounded.items()]
    rows = rows.with_columns(numbers).drop("protected", "coarse")
    wording = [message(row, subgroup_title) for row in rows.iter_rows(named=True)]
    order = [*SCORE_SET, "attribute", "subgroup", "code", "metric"]
    return rows.with_columns(message=pl.Series(wording, dtype=pl.String)).sort(order)


def _cross(cross: pl.DataFrame, metrics: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    """Return pairs of subgroups that may be shown, with the counts of the subgroups as they are shown elsewhere."""
    rows = cross.select(CROSS.names())
    for end in ("positives_of", "negatives_of"):
        hidden = protected.rename({"subgroup": end})
        rows = rows.join(hidden, on=["task", "attribute", end], how="anti", maintain_order="left")
    shown = metrics.filter(counts="rounded").unique([*_SUBGROUP, "subgroup"], maintain_order=True)
    for end, count in (("positives_of", "n_pos"), ("negatives_of", "n_neg")):
        own = shown.select(*_SUBGROUP, pl.col("subgroup").alias(end), pl.col(count).alias(f"told_{count}"))
        rows = rows.join(own, on=[*_SUBGROUP, end], how="left", maintain_order="left")
    coarse = pl.struct("task", "attribute").is_in(
        protected.select(pl.struct("task", "attribute")).to_series().implode()
    )
    return rows.select(
        *(name for name in CROSS.names() if name not in _ESTIMATE and not name.startswith("n_")),
        *(pl.when(coarse).then(f"told_{name}").otherwise(name).alias(name) for name in ("n_pos", "n_neg")),
        *(pl.when(coarse).then(pl.col(name).round(DECIMALS)).otherwise(name).alias(name) for name in _ESTIMATE),
        counts=pl.when(coarse).then(pl.lit("rounded")).otherwise(pl.lit("exact")),
    )


def _coarse(protected: pl.DataFrame) -> pl.DataFrame:
    return protected.select("task", "attribute").unique().with_columns(coarse=pl.lit(value=True))


def _rounded_spreads(frame: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    rows = frame.join(_coarse(protected), on=["task", "attribute"], how="left", maintain_order="left")
    spreads = [name for name in _SPREADS if name in frame.columns]
    rounded = [
        pl.when(pl.col("coarse").fill_null(value=False))
        .then(pl.col(name).round(DECIMALS))
        .otherwise(pl.col(name))
        .alias(name)
        for name in spreads
    ]
    return rows.with_columns(rounded).drop("coarse")


def _sweep(sweep: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    """Return curves of subgroups that may be shown, at thresholds common to the subgroups of an attribute."""
    kept = flag_protected(sweep, protected).filter(~pl.col("protected"))
    thinned = [_thinned(frame) for _, frame in kept.group_by([*SCORE_SET, "attribute"], maintain_order=True)]
    if not thinned:
        return kept.drop("protected", "coarse")
    curves = pl.concat(thinned)
    names = [name for name in _CURVES if name in curves.columns]
    stepped = [
        pl.when("coarse")
        .then(((pl.col(name) / _COARSE_STEP).round() * _COARSE_STEP).round(2))
        .otherwise(pl.col(name).round(3))
        .alias(name)
        for name in names
    ]
    return curves.with_columns(stepped).drop("protected", "coarse")


def _thinned(frame: pl.DataFrame) -> pl.DataFrame:
    """Return at most `_SWEEP_POINTS` thresholds, evenly in rank; a subgroup's value there is the one at its next threshold."""
    every = frame.get_column("threshold").unique().sort()
    at = sorted({round(i * (len(every) - 1) / (_SWEEP_POINTS - 1)) for i in range(_SWEEP_POINTS)})
    grid = every.gather(at).to_frame()
    curves = [_on_grid(curve, grid) for _, curve in frame.group_by("subgroup", maintain_order=True)]
    return pl.concat(curves).select(frame.columns)


def _on_grid(curve: pl.DataFrame, grid: pl.DataFrame) -> pl.DataFrame:
    """Return one subgroup's curve; above its highest score nobody is called positive."""
    joined = grid.join_asof(curve.sort("threshold"), on="threshold", strategy="forward")
    return joined.with_columns(pl.col("tpr", "fpr").fill_null(0.0)).fill_null(strategy="forward")


def _studies(studies: pl.DataFrame, protected: pl.DataFrame, metrics: pl.DataFrame, rule: int) -> pl.DataFrame:
    """Return counts of the cohort; a subgroup too small in every task it was assessed for is too small here."""
    n_tasks = metrics.get_column("task").n_unique()
    always = protected.group_by("attribute", "subgroup").agg(small=pl.col("task").n_unique() >= n_tasks).filter("small")
    rows = studies.join(always, on=["attribute", "subgroup"], how="left", maintain_order="left").with_columns(
        protected=pl.col("small").fill_null(value=False) | (pl.col("n_studies") < rule) | (pl.col("n_patients") < rule),
        status=pl.lit(None, dtype=pl.String),
    )
    rows = rows.with_columns(coarse=pl.col("protected").any().over("split", "attribute"))
    shown = apply_disclosure(rows, ["split", "attribute"], ("n_studies", "n_patients"))
    return shown.select(*studies.columns, "counts")

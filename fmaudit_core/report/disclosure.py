"""Small groups stay unseen: what leaves the audit is passed through here first, for the page and the exports alike.

A subgroup under the rule is *protected*: none of its numbers is shown. Its counts must not follow from its neighbours'
either: where an attribute has a protected subgroup, the counts of the others are rounded to tens and their rates to whole
percent, and their threshold curves are drawn in coarse steps, whose height then tells no denominator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from fmaudit_core.report.inputs import OPTIONAL_METRICS, OVERALL, SCORE_SET, ReportInput

_COUNTS: Final = ("n", "n_pos", "n_neg")
_VALUES: Final = ("value", "ci_low", "ci_high", "mde")
_ROUND_TO: Final = 10
#: a rate in whole percent fits several denominators
_DECIMALS: Final = 2
_COARSE_STEP: Final = 0.05
_SWEEP_POINTS: Final = 41
_CURVES: Final = ("tpr", "fpr", "band_low", "band_high", "fpr_band_low", "fpr_band_high")
_SPREADS: Final = ("gap", "null_expected_gap", "null_gap_95", "corrected_sd")


@dataclass(frozen=True)
class Disclosed:
    """The tables as they may be shown.

    Parameters
    ----------
    metrics : frame
        With a column `counts`: ``exact``, ``rounded`` or ``withheld``. Withheld rows have no number at all.
    gaps, findings, sweep : frames
    studies : frame
        With `counts` as in metrics.
    """

    metrics: pl.DataFrame
    gaps: pl.DataFrame
    findings: pl.DataFrame
    sweep: pl.DataFrame
    studies: pl.DataFrame


def disclose(inputs: ReportInput) -> Disclosed:
    """Withhold, round and thin until no small group can be read off, directly or by subtraction."""
    rule = inputs.audit.fairness.suppress_under
    protected = _protected(inputs.subgroup_metrics, rule)
    coarse = protected.select("task", "attribute").unique().with_columns(coarse=pl.lit(True))
    return Disclosed(
        metrics=_metrics(inputs.subgroup_metrics, protected, coarse),
        gaps=_rounded_spreads(inputs.fairness_gaps, coarse),
        findings=_rounded_spreads(inputs.audit_findings, coarse),
        sweep=_sweep(inputs.threshold_sweep, protected, coarse),
        studies=_studies(inputs.studies, protected, inputs.subgroup_metrics, rule),
    )


def _protected(metrics: pl.DataFrame, rule: int) -> pl.DataFrame:
    """(task, attribute, subgroup) under the rule, in any row; the status is not trusted alone."""
    few = (pl.col("n_pos") < rule) | (pl.col("n_neg") < rule)
    small = pl.col("status").is_in(["suppressed", "not_estimable"]) | few.fill_null(False)
    return (
        metrics.filter(small & (pl.col("attribute") != OVERALL))
        .select("task", "attribute", "subgroup")
        .unique()
        .with_columns(protected=pl.lit(True))
    )


def _marked(frame: pl.DataFrame, protected: pl.DataFrame, coarse: pl.DataFrame) -> pl.DataFrame:
    marked = frame.join(protected, on=["task", "attribute", "subgroup"], how="left", maintain_order="left")
    marked = marked.join(coarse, on=["task", "attribute"], how="left", maintain_order="left")
    return marked.with_columns(pl.col("protected", "coarse").fill_null(False))


def _to_tens(name: str) -> pl.Expr:
    return ((pl.col(name) + _ROUND_TO // 2) // _ROUND_TO * _ROUND_TO).cast(pl.Int64)


def _metrics(metrics: pl.DataFrame, protected: pl.DataFrame, coarse: pl.DataFrame) -> pl.DataFrame:
    # columns beyond the contract may count too: only known ones of a protected or rounded row pass
    further = [name for name in OPTIONAL_METRICS if name in metrics.columns]
    named = [*SCORE_SET, "attribute", "subgroup", "metric", *_COUNTS, *_VALUES, "status", *further]
    marked = _marked(metrics.select(named), protected, coarse)
    shown = [
        pl.when("protected").then(None).when("coarse").then(_to_tens(name)).otherwise(pl.col(name)).alias(name)
        for name in _COUNTS
    ]
    values = [
        pl.when("protected")
        .then(None)
        .when("coarse")
        .then(pl.col(name).round(_DECIMALS))
        .otherwise(pl.col(name))
        .alias(name)
        for name in _VALUES
    ]
    tests = [pl.when("protected").then(None).otherwise(pl.col(name)).alias(name) for name in further]
    kind = (
        pl.when("protected").then(pl.lit("withheld")).when("coarse").then(pl.lit("rounded")).otherwise(pl.lit("exact"))
    )
    status = pl.when("protected").then(pl.lit("suppressed")).otherwise(pl.col("status"))
    return marked.with_columns(*shown, *values, *tests, counts=kind, status=status).drop("protected", "coarse")


def _rounded_spreads(frame: pl.DataFrame, coarse: pl.DataFrame) -> pl.DataFrame:
    marked = frame.join(coarse, on=["task", "attribute"], how="left", maintain_order="left")
    spreads = [name for name in _SPREADS if name in frame.columns]
    rounded = [
        pl.when(pl.col("coarse").fill_null(False))
        .then(pl.col(name).round(_DECIMALS))
        .otherwise(pl.col(name))
        .alias(name)
        for name in spreads
    ]
    return marked.with_columns(rounded).drop("coarse")


def _sweep(sweep: pl.DataFrame, protected: pl.DataFrame, coarse: pl.DataFrame) -> pl.DataFrame:
    """Curves of subgroups that may be shown, at thresholds common to the subgroups of an attribute."""
    kept = _marked(sweep, protected, coarse).filter(~pl.col("protected"))
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
    """At most `_SWEEP_POINTS` thresholds, evenly in rank; a subgroup's value there is the one at its next threshold."""
    every = frame.get_column("threshold").unique().sort()
    at = sorted({round(i * (len(every) - 1) / (_SWEEP_POINTS - 1)) for i in range(_SWEEP_POINTS)})
    grid = every.gather(at).to_frame()
    curves = [_on_grid(curve, grid) for _, curve in frame.group_by("subgroup", maintain_order=True)]
    return pl.concat(curves).select(frame.columns)


def _on_grid(curve: pl.DataFrame, grid: pl.DataFrame) -> pl.DataFrame:
    """One subgroup's curve; above its highest score nobody is called positive."""
    joined = grid.join_asof(curve.sort("threshold"), on="threshold", strategy="forward")
    return joined.with_columns(pl.col("tpr", "fpr").fill_null(0.0)).fill_null(strategy="forward")


def _studies(studies: pl.DataFrame, protected: pl.DataFrame, metrics: pl.DataFrame, rule: int) -> pl.DataFrame:
    """Counts of the cohort; a subgroup too small in every task it was assessed for is too small here."""
    n_tasks = metrics.get_column("task").n_unique()
    always = protected.group_by("attribute", "subgroup").agg(small=pl.col("task").n_unique() >= n_tasks).filter("small")
    marked = studies.join(always, on=["attribute", "subgroup"], how="left", maintain_order="left").with_columns(
        withheld=pl.col("small").fill_null(False) | (pl.col("n_studies") < rule) | (pl.col("n_patients") < rule)
    )
    rounded = pl.col("withheld").any().over("split", "attribute")
    shown = [
        pl.when("withheld").then(None).when(rounded).then(_to_tens(name)).otherwise(pl.col(name)).alias(name)
        for name in ("n_studies", "n_patients")
    ]
    kind = pl.when("withheld").then(pl.lit("withheld")).when(rounded).then(pl.lit("rounded")).otherwise(pl.lit("exact"))
    return marked.with_columns(*shown, counts=kind).drop("withheld", "small")

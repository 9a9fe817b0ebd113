"""Rows of gaps: each attribute's tested subgroups under one set of deals, corrected over the family, and judged.

The statistics of one gap: `gaps.py`. The correction: `multiplicity.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.gaps import GAP_METRICS, Gap, null_gaps
from fmaudit_core.fairness.kernels import Ranking
from fmaudit_core.fairness.multiplicity import benjamini_hochberg, step_down_max_t
from fmaudit_core.fairness.permutation import Dealer
from fmaudit_core.fairness.power import all_within_margin
from fmaudit_core.fairness.rates import Rate
from fmaudit_core.fairness.score_sets import ScoreSets, by_studies, levels, named, studies_of
from fmaudit_core.fairness.small_groups import status_of
from fmaudit_core.fairness.spread import corrected_sd, corrected_sd_interval
from fmaudit_core.fairness.thresholds import SCORE_SET

Float64Array = npt.NDArray[np.float64]

GAPS_SCHEMA: Final = pl.Schema(
    {
        **dict.fromkeys(SCORE_SET, pl.String),
        "attribute": pl.String,
        "metric": pl.String,
        "gap": pl.Float64,
        "null_expected_gap": pl.Float64,
        "corrected_sd": pl.Float64,
        "corrected_sd_low": pl.Float64,
        "corrected_sd_high": pl.Float64,
        "best_subgroup": pl.String,
        "worst_subgroup": pl.String,
        "q_statistic": pl.Float64,
        "p_value": pl.Float64,
        "p_gap": pl.Float64,
        "p_adjusted": pl.Float64,
        "q_value": pl.Float64,
        "n_permutations": pl.Int64,
        "verdict": pl.String,
        "null_gap_95": pl.Float64,
        "n_tested": pl.Int64,
        "n_untested": pl.Int64,
        "within_margin": pl.Boolean,
        "confirmatory": pl.Boolean,
    }
)


def gap_rows(
    cohort: ScoreSets,
    attribute: str,
    rows: list[dict[str, Any]],
    settings: FairnessSection,
) -> tuple[list[dict[str, Any]], list[Float64Array]]:
    """Gaps of one attribute for score sets on the same studies; fills the subgroups' `p_rest` in `rows` too.

    Of a score set without a threshold only the gap in AUROC is told.
    """
    n_levels = len(levels(next(iter(cohort.values())), attribute))
    tested, found = _permuted(cohort, attribute, settings)
    gaps, nulls = [], []
    for key, by_metric in zip(cohort, found, strict=True):
        of_set = [row for row in rows if tuple(row[name] for name in SCORE_SET) == key]
        for metric in GAP_METRICS:
            row = named(key) | {"attribute": attribute, "metric": metric}
            row |= {"n_tested": len(tested), "n_untested": n_levels - len(tested), "n_permutations": 0}
            gap = by_metric[metric] if by_metric and _is_told(metric, cohort[key]) else None
            gaps.append(row | (_gap_row(gap, tested, of_set, metric, settings) if gap else {}))
            nulls.append(gap.null_q if gap else np.empty(0))
    return gaps, nulls


def _is_told(metric: str, frame: pl.DataFrame) -> bool:
    """Whether a score set has the metric: rates need a threshold."""
    return metric == "auroc" or frame.get_column("threshold").null_count() == 0


def _permuted(
    cohort: ScoreSets, attribute: str, settings: FairnessSection
) -> tuple[list[str], list[dict[str, Gap] | None]]:
    """Names of the tested subgroups, and each score set's gaps by metric; None where fewer than two are tested."""
    first = next(iter(cohort.values()))
    whole, level_of = studies_of(first), first.get_column(attribute)
    of_level = {level: whole.only((level_of == level).to_numpy()) for level in levels(first, attribute)}
    tested = [
        level for level, one in of_level.items() if status_of(one.y_true, one.patient, settings, level) == "tested"
    ]
    if len(tested) < 2:
        return tested, [None] * len(cohort)
    frames = [frame.filter(pl.col(attribute).is_in(tested)) for frame in cohort.values()]
    studies = [studies_of(frame) for frame in frames]
    group = frames[0].get_column(attribute).replace_strict({level: g for g, level in enumerate(tested)})
    own = group.cast(pl.UInt8 if len(tested) < 256 else pl.UInt16).to_numpy()
    task = frames[0].get_column("task")[0]
    dealer = Dealer(own, studies[0].patient, studies[0].y_true, seed=settings.seed, named=f"{task}/{attribute}")
    rankings = [Ranking.of(one.y_score, one.y_true, one.threshold) for one in studies]
    return tested, list(null_gaps(rankings, own, dealer.deals(settings.n_permutations), len(tested)))


def _gap_row(
    gap: Gap, tested: Sequence[str], rows: Sequence[dict[str, Any]], metric: str, settings: FairnessSection
) -> dict[str, Any]:
    of_metric = {row["subgroup"]: row for row in rows if row["metric"] == metric}
    chosen = [of_metric[level] for level in tested]
    for row, p, adjusted in zip(chosen, gap.p_rest, gap.p_rest_adjusted, strict=True):
        row |= {"p_rest": float(p), "p_rest_adjusted": float(adjusted)}
    if metric == "udr":
        for level, p, adjusted in zip(tested, gap.p_rest, gap.p_rest_adjusted, strict=True):
            tpr = next(row for row in rows if row["subgroup"] == level and row["metric"] == "tpr")
            tpr |= {"p_rest": float(p), "p_rest_adjusted": float(adjusted)}
    known = [row for row in chosen if row["se"] is not None]
    values, errors = [row["value"] for row in known], [row["se"] for row in known]
    low, high = corrected_sd_interval(values, errors, settings.confidence, settings.seed)
    return {
        "gap": gap.gap,
        "null_expected_gap": gap.null_expected_gap,
        "null_gap_95": gap.null_gap_95,
        "corrected_sd": corrected_sd(values, errors),
        "corrected_sd_low": low,
        "corrected_sd_high": high,
        "best_subgroup": tested[gap.best],
        "worst_subgroup": tested[gap.worst],
        "q_statistic": gap.q_statistic,
        "p_value": gap.p_value,
        "p_gap": gap.p_gap,
        "n_permutations": settings.n_permutations,
        "within_margin": _within_margin(known, metric, settings),
    }


def _within_margin(rows: Sequence[dict[str, Any]], metric: str, settings: FairnessSection) -> bool:
    """Whether all tested subgroups provably lie within the margin of one another."""
    confidence = 1 - 2 * settings.alpha
    intervals = []
    for row in rows:
        n = row["n_neg"] if metric == "fpr" else row["n_pos"]
        if metric == "auroc":
            z_ratio = (row["ci_high"] - row["ci_low"]) / 2
            intervals.append((row["value"] - z_ratio, row["value"] + z_ratio))
        else:
            variance = max(row["se"] ** 2, 1e-12)
            p = min(max(row["value"], 0.5 / n), 1 - 0.5 / n)
            intervals.append(
                Rate(row["value"], n, max(1.0, variance * n / (p * (1 - p)))).interval(confidence) or (0, 1)
            )
    return all_within_margin([row["value"] for row in rows], intervals, settings.margin)


def corrected(
    gaps: pl.DataFrame, nulls: Sequence[Float64Array], settings: FairnessSection, declared: pl.Expr | None = None
) -> pl.DataFrame:
    """Family-wise p over the primary metric of each task, q over all rows, and the verdicts.

    Parameters
    ----------
    declared : expression, optional
        Rows that the correction is over; the others keep their nominal p, and are never called a disparity.
    """
    inside = declared if declared is not None else pl.lit(value=True)
    p = gaps.select(pl.when(inside).then("p_value")).to_series().fill_null(np.nan).to_numpy()
    out = _adjusted(gaps, nulls, settings, inside).with_columns(q_value=pl.Series(benjamini_hochberg(p)).fill_nan(None))
    return out.with_columns(verdict=verdict(settings))


def _adjusted(
    gaps: pl.DataFrame, nulls: Sequence[Float64Array], settings: FairnessSection, declared: pl.Expr | None = None
) -> pl.DataFrame:
    """`confirmatory`, and `p_adjusted` of those rows that were tested; each task is a family."""
    inside = declared if declared is not None else pl.lit(value=True)
    primary = gaps.select((pl.col("metric") == primary_gap(settings)) & inside).to_series().to_numpy()
    tested = gaps.get_column("q_statistic").is_not_null().to_numpy()
    adjusted = np.full(gaps.height, np.nan)
    for task in gaps.get_column("task").unique(maintain_order=True):
        family = np.flatnonzero(primary & (gaps.get_column("task") == task).to_numpy() & tested)
        if len(family):
            observed = gaps.get_column("q_statistic").gather(family).to_list()
            adjusted[family] = step_down_max_t(observed, np.stack([nulls[int(at)] for at in family], axis=1))
    return gaps.with_columns(p_adjusted=pl.Series(adjusted).fill_nan(None), confirmatory=pl.Series(primary))


def verdict(settings: FairnessSection) -> pl.Expr:
    """One of three: never "fair", and never a disparity on a raw p."""
    decisive = pl.coalesce("p_adjusted", "q_value")
    return (
        pl.when(decisive <= settings.alpha)
        .then(pl.lit("disparity"))
        .when(pl.col("within_margin").fill_null(False))
        .then(pl.lit("no_disparity_beyond_margin"))
        .otherwise(pl.lit("insufficient_evidence"))
    )


def primary_gap(settings: FairnessSection) -> str:
    """The metric whose gaps are confirmatory; the gap in TPR is the gap in UDR."""
    return "udr" if settings.primary_metric == "tpr" else settings.primary_metric


def family_p(test: pl.DataFrame, attributes: Sequence[str], settings: FairnessSection) -> pl.DataFrame:
    """Family-wise p of the primary gaps alone, of every score set and attribute given: one family per task.

    Parameters
    ----------
    test : frame
        Checked predictions of the evaluated split, with `threshold`.

    Returns
    -------
    Frame of the score set, `attribute`, `metric`, `p_adjusted` (null where it cannot be tested) and `confirmatory`
    """
    metric = primary_gap(settings)
    rows, nulls = [], []
    for cohort in by_studies(test):
        for attribute in attributes:
            for key, found in zip(cohort, _permuted(cohort, attribute, settings)[1], strict=True):
                gap = found[metric] if found and _is_told(metric, cohort[key]) else None
                row = named(key) | {"attribute": attribute, "metric": metric}
                row |= {"q_statistic": gap.q_statistic} if gap else {}
                rows.append(row)
                nulls.append(gap.null_q if gap else np.empty(0))
    schema = {**dict.fromkeys((*SCORE_SET, "attribute", "metric"), pl.String), "q_statistic": pl.Float64}
    return _adjusted(pl.DataFrame(rows, schema=schema), nulls, settings).drop("q_statistic")

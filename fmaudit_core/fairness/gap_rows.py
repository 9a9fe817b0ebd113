"""Rows of gaps: each attribute's tested subgroups under one set of permutations, corrected over the family, and judged.

The statistics of one gap: `gaps.py`. The correction: `multiplicity.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.equivalence import equivalence
from fmaudit_core.fairness.gaps import GAP_METRICS, Gap, null_gaps
from fmaudit_core.fairness.kernels import Ranking
from fmaudit_core.fairness.multiplicity import benjamini_hochberg, step_down_max_t
from fmaudit_core.fairness.permutation import PatientPermuter
from fmaudit_core.fairness.score_sets import ScoreSets, by_studies, named
from fmaudit_core.fairness.small_groups import metric_status
from fmaudit_core.fairness.spread import corrected_sd, corrected_sd_interval
from fmaudit_core.fairness.units import Units

Float64Array = npt.NDArray[np.float64]
#: rows that a correction is over by default
_EVERY: Final = pl.lit(value=True)


def gap_rows(
    cohort: ScoreSets,
    attribute: str,
    rows: list[dict[str, Any]],
    settings: FairnessSection,
) -> tuple[list[dict[str, Any]], list[Float64Array]]:
    """Return the gaps of one attribute for score sets on the same studies; fill the subgroups' `p_rest` in `rows` too.

    Of a score set without a threshold only the gap in AUROC is reported.
    """
    found = _permuted(cohort, attribute, settings)
    gaps, nulls = [], []
    for key, one in cohort.items():
        of_set = [row for row in rows if tuple(row[name] for name in SCORE_SET) == key]
        of_level = one.by_level(attribute)
        for metric in GAP_METRICS:
            tested, by_set = found[metric]
            row = named(key) | {"attribute": attribute, "metric": metric}
            row |= {"n_tested": len(tested), "n_untested": len(of_level) - len(tested), "n_permutations": 0}
            row["not_covered"] = sorted(level for level in of_level if level not in tested)
            gap = by_set.get(key)
            if gap:
                row |= _gap_row(gap, tested, of_set, metric, settings)
                shown = equivalence(of_level, tested, metric, settings)
                row["within_margin"] = shown.within_margin
                row["within_margin_of_tested"] = shown.within_margin_of_tested
            gaps.append(row)
            nulls.append(gap.null_q if gap else np.empty(0))
    return gaps, nulls


#: tested levels of a metric, and the gap of each score set that has one
_Permuted = tuple[list[str], dict[tuple[Any, ...], Gap]]


def _permuted(
    cohort: ScoreSets, attribute: str, settings: FairnessSection, metrics: Sequence[str] = GAP_METRICS
) -> dict[str, _Permuted]:
    """Test every metric over the levels that have enough patients for it; metrics with the same levels share permutations."""
    first = next(iter(cohort.values()))
    status = {
        level: metric_status(one.y_true, one.patient, settings, level)
        for level, one in first.by_level(attribute).items()
    }
    tested = {metric: [level for level in status if status[level][metric] == "tested"] for metric in metrics}
    gaps: dict[tuple[str, ...], list[dict[str, Gap]]] = {}
    for chosen in {tuple(one) for one in tested.values() if len(one) > 1}:
        alike = [metric for metric in metrics if tuple(tested[metric]) == chosen]
        gaps[chosen] = _gaps_over(chosen, alike, cohort, attribute, settings)
    return {
        metric: (
            chosen,
            {
                key: found[metric]
                for key, found in zip(cohort, gaps.get(tuple(chosen), []), strict=False)
                if metric in found
            },
        )
        for metric, chosen in tested.items()
    }


def _gaps_over(
    tested: Sequence[str], metrics: Sequence[str], cohort: ScoreSets, attribute: str, settings: FairnessSection
) -> list[dict[str, Gap]]:
    """Return the gaps of every score set over the tested levels, in the order of the score sets."""
    first = next(iter(cohort.values()))
    levels, place = first.codes(attribute)
    group = np.array([tested.index(level) if level in tested else -1 for level in levels])[place]
    studies = [one.studies.only(group >= 0) for one in cohort.values()]
    y = studies[0].y_true
    units = Units.of(group[group >= 0], studies[0].patient, y)
    task = first.frame.get_column("task")[0]
    permuter = PatientPermuter(units, seed=settings.seed, named=task, test_from=settings.test_from)
    rankings = [Ranking.of(one.y_score, y, units, one.threshold) for one in studies]
    return null_gaps(
        rankings, units, permuter.permutations(settings.n_permutations), seed=settings.seed, metrics=metrics
    )


def _gap_row(
    gap: Gap, tested: Sequence[str], rows: Sequence[dict[str, Any]], metric: str, settings: FairnessSection
) -> dict[str, Any]:
    of_metric = {(row["subgroup"], row["metric"]): row for row in rows}
    if gap.p_rest is not None and gap.p_rest_adjusted is not None:
        for level, p, adjusted in zip(tested, gap.p_rest, gap.p_rest_adjusted, strict=True):
            for name in ("udr", "tpr") if metric == "udr" else (metric,):
                of_metric[level, name] |= {"p_rest": float(p), "p_rest_adjusted": float(adjusted)}
    known = [of_metric[level, metric] for level in tested if of_metric[level, metric]["se"] is not None]
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
    }


def corrected(
    gaps: pl.DataFrame, nulls: Sequence[Float64Array], settings: FairnessSection, declared: pl.Expr | None = None
) -> pl.DataFrame:
    """Return the gaps judged, with the primary metric of each task as the declared family.

    Parameters
    ----------
    declared : expression, optional
        Rows that the correction is over; the others keep their exploratory p, and are never called a disparity.
    """
    inside = declared if declared is not None else _EVERY
    return judged(_adjusted(gaps, nulls, settings, inside), settings, inside)


def judged(gaps: pl.DataFrame, settings: FairnessSection, compared: pl.Expr = _EVERY) -> pl.DataFrame:
    """Return the gaps with `q_value` and `verdict`: the one place that judges a gap.

    Parameters
    ----------
    gaps : frame of `FAIRNESS_GAPS`
        With `p_adjusted` of the declared family; null in every other row, whose `p_value` is exploratory.
    compared : expression, optional
        Rows that the q-values are over; all of them by default.
    """
    p = gaps.select(pl.when(compared).then("p_value")).to_series().fill_null(np.nan).to_numpy()
    rows = gaps.with_columns(q_value=pl.Series(benjamini_hochberg(p)).fill_nan(None))
    return rows.with_columns(verdict=_verdict(settings))


def _adjusted(
    gaps: pl.DataFrame, nulls: Sequence[Float64Array], settings: FairnessSection, inside: pl.Expr = _EVERY
) -> pl.DataFrame:
    """`confirmatory`, and `p_adjusted` of those rows that were tested; each task is a family."""
    primary = gaps.select((pl.col("metric") == primary_gap(settings)) & inside).to_series().to_numpy()
    tested = gaps.get_column("q_statistic").is_not_null().to_numpy()
    adjusted = np.full(gaps.height, np.nan)
    for task in gaps.get_column("task").unique(maintain_order=True):
        family = np.flatnonzero(primary & (gaps.get_column("task") == task).to_numpy() & tested)
        if len(family):
            observed = gaps.get_column("q_statistic").gather(family).to_list()
            adjusted[family] = step_down_max_t(observed, np.stack([nulls[int(at)] for at in family], axis=1))
    return gaps.with_columns(p_adjusted=pl.Series(adjusted).fill_nan(None), confirmatory=pl.Series(primary))


def _verdict(settings: FairnessSection) -> pl.Expr:
    """Return one of four verdicts: never "fair", and never a disparity on an exploratory p."""
    decisive = pl.coalesce("p_adjusted", "q_value")
    return (
        pl.when(decisive <= settings.alpha)
        .then(pl.lit("disparity"))
        .when(pl.col("within_margin").fill_null(False))
        .then(pl.lit("no_disparity_beyond_margin"))
        .when(pl.col("within_margin_of_tested").fill_null(False))
        .then(pl.lit("within_margin_of_tested"))
        .otherwise(pl.lit("insufficient_evidence"))
    )


def primary_gap(settings: FairnessSection) -> str:
    """Return the metric whose gaps are confirmatory; the gap in TPR is the gap in UDR."""
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
            _, by_set = _permuted(cohort, attribute, settings, [metric])[metric]
            for key in cohort:
                gap = by_set.get(key)
                row = named(key) | {"attribute": attribute, "metric": metric}
                rows.append(row | ({"q_statistic": gap.q_statistic} if gap else {}))
                nulls.append(gap.null_q if gap else np.empty(0))
    schema = {**dict.fromkeys((*SCORE_SET, "attribute", "metric"), pl.String), "q_statistic": pl.Float64}
    return _adjusted(pl.DataFrame(rows, schema=schema), nulls, settings).drop("q_statistic")

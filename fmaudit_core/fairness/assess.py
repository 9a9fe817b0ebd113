"""The whole assessment of predictions: every subgroup's metrics, every attribute's gaps, every threshold's rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.comparisons import model_comparisons
from fmaudit_core.fairness.gaps import GAP_METRICS, Gap, null_gaps
from fmaudit_core.fairness.intersections import INTERSECTIONS_SCHEMA, intersection_rows
from fmaudit_core.fairness.kernels import Ranking
from fmaudit_core.fairness.multiplicity import benjamini_hochberg, step_down_max_t
from fmaudit_core.fairness.permutation import Dealer
from fmaudit_core.fairness.power import all_within_margin, corrected_sd
from fmaudit_core.fairness.predictions import checked_predictions
from fmaudit_core.fairness.rates import Rate
from fmaudit_core.fairness.score_sets import OVERALL, ScoreSets, by_studies, levels, studies_of
from fmaudit_core.fairness.score_shift import CALIBRATION_SCHEMA, CROSS_SCHEMA, calibration_rows, cross_rows
from fmaudit_core.fairness.subgroups import metric_rows
from fmaudit_core.fairness.sweep import sweep
from fmaudit_core.fairness.thresholds import SCORE_SET, with_thresholds
from fmaudit_core.vocabulary import ATTRIBUTES

Float64Array = npt.NDArray[np.float64]

METRICS: Final = ("auroc", "tpr", "fpr", "udr")

_KEY_SCHEMA: Final = dict.fromkeys(SCORE_SET, pl.String)
METRICS_SCHEMA: Final = pl.Schema(
    {
        **_KEY_SCHEMA,
        "attribute": pl.String,
        "subgroup": pl.String,
        "metric": pl.String,
        "n": pl.Int64,
        "n_pos": pl.Int64,
        "n_neg": pl.Int64,
        "value": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "status": pl.String,
        "mde": pl.Float64,
        "n_patients": pl.Int64,
        "se": pl.Float64,
        "threshold": pl.Float64,
        "p_rest": pl.Float64,
        "p_rest_adjusted": pl.Float64,
    }
)
GAPS_SCHEMA: Final = pl.Schema(
    {
        **_KEY_SCHEMA,
        "attribute": pl.String,
        "metric": pl.String,
        "gap": pl.Float64,
        "null_expected_gap": pl.Float64,
        "corrected_sd": pl.Float64,
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
SWEEP_SCHEMA: Final = pl.Schema(
    {
        **_KEY_SCHEMA,
        "attribute": pl.String,
        "subgroup": pl.String,
        "threshold": pl.Float64,
        "tpr": pl.Float64,
        "fpr": pl.Float64,
        "band_low": pl.Float64,
        "band_high": pl.Float64,
        "fpr_band_low": pl.Float64,
        "fpr_band_high": pl.Float64,
    }
)


@dataclass(frozen=True, repr=False)
class Assessment:
    """What `assess` found, as polars frames.

    Parameters
    ----------
    subgroup_metrics : a row per score set, attribute, subgroup and metric; `overall` is an attribute of one level
    fairness_gaps : a row per score set, attribute and metric of `GAP_METRICS`
    threshold_sweep : a row per score set, subgroup and distinct score
    subgroup_calibration : a row per score set and subgroup: slope, intercept, calibration error
    cross_group_auroc : a row per score set and two subgroups: positives of one against negatives of the other (xAUC)
    intersections : a row per score set, intersection of attributes and metric of `GAP_METRICS`, ranked by who fares worst
    model_comparisons : a row per two score sets of a task, subgroup and metric; paired, on the studies both scored
    """

    subgroup_metrics: pl.DataFrame
    fairness_gaps: pl.DataFrame
    threshold_sweep: pl.DataFrame
    subgroup_calibration: pl.DataFrame
    cross_group_auroc: pl.DataFrame
    intersections: pl.DataFrame
    model_comparisons: pl.DataFrame

    def tables(self) -> dict[str, pl.DataFrame]:
        """Every table by its name."""
        return dict(vars(self))

    def verdicts(self) -> pl.DataFrame:
        """Each gap beside its null-expected gap with p and verdict: the columns to look at first."""
        one_of_a_kind = [name for name in SCORE_SET if self.fairness_gaps.get_column(name).n_unique() < 2]
        shown = (
            *SCORE_SET, "attribute", "metric", "worst_subgroup", "best_subgroup", "gap", "null_expected_gap", "p_value",
            "p_adjusted", "q_value", "verdict",
        )  # fmt: skip
        return self.fairness_gaps.select(name for name in shown if name not in one_of_a_kind)

    def __repr__(self) -> str:
        """The verdicts, and how large the tables are."""
        sizes = ", ".join(f"{name} {frame.height:,} rows" for name, frame in self.tables().items())
        with pl.Config(
            tbl_rows=40, tbl_cols=-1, tbl_width_chars=180, tbl_hide_column_data_types=True, float_precision=3
        ):
            return f"Assessment ({sizes})\n{self.verdicts()}"

    def _repr_html_(self) -> str:
        sizes = ", ".join(f"<code>{name}</code> {frame.height:,} rows" for name, frame in self.tables().items())
        with pl.Config(tbl_rows=40, tbl_cols=-1, float_precision=3):
            return f"<p><b>Assessment</b>: {sizes}</p>{self.verdicts()._repr_html_()}"


def assess(
    frame: pl.DataFrame,
    *,
    attributes: Sequence[str] = ATTRIBUTES,
    settings: FairnessSection | None = None,
    threshold: float | None = None,
) -> Assessment:
    """Assess predictions of any number of models and tasks.

    Parameters
    ----------
    frame : polars frame
        `study_id, patient_id, split, y_true, y_score`, a column per attribute, and where there are several models or tasks
        `encoder, task, probe, modality, pooling, strategy`.
    attributes : sequence of str
    settings : FairnessSection, optional
        The method's defaults where not given.
    threshold : float, optional
        Operating threshold for all; chosen per score set on the rows of split `val` where not given.

    Raises
    ------
    FairnessError
        The predictions cannot be assessed as they are; says why and what to do.
    """
    settings = settings or FairnessSection()
    checked = checked_predictions(frame, attributes)
    if threshold is not None:
        checked = checked.with_columns(threshold=pl.lit(float(threshold)))
    elif "threshold" not in checked.columns or checked.get_column("threshold").null_count():
        checked = with_thresholds(checked, settings)
    test = checked.filter(pl.col("split") == "test")
    alpha = settings.alpha / len(attributes)
    metrics: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    sweeps: list[pl.DataFrame] = []
    nulls: list[Float64Array] = []
    calibrated: list[dict[str, Any]] = []
    crossed: list[dict[str, Any]] = []
    intersected: list[dict[str, Any]] = []
    for cohort in by_studies(test):
        calibrated += calibration_rows(cohort, attributes, settings)
        crossed += cross_rows(cohort, attributes, settings)
        intersected += intersection_rows(cohort, attributes, settings, alpha)
        for attribute in (OVERALL, *attributes):
            rows = _subgroup_rows(cohort, attribute, settings, alpha)
            sweeps += _sweeps(cohort, attribute, rows, settings)
            if attribute != OVERALL:
                found, dealt = _gap_rows(cohort, attribute, rows, settings)
                gaps += found
                nulls += dealt
            metrics += rows
    fairness_gaps = _corrected(pl.DataFrame(gaps, schema=GAPS_SCHEMA), nulls, settings)
    order = [*SCORE_SET, "attribute"]
    return Assessment(
        pl.DataFrame(metrics, schema=METRICS_SCHEMA).sort(*order, "subgroup", "metric"),
        fairness_gaps.sort(*order, "metric"),
        pl.concat([pl.DataFrame(schema=SWEEP_SCHEMA), *sweeps]).sort(*order, "subgroup", "threshold"),
        pl.DataFrame(calibrated, schema=CALIBRATION_SCHEMA).sort(*order, "subgroup"),
        pl.DataFrame(crossed, schema=CROSS_SCHEMA).sort(*order, "positives_of", "negatives_of"),
        pl.DataFrame(intersected, schema=INTERSECTIONS_SCHEMA).sort(*order, "subgroup", "metric"),
        model_comparisons(test, attributes, settings),
    )


def _subgroup_rows(cohort: ScoreSets, attribute: str, settings: FairnessSection, alpha: float) -> list[dict[str, Any]]:
    rows = []
    for key, frame in cohort.items():
        whole, named = studies_of(frame), dict(zip(SCORE_SET, key, strict=True)) | {"attribute": attribute}
        of_study = None if attribute == OVERALL else frame.get_column(attribute).to_numpy()
        for level in levels(frame, attribute):
            inside = np.ones(frame.height, dtype=bool) if of_study is None else of_study == level
            found = metric_rows(whole, inside, level, settings, alpha)
            rows += [named | {"subgroup": level} | row for row in found]
    return rows


def _sweeps(
    cohort: ScoreSets,
    attribute: str,
    rows: Sequence[Mapping[str, Any]],
    settings: FairnessSection,
) -> list[pl.DataFrame]:
    shown = {
        (tuple(row[name] for name in SCORE_SET), row["subgroup"])
        for row in rows
        if row["status"] in ("tested", "interval_only")
    }
    out = []
    for key, level in sorted(shown):
        frame = cohort[key]
        one = studies_of(frame if attribute == OVERALL else frame.filter(pl.col(attribute) == level))
        found = sweep(one.y_true, one.y_score, one.patient, settings.confidence)
        columns = {
            "threshold": found.threshold,
            "tpr": found.tpr,
            "fpr": found.fpr,
            "band_low": np.clip(found.tpr - found.tpr_half_width, 0, 1),
            "band_high": np.clip(found.tpr + found.tpr_half_width, 0, 1),
            "fpr_band_low": np.clip(found.fpr - found.fpr_half_width, 0, 1),
            "fpr_band_high": np.clip(found.fpr + found.fpr_half_width, 0, 1),
        }
        named = dict(zip(SCORE_SET, key, strict=True)) | {"attribute": attribute, "subgroup": level}
        out.append(
            pl.DataFrame(columns).with_columns(pl.lit(v).alias(k) for k, v in named.items()).select(*SWEEP_SCHEMA)
        )
    return out


def _gap_rows(
    cohort: ScoreSets,
    attribute: str,
    rows: list[dict[str, Any]],
    settings: FairnessSection,
) -> tuple[list[dict[str, Any]], list[Float64Array]]:
    """Gaps of one attribute for score sets on the same studies; fills the subgroups' `p_rest` in `rows` too."""
    first = next(iter(cohort.values()))
    status = {row["subgroup"]: row["status"] for row in rows}
    tested = [level for level in levels(first, attribute) if status[level] == "tested"]
    found: list[dict[str, Gap] | None] = [None] * len(cohort)
    if len(tested) > 1:
        found = list(_permuted(cohort, attribute, tested, settings))
    gaps, nulls = [], []
    for key, by_metric in zip(cohort, found, strict=True):
        of_set = [row for row in rows if tuple(row[name] for name in SCORE_SET) == key]
        for metric in GAP_METRICS:
            named = dict(zip(SCORE_SET, key, strict=True)) | {"attribute": attribute, "metric": metric}
            named |= {"n_tested": len(tested), "n_untested": len(status) - len(tested), "n_permutations": 0}
            gap = by_metric[metric] if by_metric else None
            gaps.append(named | (_gap_row(gap, tested, of_set, metric, settings) if gap else {}))
            nulls.append(gap.null_q if gap else np.empty(0))
    return gaps, nulls


def _permuted(
    cohort: ScoreSets, attribute: str, tested: Sequence[str], settings: FairnessSection
) -> list[dict[str, Gap]]:
    frames = [frame.filter(pl.col(attribute).is_in(tested)) for frame in cohort.values()]
    studies = [studies_of(frame) for frame in frames]
    group = frames[0].get_column(attribute).replace_strict({level: g for g, level in enumerate(tested)})
    own = group.cast(pl.UInt8).to_numpy()
    task = frames[0].get_column("task")[0]
    dealer = Dealer(own, studies[0].patient, studies[0].y_true, seed=settings.seed, named=f"{task}/{attribute}")
    rankings = [Ranking.of(one.y_score, one.y_true, one.threshold) for one in studies]
    return null_gaps(rankings, own, dealer.deals(settings.n_permutations), len(tested))


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
    return {
        "gap": gap.gap,
        "null_expected_gap": gap.null_expected_gap,
        "null_gap_95": gap.null_gap_95,
        "corrected_sd": corrected_sd([row["value"] for row in known], [row["se"] for row in known]),
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


def _corrected(gaps: pl.DataFrame, nulls: Sequence[Float64Array], settings: FairnessSection) -> pl.DataFrame:
    """Family-wise p over the primary metric of each task, q over all rows, and the verdicts."""
    p = gaps.get_column("p_value").fill_null(np.nan).to_numpy()
    primary = (
        gaps.get_column("metric") == ("udr" if settings.primary_metric == "tpr" else settings.primary_metric)
    ).to_numpy()
    adjusted = np.full(gaps.height, np.nan)
    for task in gaps.get_column("task").unique(maintain_order=True):
        family = np.flatnonzero(primary & (gaps.get_column("task") == task).to_numpy() & ~np.isnan(p))
        if len(family):
            observed = gaps.get_column("q_statistic").gather(family).to_list()
            adjusted[family] = step_down_max_t(observed, np.stack([nulls[int(at)] for at in family], axis=1))
    out = gaps.with_columns(
        p_adjusted=pl.Series(adjusted).fill_nan(None),
        q_value=pl.Series(benjamini_hochberg(p)).fill_nan(None),
        confirmatory=pl.Series(primary),
    )
    return out.with_columns(verdict=verdict(settings))


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

"""The complete assessment of predictions: metrics per subgroup, gaps per attribute, rates per threshold."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.common.vocabulary import ATTRIBUTES, OVERALL, SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.calibration_tests import with_q_values
from fmaudit_core.fairness.comparisons import model_comparisons
from fmaudit_core.fairness.document import document
from fmaudit_core.fairness.findings import gap_sentences
from fmaudit_core.fairness.gap_rows import corrected, gap_rows
from fmaudit_core.fairness.given_frame import as_polars
from fmaudit_core.fairness.intersections import intersection_rows
from fmaudit_core.fairness.normal_form import DEFAULT_RULES, PredictionRules
from fmaudit_core.fairness.plots import Plots
from fmaudit_core.fairness.predictions import Evaluated, evaluated
from fmaudit_core.fairness.score_sets import ScoreSets, by_studies, named
from fmaudit_core.fairness.score_shift import calibration_rows, cross_rows
from fmaudit_core.fairness.score_warnings import score_warnings, withhold_verdicts
from fmaudit_core.fairness.subgroups import measured, with_detectable
from fmaudit_core.fairness.sweep import sweep
from fmaudit_core.fairness.thresholds import Draws
from fmaudit_core.tables.fairness import (
    CROSS_GROUP_AUROC,
    FAIRNESS_GAPS,
    INTERSECTIONS,
    SCORE_WARNINGS,
    SUBGROUP_CALIBRATION,
    SUBGROUP_METRICS,
    THRESHOLD_SWEEP,
)
from fmaudit_core.tabular.notes import Notes, note_sentences


@dataclass(frozen=True, repr=False)
class Assessment:
    """Results of `assess`, as polars frames.

    Parameters
    ----------
    subgroup_metrics : a row per score set, attribute, subgroup and metric; `overall` is an attribute with one level
    fairness_gaps : a row per score set, attribute and metric of `GAP_METRICS`
    threshold_sweep : a row per score set, subgroup and distinct score
    subgroup_calibration : a row per score set and subgroup: slope, intercept, calibration error
    calibration_tests : a row per score set, attribute and parameter: whether calibration is equal across subgroups; exploratory
    cross_group_auroc : a row per score set and two subgroups: positives of one against negatives of the other (xAUC)
    intersections : a row per score set, intersection of attributes and metric of `GAP_METRICS`; rank 1 is the worst
    model_comparisons : a row per pair of score sets of a task, subgroup and metric; paired, on the studies scored by both
    score_warnings : a row per score set and warning: what to check before reading a verdict
    notes : a row per thing that was read in another way than written, as `cohort_notes`; no table of results
    settings : FairnessSection, with which they were computed
    """

    subgroup_metrics: pl.DataFrame
    fairness_gaps: pl.DataFrame
    threshold_sweep: pl.DataFrame
    subgroup_calibration: pl.DataFrame
    calibration_tests: pl.DataFrame
    cross_group_auroc: pl.DataFrame
    intersections: pl.DataFrame
    model_comparisons: pl.DataFrame
    score_warnings: pl.DataFrame
    notes: pl.DataFrame = field(default_factory=lambda: Notes().frame())
    settings: FairnessSection = field(default_factory=FairnessSection)

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return every table of results by name."""
        return {name: frame for name, frame in vars(self).items() if name not in ("notes", "settings")}

    @property
    def plot(self) -> Plots:
        """Return the figures: `plot.subgroups()`, `plot.gaps()`, `plot.thresholds(attribute)`."""
        return Plots(self.subgroup_metrics, self.fairness_gaps, self.threshold_sweep)

    def sentences(self, metric: str | None = None) -> list[str]:
        """Return each gap of a metric in words, the primary one if none is given."""
        gaps = self.fairness_gaps.filter(metric=metric or self.settings.primary_metric)
        return gap_sentences(gaps, self.subgroup_metrics, self.settings.margin)

    def to_html(self, title: str = "Assessment") -> str:
        """Return one HTML document with the findings in words, the figures, the verdicts and the notes; it needs no network."""
        metric = self.settings.primary_metric
        return document(
            title,
            sentences=self.sentences(),
            warnings=self.score_warnings.get_column("message").unique(maintain_order=True).to_list(),
            figures=(self.plot.subgroups(metric), self.plot.gaps(metric)),
            verdicts=self.verdicts(),
            notes=[f"{one}." for one in note_sentences(self.notes)],
        )

    def verdicts(self) -> pl.DataFrame:
        """Return each gap with its null-expected gap, p-values and verdict. Read these columns first."""
        one_of_a_kind = [name for name in SCORE_SET if self.fairness_gaps.get_column(name).n_unique() < 2]
        shown = (
            *SCORE_SET, "attribute", "metric", "worst_subgroup", "best_subgroup", "gap", "null_expected_gap", "p_value",
            "p_adjusted", "q_value", "verdict",
        )  # fmt: skip
        found = self.fairness_gaps.select(name for name in shown if name not in one_of_a_kind)
        return found.rename({"p_value": "p_exploratory"})

    def __repr__(self) -> str:
        """Return the verdicts, the notes and the number of rows of each table."""
        sizes = ", ".join(f"{name} {frame.height:,} rows" for name, frame in self.tables().items())
        with pl.Config(
            tbl_rows=40, tbl_cols=-1, tbl_width_chars=180, tbl_hide_column_data_types=True, float_precision=3
        ):
            return "\n".join(
                [
                    f"Assessment ({sizes})",
                    str(self.verdicts()),
                    *(f"Note: {one}." for one in note_sentences(self.notes)),
                ]
            )

    def _repr_html_(self) -> str:
        sizes = ", ".join(f"<code>{name}</code> {frame.height:,} rows" for name, frame in self.tables().items())
        with pl.Config(tbl_rows=40, tbl_cols=-1, float_precision=3):
            notes = "".join(f"<p>Note: {html.escape(one)}.</p>" for one in note_sentences(self.notes))
            return f"<p><b>Assessment</b>: {sizes}</p>{self.verdicts()._repr_html_()}{notes}"


def assess(
    frame: Any,
    *,
    attributes: Sequence[str] = ATTRIBUTES,
    settings: FairnessSection | None = None,
    threshold: float | None = None,
    declared: pl.Expr | None = None,
    rules: PredictionRules = DEFAULT_RULES,
    unvalidated: bool = False,
    progress: Progress = silent,
) -> Assessment:
    """Assess predictions of any number of models and tasks.

    Parameters
    ----------
    frame : polars or pandas frame, Arrow table, or dict of columns
        `study_id, patient_id, split, y_true, y_score`, a column per attribute, and for several models or tasks
        `encoder, task, probe, modality, pooling, strategy`.
    attributes : sequence of str
    settings : FairnessSection, optional
        Defaults of the method if not given.
    threshold : float, optional
        Operating threshold for all score sets. If not given, it is chosen per score set on the rows of split `val`.
    declared : expression on the columns of a score set, optional
        Score sets included in the corrections for multiple gaps; all if not given. Gaps of the others have a nominal p.
    rules : PredictionRules, optional
        How labels and levels are read: the user's words, levels that differ by case only, rows without a label.
    unvalidated : bool
        Accept a score set with a blank `threshold` and no rows of `val`. Only its AUROC is reported; its rates have status
        `no_threshold`.
    progress : callable, optional
        Called with the number of completed steps.

    Raises
    ------
    FairnessError
        The predictions cannot be assessed. The message gives the reason and the fix.
    """
    settings, notes = settings or FairnessSection(), Notes()
    checked = evaluated(
        as_polars(frame), attributes, settings, threshold, rules=rules, notes=notes, unvalidated=unvalidated
    )
    found = assess_evaluated(checked, attributes, settings, declared, progress)
    return replace(found, notes=notes.frame(), settings=settings)


def assess_evaluated(
    evaluated: Evaluated,
    attributes: Sequence[str],
    settings: FairnessSection,
    declared: pl.Expr | None = None,
    progress: Progress = silent,
) -> Assessment:
    """Run `assess` on predictions that are already checked and have thresholds."""
    test = evaluated.test
    alpha = settings.alpha / len(attributes)
    metrics: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    sweeps: list[pl.DataFrame] = []
    nulls = []
    calibrated: list[dict[str, Any]] = []
    calibration_tested: list[dict[str, Any]] = []
    crossed: list[dict[str, Any]] = []
    intersected: list[dict[str, Any]] = []
    warned: list[dict[str, Any]] = []
    cohorts = list(by_studies(test))
    done, total = 0, len(cohorts) * (len(attributes) + 3) + 1

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    progress(done, total)
    for cohort in cohorts:
        of_cohort, tests_of_cohort = calibration_rows(cohort, attributes, settings)
        calibrated += of_cohort
        calibration_tested += tests_of_cohort
        crossed += cross_rows(cohort, attributes, settings)
        warned += score_warnings(cohort, attributes, settings)
        step()
        intersected += intersection_rows(cohort, attributes, settings, alpha, evaluated.draws)
        step()
        for attribute in (OVERALL, *attributes):
            rows = _subgroup_rows(cohort, attribute, settings, alpha, evaluated.draws)
            sweeps += _sweeps(cohort, attribute, rows, settings)
            if attribute != OVERALL:
                found, permuted = gap_rows(cohort, attribute, rows, settings)
                gaps += found
                nulls += permuted
            metrics += rows
            step()
    fairness_gaps = corrected(FAIRNESS_GAPS.frame(gaps), nulls, settings, declared)
    order = [*SCORE_SET, "attribute"]
    warnings = SCORE_WARNINGS.frame(warned)
    compared = model_comparisons(test, attributes, settings)
    step()
    return Assessment(
        SUBGROUP_METRICS.frame(metrics).sort(*order, "subgroup", "metric"),
        withhold_verdicts(fairness_gaps, warnings).sort(*order, "metric"),
        pl.concat([THRESHOLD_SWEEP.frame(), *sweeps]).sort(*order, "subgroup", "threshold"),
        SUBGROUP_CALIBRATION.frame(calibrated).sort(*order, "subgroup"),
        with_q_values(calibration_tested).sort(*order, "parameter"),
        CROSS_GROUP_AUROC.frame(crossed).sort(*order, "positives_of", "negatives_of"),
        INTERSECTIONS.frame(intersected).sort(*order, "subgroup", "metric"),
        compared,
        warnings.sort(*order, "subgroup", "code"),
    )


def _subgroup_rows(
    cohort: ScoreSets, attribute: str, settings: FairnessSection, alpha: float, draws: Draws
) -> list[dict[str, Any]]:
    rows = []
    for key, one in cohort.items():
        groups, of_set = one.by_level(attribute), named(key) | {"attribute": attribute}
        found = [list(measured(group, level, settings, draws.get(key))) for level, group in groups.items()]
        for of_metric in zip(*found, strict=True):
            for level, row in zip(groups, with_detectable(of_metric, alpha), strict=True):
                rows.append(of_set | {"subgroup": level} | row)
    return rows


def _sweeps(
    cohort: ScoreSets, attribute: str, rows: Sequence[Mapping[str, Any]], settings: FairnessSection
) -> list[pl.DataFrame]:
    shown = {
        (tuple(row[name] for name in SCORE_SET), row["subgroup"])
        for row in rows
        if row["metric"] == "auroc" and row["status"] in ("tested", "interval_only")
    }
    subgroups, swept = [], []
    for key, one in cohort.items():
        for level, studies in one.by_level(attribute).items():
            if (key, level) in shown:
                subgroups.append(named(key) | {"attribute": attribute, "subgroup": level})
                swept.append(sweep(studies.y_true, studies.y_score, studies.patient, settings.confidence))
    if not swept:
        return []
    k = np.array([len(found.threshold) for found in swept])
    tpr, fpr = (np.concatenate([getattr(found, name) for found in swept]) for name in ("tpr", "fpr"))
    of_tpr, of_fpr = (
        np.repeat([getattr(found, name) for found in swept], k) for name in ("tpr_half_width", "fpr_half_width")
    )
    columns = {
        "threshold": np.concatenate([found.threshold for found in swept]),
        "tpr": tpr,
        "fpr": fpr,
        "band_low": np.clip(tpr - of_tpr, 0, 1),
        "band_high": np.clip(tpr + of_tpr, 0, 1),
        "fpr_band_low": np.clip(fpr - of_fpr, 0, 1),
        "fpr_band_high": np.clip(fpr + of_fpr, 0, 1),
    }
    names = pl.DataFrame(subgroups)[np.repeat(np.arange(len(swept)), k)]
    return [pl.concat([names, pl.DataFrame(columns)], how="horizontal").select(*THRESHOLD_SWEEP.schema)]

"""Comparison of all pairs of score sets of a task on their common studies, overall and in each subgroup.

For the statistics of one pair see `paired.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.vocabulary import MODEL, OVERALL, SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.auroc import structural_components
from fmaudit_core.fairness.by_patient import ByPatient
from fmaudit_core.fairness.multiplicity import benjamini_hochberg
from fmaudit_core.fairness.paired import Paired, paired
from fmaudit_core.fairness.score_sets import ScoreSet, ScoreSets, Studies, by_studies, named
from fmaudit_core.fairness.small_groups import NO_THRESHOLD, status_of
from fmaudit_core.tables.findings import MODEL_COMPARISONS

BoolArray = npt.NDArray[np.bool_]

#: columns that identify a model: all columns of a score set except its task
_TASK: Final = SCORE_SET.index("task")


def model_comparisons(
    test: pl.DataFrame, attributes: Sequence[str], settings: FairnessSection, *, baselines: Collection[str] = ()
) -> pl.DataFrame:
    """Compare every pair of score sets of each task, on the studies scored by both.

    Parameters
    ----------
    test : frame
        Checked predictions of the evaluated split, with `threshold`.
    attributes : sequence of str
    baselines : collection of str
        Reference encoders. In a pair with one of them, it is the other model, so that `non_inferior` answers whether the first
        model can replace it.

    Returns
    -------
    Frame of `MODEL_COMPARISONS`, empty where a task has one score set: `difference` is that of the first model minus the
    other; `non_inferior` whether the first is worse by less than the margin (AUROC: `auroc_margin`), tested one-sided. Only
    `tested` rows carry p, the q-values are over all of them. `verdict` of the first model: ``better`` or ``worse`` where the
    difference is more than chance explains (q at most alpha), ``not_worse`` where it is non-inferior, else ``cannot_tell``.
    """
    cohorts = list(by_studies(test))
    rows = [row for cohort in cohorts for row in _pairs(_ordered(cohort, baselines), attributes, settings)]
    for one, other in combinations(cohorts, 2):
        for first, second in product(one, other):
            if first[_TASK] == second[_TASK]:
                both = _ordered(_on_both(one[first].frame, other[second].frame), baselines)
                rows += _pairs(both, attributes, settings)
    out = MODEL_COMPARISONS.frame(rows)
    p = out.get_column("p_value").fill_null(np.nan).to_numpy()
    out = out.with_columns(q_value=pl.Series(benjamini_hochberg(p), dtype=pl.Float64).fill_nan(None))
    out = out.with_columns(verdict=_verdict(settings))
    return out.sort("task", *MODEL, *(f"other_{name}" for name in MODEL), "attribute", "subgroup", "metric")


def _on_both(first: pl.DataFrame, second: pl.DataFrame) -> ScoreSets:
    """Return two score sets on their common studies, in the same order and sorted by name; empty if there are none."""
    sets = [first.join(second, on="study_id", how="semi"), second.join(first, on="study_id", how="semi")]
    if sets[0].is_empty():
        return {}
    return dict(sorted((one.select(SCORE_SET).row(0), ScoreSet(one.sort("study_id"))) for one in sets))


def _verdict(settings: FairnessSection) -> pl.Expr:
    """Return the verdict on the first model in a tested row: better, not worse by the margin, worse, or undecided."""
    ahead = pl.when(metric="auroc").then(pl.col("difference")).otherwise(-pl.col("difference"))
    apart = pl.col("q_value") <= settings.alpha
    return (
        pl.when(pl.col("p_value").is_null())
        .then(None)
        .when(apart & (ahead > 0))
        .then(pl.lit("better"))
        .when("non_inferior")
        .then(pl.lit("not_worse"))
        .when(apart)
        .then(pl.lit("worse"))
        .otherwise(pl.lit("cannot_tell"))
    )


def _ordered(cohort: ScoreSets, baselines: Collection[str]) -> ScoreSets:
    """Return the score sets with the baselines last."""
    at = SCORE_SET.index("encoder")
    return dict(sorted(cohort.items(), key=lambda item: (item[0][at] in baselines, item[0])))


def _pairs(cohort: ScoreSets, attributes: Sequence[str], settings: FairnessSection) -> Iterator[dict[str, Any]]:
    """Yield the rows of every pair of score sets, which have the same studies in the same order."""
    if len(cohort) < 2:
        return
    of_pair = {
        (a, b): _named(first, second)
        for (a, first), (b, second) in combinations(enumerate(cohort), 2)
    }  # fmt: skip
    yield from _by_subgroup(of_pair, list(cohort.values()), attributes, settings)


def pair_rows(
    identity: dict[str, Any],
    first: pl.DataFrame,
    second: pl.DataFrame,
    attributes: Sequence[str],
    settings: FairnessSection,
) -> Iterator[dict[str, Any]]:
    """Yield AUROC, UDR and FPR rows of two score sets on their common studies, overall and in each subgroup.

    Labels, attributes and patients are taken from the first. Each row starts with the columns in `identity`.
    """
    one = first.join(second, on="study_id", how="semi").sort("study_id")
    other = second.join(first, on="study_id", how="semi").sort("study_id")
    if not one.is_empty():
        yield from _by_subgroup({(0, 1): identity}, [ScoreSet(one), ScoreSet(other)], attributes, settings)


def _by_subgroup(
    of_pair: Mapping[tuple[int, int], dict[str, Any]],
    sets: Sequence[ScoreSet],
    attributes: Sequence[str],
    settings: FairnessSection,
) -> Iterator[dict[str, Any]]:
    for attribute in (OVERALL, *attributes):
        levels, place = sets[0].codes(attribute)
        for at, level in enumerate(levels):
            inside = [one.studies.only(place == at) for one in sets]
            subgroup = {"attribute": attribute, "subgroup": level}
            yield from _compared(of_pair, subgroup, inside, settings)


def _named(first: tuple[Any, ...], second: tuple[Any, ...]) -> dict[str, Any]:
    one, other = named(first), named(second)
    return one | {f"other_{name}": other[name] for name in MODEL}


def _compared(
    of_pair: Mapping[tuple[int, int], dict[str, Any]],
    subgroup: dict[str, Any],
    sets: Sequence[Studies],
    settings: FairnessSection,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one subgroup for every pair. Metrics of a single model are computed once, not once per pair."""
    y, patient = sets[0].y_true, sets[0].patient
    n_pos, n_neg = int(y.sum()), int((~y).sum())
    status = status_of(y, patient, settings, subgroup["subgroup"])
    if status not in ("tested", "interval_only"):
        for pair in of_pair.values():
            yield from (pair | subgroup | {"metric": metric, "status": status} for metric in ("auroc", "udr", "fpr"))
        return
    counts = {"status": status, "n": len(y), "n_pos": n_pos, "n_neg": n_neg}
    shown = [_by_patient(y, patient, one) for one in sets]
    for (a, b), pair in of_pair.items():
        found = {metric: paired(one, shown[b][metric]) for metric, one in shown[a].items() if metric in shown[b]}
        if len(found) == 1:
            yield from (pair | subgroup | {"metric": metric, "status": NO_THRESHOLD} for metric in ("udr", "fpr"))
        for metric, one in found.items():
            estimates = _estimates(one, metric, settings, tested=status == "tested")
            yield pair | subgroup | counts | {"metric": metric} | estimates


def _by_patient(y: BoolArray, patient: npt.NDArray[np.int64], studies: Studies) -> dict[str, ByPatient]:
    """Return every metric of one model with the labels of the first: AUROC, and UDR and FPR if it has a threshold."""
    out = {"auroc": ByPatient.of_components(y, structural_components(y, studies.y_score), patient)}
    if studies.has_threshold:
        called = studies.y_score >= studies.threshold
        out["udr"] = ByPatient.of_calls(~called[y], patient[y])
        out["fpr"] = ByPatient.of_calls(called[~y], patient[~y])
    return out


def _estimates(pair: Paired, metric: str, settings: FairnessSection, *, tested: bool) -> dict[str, Any]:
    low, high = pair.interval(settings.confidence) or (None, None)
    row: dict[str, Any] = {"value": pair.first, "other_value": pair.second, "difference": pair.difference}
    row |= {"ci_low": low, "ci_high": high}
    if tested:
        margin = settings.auroc_margin if metric == "auroc" else settings.margin
        p = pair.p_non_inferior(margin, higher_is_better=metric == "auroc")
        row |= {
            "p_value": pair.p_value(),
            "p_non_inferior": p,
            "non_inferior": None if p is None else p <= settings.alpha,
        }
    return row

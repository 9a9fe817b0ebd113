"""Evaluation of every run of one encoder and task against the unmitigated probe, on test, for every attribute and subgroup.

Each run's threshold is chosen on validation again, so a gap cannot close by predicting everyone positive. The paired tests are in
`swap_test.py`, the recommendation in `recommend.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.gaps import exceedance
from fmaudit_core.fairness.multiplicity import step_down_max_t
from fmaudit_core.fairness.paired import paired_components
from fmaudit_core.mitigation.runs import NONE, RUN
from fmaudit_core.mitigation.subgroup_changes import change_interval, subgroup_rows, tested_subgroups
from fmaudit_core.mitigation.swap_test import GAP, VARIANCE, Calls, Reduction, redrawn, reduction, swapped
from fmaudit_core.mitigation.variants import Baseline, Variant, baseline_of, variants_of
from fmaudit_core.tables.mitigation import MITIGATION_RESULTS, MITIGATION_SUBGROUPS

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """Result tables of one encoder and task.

    Parameters
    ----------
    results : a row per run and evaluated attribute; a strategy with seeds has one more row over them, with a null seed
    subgroups : a row per strategy (over its seeds), subgroup and metric (udr, fpr): before, after, change with its interval
    """

    results: pl.DataFrame
    subgroups: pl.DataFrame


def evaluate(
    scores: pl.DataFrame,
    runs: pl.DataFrame,
    attributes: Sequence[str],
    settings: FairnessSection,
    *,
    n_bootstrap: int,
    progress: Progress = silent,
) -> Evaluation:
    """Compare every run of one encoder and task with the unmitigated probe.

    Parameters
    ----------
    scores : frame
        `MITIGATION_SCORES` and the attributes, of one encoder and task.
    runs : frame
        `MITIGATION_RUNS` of the same.
    n_bootstrap : int
        Number of bootstrap samples of patients for the intervals.
    progress : callable, optional
        Receives the number of compared runs, over all attributes.

    Raises
    ------
    MitigationError
        The scores of the unmitigated probe are missing, or runs cover other studies.
    """
    test = scores.filter(pl.col("split") == "test").sort("study_id")
    if test.get_column("y_true").n_unique() < 2:
        return _not_estimable(runs)
    by_run = {key: frame for key, frame in test.group_by(*RUN, maintain_order=True)}  # noqa: C416 (a GroupBy is not a dict)
    base = baseline_of(by_run)
    status = {tuple(row[name] for name in RUN): row for row in runs.iter_rows(named=True)}
    variants = list(variants_of(by_run, base, status))
    results: list[dict[str, Any]] = []
    subgroups: list[dict[str, Any]] = []
    nulls: list[tuple[int, Float64Array]] = []
    total = len(attributes) * len(variants)
    for attribute in attributes:
        group, tested, rules = tested_subgroups(base.frame.get_column(attribute), base.y, base.patient, settings)
        for variant in variants:
            progress(len(results), total)
            row, null = _row(base, variant, attribute, group, tested, settings, n_bootstrap)
            if null is not None and variant.summary and variant.chosen and variant.key["target_attribute"] == attribute:
                nulls.append((len(results), null[:, GAP]))
            results.append(row)
            if variant.summary:
                subgroups += subgroup_rows(base, variant, attribute, rules, settings)
    progress(total, total)
    if nulls:
        observed = np.array([results[at]["reduction"] for at, _ in nulls])
        permuted = np.stack([null for _, null in nulls], axis=1)
        for name, sign in (("p_adjusted", 1), ("p_widened", -1)):  # the swap test is one-sided
            for (at, _), p in zip(nulls, step_down_max_t(sign * observed, sign * permuted), strict=True):
                results[at][name] = float(p)
    results += [
        {name: row[name] for name in RUN}
        | {"attribute": row["target_attribute"], "metric": "udr", "status": row["status"], "reason": row["reason"]}
        for row in status.values()
        if row["status"] in ("not_fitted", "diverged")
    ]
    order = ["strategy", "target_attribute", "alpha", "seed", "attribute"]
    return Evaluation(
        MITIGATION_RESULTS.frame(results).sort(order, nulls_last=False),
        MITIGATION_SUBGROUPS.frame(subgroups).sort(*order, "subgroup", "metric", nulls_last=False),
    )


def _not_estimable(runs: pl.DataFrame) -> Evaluation:
    """Return rows with status `not_estimable`, for a test split of one class only or without scores."""
    reason = "test has one class only among the studies with an embedding"
    rows = [
        {name: row[name] for name in (*RUN, "chosen", "status", "reason")}
        | ({} if row["status"] == "not_fitted" else {"status": "not_estimable", "reason": reason})
        | {"attribute": row["target_attribute"], "metric": "udr"}
        for row in runs.iter_rows(named=True)
        if row["strategy"] != NONE
    ]
    return Evaluation(MITIGATION_RESULTS.frame(rows), MITIGATION_SUBGROUPS.frame())


def _row(
    base: Baseline,
    variant: Variant,
    attribute: str,
    group: IntArray,
    tested: Sequence[str],
    settings: FairnessSection,
    n_bootstrap: int,
) -> tuple[dict[str, Any], Float64Array | None]:
    """Return one row of the results, and the null distribution of its reductions."""
    y = base.y
    mean = variant.components.mean(axis=0)
    auroc = float(mean[y].mean())
    paired = paired_components(y, mean, base.components, base.patient)
    interval = paired.interval(settings.confidence)
    by_run = variant.components[:, y].mean(axis=1)
    row: dict[str, Any] = variant.key | {
        "attribute": attribute,
        "metric": "udr",
        "chosen": variant.chosen,
        "auroc": auroc,
        "auroc_before": base.auroc,
        "auroc_delta": paired.difference,
        "auroc_delta_low": interval[0] if interval else None,
        "auroc_delta_high": interval[1] if interval else None,
        "interpretable": paired.difference >= -settings.auroc_margin and not variant.mostly_diverged,
        "udr_before": 1 - float(base.called[y].mean()),
        "udr_after": 1 - float(variant.called[:, y].mean()),
        "fpr_before": float(base.called[~y].mean()),
        "fpr_after": float(variant.called[:, ~y].mean()),
        "n_tested": len(tested),
        "n_seeds": len(variant.called),
        "n_collapsed": variant.n_collapsed,
        "n_diverged": variant.n_diverged,
        "auroc_seed_sd": float(by_run.std(ddof=1)) if len(by_run) > 1 else None,
    }
    if len(tested) < 2:
        reason = (
            f"fewer than two subgroups have {settings.test_from} patients with positives and with negatives in test"
        )
        return row | {"status": "too_few", "reason": reason}, None
    inside = y & (group >= 0)
    calls = Calls.of(base.patient[inside], group[inside], base.called[inside], variant.called[:, inside])
    found = reduction(calls)
    task = variant.key["task"]
    null = swapped(calls, settings.n_permutations, seed=settings.seed, named=f"{task}/swaps")
    row |= _gaps(found, variant) | {
        "status": "evaluated",
        "p_reduction": exceedance(null[:, GAP], found.gap),
        "p_variance_reduction": exceedance(null[:, VARIANCE], found.variance),
        "n_permutations": settings.n_permutations,
    }
    if variant.summary:
        drawn = redrawn(calls, n_bootstrap, seed=settings.seed, named=f"{task}/draws")
        row |= _intervals(calls, drawn, settings.confidence)
    row |= _ends(base, variant, group, tested, settings.confidence)
    negatives = ~y & (group >= 0)
    for name, called in (("fpr_gap_before", base.called[None]), ("fpr_gap_after", variant.called)):
        rates = np.stack([called[:, negatives & (group == g)].mean(axis=1) for g in range(len(tested))])
        row[name] = float(np.ptp(rates, axis=0).mean())
    return row, null


def _gaps(found: Reduction, variant: Variant) -> dict[str, Any]:
    return {
        "gap_before": found.gap_before,
        "gap_after": found.gap_after,
        "reduction": found.gap,
        "variance_reduction": found.variance,
        "corrected_sd_before": float(np.sqrt(max(found.variance_before, 0.0))),
        "corrected_sd_after": float(np.sqrt(max(found.variance_after, 0.0))),
        "gap_seed_sd": float(found.gap_by_run.std(ddof=1)) if len(variant.called) > 1 else None,
    }


def _intervals(calls: Calls, drawn: Float64Array, confidence: float) -> dict[str, Any]:
    """Return percentile intervals; empty if a subgroup has a rate of 0 or 1, which does not vary between bootstrap samples."""
    for one in (calls.before, *calls.after):
        rates = np.bincount(calls.group, one) / np.bincount(calls.group, calls.studies)
        if ((rates <= 0) | (rates >= 1)).any():
            return {}
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
    return {
        "ci_low": float(low[GAP]),
        "ci_high": float(high[GAP]),
        "variance_ci_low": float(low[VARIANCE]),
        "variance_ci_high": float(high[VARIANCE]),
        "gap_sampling_se": float(drawn[:, GAP].std(ddof=1)),
    }


def _ends(
    base: Baseline, variant: Variant, group: IntArray, tested: Sequence[str], confidence: float
) -> dict[str, Any]:
    """Return the changes of the worst and the best subgroup of the unmitigated probe, and whether there is levelling down.

    Levelling down: the best subgroup's UDR rises by more than the worst subgroup's falls, and the worst subgroup does not gain
    beyond chance. Requiring no gain at all would let a single additional true positive hide it. If several subgroups tie for best
    or worst, levelling down of any pair counts. Of the best, the one that loses most is named; of the worst, the one with
    levelling down, otherwise the one with the least certain gain.
    """
    of = [base.y & (group == g) for g in range(len(tested))]
    before = np.array([1 - base.called[one].mean() for one in of])
    delta = np.array([1 - variant.called[:, one].mean() for one in of]) - before
    worsts, bests = (np.flatnonzero(before == end).tolist() for end in (before.max(), before.min()))
    high: dict[int, float] = {}
    for g in worsts:
        missed, missed_after = (~base.called[of[g]]).astype(np.float64), 1 - variant.called[:, of[g]].mean(axis=0)
        high[g] = change_interval(missed, missed_after, base.patient[of[g]], confidence)[1]
    # without differences all subgroups tie: then each is compared with the others
    levels = {g: high[g] >= 0 and any(delta[b] > max(0.0, -delta[g]) for b in bests if b != g) for g in worsts}
    worst = max(worsts, key=lambda g: (levels[g], high[g]))
    best = max(bests, key=lambda g: delta[g])
    return {
        "worst_subgroup": tested[worst],
        "worst_subgroup_udr_delta": float(delta[worst]),
        "best_subgroup": tested[best],
        "best_subgroup_udr_delta": float(delta[best]),
        "levelling_down": bool(levels[worst]),
    }

"""Which strategy, if any, for one encoder and task: what it gains, whom it costs, or none and why. In plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.mitigation.runs import NONE, STRATEGY_TITLES
from fmaudit_core.vocabulary import ATTRIBUTE_TITLES, TASK_TITLES

RECOMMENDATION_SCHEMA: Final = pl.Schema(
    [
        ("encoder", pl.String()),
        ("task", pl.String()),
        ("strategy", pl.String()),
        ("target_attribute", pl.String()),
        ("alpha", pl.Float64()),
        ("verdict", pl.String()),
        ("reduction", pl.Float64()),
        ("p_adjusted", pl.Float64()),
        ("worst_subgroup", pl.String()),
        ("worst_subgroup_udr_delta", pl.Float64()),
        ("auroc_delta", pl.Float64()),
        ("costs", pl.List(pl.String())),
        ("sentence", pl.String()),
    ]
)


#: what names a strategy and the subgroup it is to help, in results and subgroups alike
_GAINS: Final = ("strategy", "target_attribute", "alpha", "attribute", "worst_subgroup")
_HARM: Final = {"udr": "missed disease", "fpr": "false alarms"}


def recommend(
    results: pl.DataFrame,
    subgroups: pl.DataFrame,
    gaps: pl.DataFrame,
    settings: FairnessSection,
) -> pl.DataFrame:
    """One row for an encoder and task.

    A strategy is recommended where the audit found a disparity, and the strategy narrows that gap beyond chance (p corrected over
    all strategies and attributes of the cell, the interval above 0), within the AUROC margin, with the worst-off subgroup better
    off beyond chance. Of several, the one under which the worst-off subgroup gains most.

    Parameters
    ----------
    results, subgroups : frame
        Of `evaluate.evaluate`, one encoder and task.
    gaps : frame
        `fairness_gaps` of the probe as it was: which attributes hold a disparity in UDR.
    """
    cell = {name: results.get_column(name)[0] for name in ("encoder", "task")}
    unequal = gaps.filter((pl.col("metric") == "udr") & (pl.col("verdict") == "disparity"))
    attributes = unequal.get_column("attribute").unique().sort().to_list()
    tried = results.filter(own_run() & pl.col("attribute").is_in(attributes))
    narrowed = tried.filter(narrows(settings))
    good = narrowed.filter("interpretable").join(_gaining(subgroups), on=_GAINS, how="semi", nulls_equal=True)
    if good.is_empty():
        verdict, why = _why_none(cell["task"], attributes, tried, narrowed, settings)
        row = cell | {"strategy": NONE, "target_attribute": NONE, "verdict": verdict, "costs": [], "sentence": why}
        return pl.DataFrame([row], schema=RECOMMENDATION_SCHEMA)
    best = good.sort("worst_subgroup_udr_delta", "p_adjusted", "strategy").row(0, named=True)
    costs = _costs(best, results, subgroups)
    kept = {name: best[name] for name in RECOMMENDATION_SCHEMA if name in best}
    row = kept | {"verdict": "recommended", "costs": costs, "sentence": _sentence(best, costs)}
    return pl.DataFrame([row], schema=RECOMMENDATION_SCHEMA)


def own_run() -> pl.Expr:
    """Whether an evaluated run speaks for its strategy on the attribute it is aimed at: over seeds, its alpha chosen."""
    return (
        pl.col("chosen").fill_null(value=False)
        & pl.col("seed").is_null()
        & (pl.col("status") == "evaluated")
        & (pl.col("attribute") == pl.col("target_attribute"))
    )


def narrows(settings: FairnessSection) -> pl.Expr:
    """Whether a run narrows the gap beyond chance. The swap test alone would also credit a strategy that really moved a subgroup
    whose gap was chance, so the interval must lie above 0 too.
    """
    return (pl.col("p_adjusted") <= settings.alpha) & (pl.col("ci_low").fill_null(pl.col("reduction")) > 0)


def harms() -> pl.Expr:
    """Whether a subgroup is missed more, or called in vain more, beyond chance."""
    return (pl.col("status") == "tested") & (pl.col("ci_low") > 0)


def _gaining(subgroups: pl.DataFrame) -> pl.DataFrame:
    """Subgroups that a strategy misses less beyond chance."""
    gains = (pl.col("metric") == "udr") & (pl.col("ci_high") < 0)
    return subgroups.filter(gains).rename({"subgroup": "worst_subgroup"})


def widens() -> pl.Expr:
    """Whether a run widens a gap beyond chance."""
    return pl.col("ci_high") < 0


def _sentence(best: Mapping[str, Any], costs: Sequence[str]) -> str:
    strategy = STRATEGY_TITLES[best["strategy"]]
    strength = f" at alpha {best['alpha']:g}" if best["alpha"] is not None else ""
    missed = best["worst_subgroup_udr_delta"]
    said = (
        f"{TASK_TITLES.get(best['task'], best['task'])}: {strategy}{strength}, aimed at {_attribute(best['attribute'])}, narrows "
        f"the gap in missed disease from {_points(best['gap_before'])} to {_points(best['gap_after'])} points "
        f"(adjusted p = {best['p_adjusted']:.2g}). In {best['worst_subgroup']}, the subgroup missed most, it misses "
        f"{_points(-missed)} points fewer."
    )
    auroc = f"AUROC changes by {best['auroc_delta']:+.3f}"
    return (
        f"{said} {auroc}; it costs {', '.join(costs)}."
        if costs
        else f"{said} {auroc}; it costs no tested subgroup beyond chance."
    )


def _costs(best: Mapping[str, Any], results: pl.DataFrame, subgroups: pl.DataFrame) -> list[str]:
    """Subgroups missed more, or called in vain more, with an interval above 0; gaps of other attributes that widened."""
    same = [
        pl.col(name).is_null() if best[name] is None else pl.col(name) == best[name]
        for name in ("strategy", "target_attribute", "alpha")
    ]
    worse = subgroups.filter(*same, harms())
    said = [
        f"{row['subgroup']} {_points(row['delta'])} points more {_HARM[row['metric']]}"
        for row in worse.sort("metric", "delta", descending=[True, True]).iter_rows(named=True)
    ]
    spilled = results.filter(*same, pl.col("seed").is_null(), pl.col("attribute") != best["attribute"], widens())
    return said + [
        f"a gap by {_attribute(row['attribute'])} that widens by {_points(-row['reduction'])} points"
        for row in spilled.sort("attribute").iter_rows(named=True)
    ]


def _why_none(
    task: str, attributes: Sequence[str], tried: pl.DataFrame, narrowed: pl.DataFrame, settings: FairnessSection
) -> tuple[str, str]:
    head = f"{TASK_TITLES.get(task, task)}: no strategy is recommended,"
    if not attributes:
        return (
            "no_disparity_shown",
            f"{head} because the audit has shown no disparity in missed disease that one could mend.",
        )
    named = " and ".join(_attribute(one) for one in attributes)
    if tried.is_empty():
        return "none_evaluated", f"{head} because none could be evaluated on the subgroups by {named}."
    if narrowed.is_empty():
        return (
            "none_narrows",
            f"{head} because none of the {tried.height} tried narrows the gap by {named} beyond chance "
            f"(smallest adjusted p = {float(np.nanmin(tried.get_column('p_adjusted').to_numpy())):.2g}).",
        )
    reasons = []
    for row in narrowed.sort("strategy", "target_attribute").iter_rows(named=True):
        strategy = f"{STRATEGY_TITLES[row['strategy']]} by {_attribute(row['attribute'])}"
        if not row["interpretable"]:
            reasons.append(
                f"{strategy} costs {-row['auroc_delta']:.3f} AUROC, beyond the margin of {settings.auroc_margin:g}"
            )
        elif row["levelling_down"]:
            reasons.append(
                f"{strategy} levels down: {row['best_subgroup']} is missed more, {row['worst_subgroup']} no less beyond chance"
            )
        else:
            reasons.append(f"{strategy} does not help {row['worst_subgroup']}, the subgroup missed most, beyond chance")
    levelled = bool(narrowed.get_column("levelling_down").any())
    return ("levelling_down" if levelled else "too_costly"), f"{head} though the gap narrows: {'; '.join(reasons)}."


def _attribute(name: str) -> str:
    return ATTRIBUTE_TITLES.get(name, name).lower()


def _points(value: float) -> str:
    return f"{100 * value:.1f}"

"""The recommended strategy of one encoder and task, or the reason for none. Text: `report/text/recommendations.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.mitigation.runs import NONE
from fmaudit_core.tables.findings import MITIGATION_RECOMMENDATIONS

#: the verdict if runs narrow a gap but are refused for different reasons
SEVERAL: Final = "several_reasons"
#: columns that identify a strategy and the subgroup it should help, in results and in subgroups
_GAINS: Final = ("strategy", "target_attribute", "alpha", "attribute", "worst_subgroup")


def recommend(
    results: pl.DataFrame, subgroups: pl.DataFrame, findings: pl.DataFrame, settings: FairnessSection
) -> pl.DataFrame:
    """Return one row with the recommendation for an encoder and task.

    A strategy is recommended if the audit found a disparity and the strategy narrows that gap beyond chance (p corrected over all
    strategies and attributes of the cell, and interval above 0), within the AUROC margin, and the worst subgroup gains beyond
    chance. Among several, the one with the largest gain of the worst subgroup is recommended.

    Parameters
    ----------
    results, subgroups : frame
        Output of `evaluate.evaluate`, for one encoder and task.
    findings : frame
        `audit_findings` of the unmitigated probe: the attributes with a disparity in UDR, corrected over the family.
    """
    cell = {name: results.get_column(name)[0] for name in ("encoder", "task")}
    unequal = findings.filter((pl.col("metric") == "udr") & (pl.col("verdict") == "disparity"))
    attributes = unequal.get_column("attribute").unique().sort().to_list()
    tried = results.filter(own_run() & pl.col("attribute").is_in(attributes))
    narrowed = tried.filter(narrows(settings))
    good = narrowed.filter("interpretable").join(_gaining(subgroups), on=_GAINS, how="semi", nulls_equal=True)
    if good.is_empty():
        verdict = _why_none(attributes, tried, narrowed)
        return _recommendation(cell | {"strategy": NONE, "target_attribute": NONE, "verdict": verdict})
    best = good.sort("worst_subgroup_udr_delta", "p_adjusted", "strategy").row(0, named=True)
    row = {name: best[name] for name in MITIGATION_RECOMMENDATIONS.schema if name in best}
    return _recommendation(row | {"verdict": "recommended"})


def _recommendation(row: Mapping[str, Any]) -> pl.DataFrame:
    """Return the row as a frame, without the columns in words: those are written of disclosed numbers."""
    return MITIGATION_RECOMMENDATIONS.frame([row]).drop("costs", "sentence")


def own_run() -> pl.Expr:
    """Return an expression: whether an evaluated run is its strategy's primary result for the target attribute.

    That is the chosen run over all seeds.
    """
    return (
        pl.col("chosen").fill_null(value=False)
        & pl.col("seed").is_null()
        & (pl.col("status") == "evaluated")
        & (pl.col("attribute") == pl.col("target_attribute"))
    )


def narrows(settings: FairnessSection) -> pl.Expr:
    """Return an expression: whether a run narrows the gap beyond chance.

    The swap test alone would also credit a strategy that truly changed a subgroup whose gap was due to chance, so the interval
    must lie above 0 too. If there is no interval, narrowing is not shown.
    """
    shown = (pl.col("p_adjusted") <= settings.alpha) & (pl.col("ci_low") > 0)
    return shown.fill_null(value=False)


def harms() -> pl.Expr:
    """Return an expression: whether a subgroup's missed positives or false alarms increase beyond chance."""
    return (pl.col("status") == "tested") & (pl.col("ci_low") > 0)


def _gaining(subgroups: pl.DataFrame) -> pl.DataFrame:
    """Return the subgroups whose UDR a strategy lowers beyond chance."""
    gains = (pl.col("metric") == "udr") & (pl.col("ci_high") < 0)
    return subgroups.filter(gains).rename({"subgroup": "worst_subgroup"})


def widens(settings: FairnessSection) -> pl.Expr:
    """Return an expression: whether a run widens a gap beyond chance; its target's as in `narrows`, others' by the interval."""
    beyond = (pl.col("p_widened") <= settings.alpha) & (pl.col("ci_high").fill_null(pl.col("reduction")) < 0)
    return pl.when(pl.col("p_widened").is_null()).then(pl.col("ci_high") < 0).otherwise(beyond)


def _why_none(attributes: Sequence[str], tried: pl.DataFrame, narrowed: pl.DataFrame) -> str:
    if not attributes:
        return "no_disparity_shown"
    if tried.is_empty():
        return "none_evaluated"
    if narrowed.is_empty():
        return "none_narrows"
    reasons = {refusal(run) for run in narrowed.iter_rows(named=True)}
    return reasons.pop() if len(reasons) == 1 else SEVERAL


def refusal(run: Mapping[str, Any]) -> str:
    """Return the reason why a run that narrows its gap is not recommended."""
    if run["n_diverged"] > run["n_seeds"]:
        return "diverged"
    if not run["interpretable"]:
        return "too_costly"
    return "levelling_down" if run["levelling_down"] else "no_gain_shown"

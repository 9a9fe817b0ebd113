"""Tables of mitigation as they may be shown. Who is protected: `small_group_rounding.py`; what they mean: `mitigation/`.

No count of a subgroup is reported here, nor a number of studies from which one follows: what a reader needs of them stands in the
metrics. Where an attribute has a protected subgroup its rates, gaps and their changes are in whole percent, as in the metrics; a
protected subgroup has no row with a number. What a rule says of the exact numbers (does it narrow beyond chance, whom does it
harm) is noted before they are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from fmaudit_core.mitigation.recommend import harms, narrows, own_run, widens
from fmaudit_core.report.disclosure.small_group_rounding import DECIMALS
from fmaudit_core.report.input.report_input import (
    ADVICE,
    CAPACITY,
    INTERACTIONS,
    LADDER,
    LEAKAGE,
    MITIGATED,
    MITIGATION,
    PROBES,
    ReportInput,
)

_GAPS: Final = ("gap_before", "gap_after", "reduction", "ci_low", "ci_high", "gap_seed_sd", "gap_sampling_se")
_ENDS: Final = ("worst_subgroup", "best_subgroup")
_RATES: Final = ("before", "after", "delta", "ci_low", "ci_high")
#: rows stand in this order, whichever they came in
_ORDER: Final = (
    "encoder", "other_encoder", "task", "strategy", "target_attribute", "alpha", "seed", "attribute", "subgroup", "metric",
    "stage", "probe", "width",
)  # fmt: skip
_COMPARED: Final = ("reduction", "other_reduction", "difference", "ci_low", "ci_high")


@dataclass(frozen=True)
class Mitigation:
    """The tables as they may be shown.

    Parameters
    ----------
    results : frame with `own` (the run that is primary for a strategy), `narrowed` and `widened` (beyond chance)
    subgroups : frame with `harmed`, `helped` (beyond chance) and `counts`: ``exact``, ``rounded`` or ``withheld``
    advice : frame of recommendations; their sentences are the page's
    leakage, probes, capacity, interactions, ladder : frames
    """

    results: pl.DataFrame
    subgroups: pl.DataFrame
    advice: pl.DataFrame
    leakage: pl.DataFrame
    probes: pl.DataFrame
    capacity: pl.DataFrame
    interactions: pl.DataFrame
    ladder: pl.DataFrame

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return the tables by the names they are published under."""
        names = {"results": "mitigation_results", "subgroups": "mitigation_subgroups", "probes": "demographic_probes"}
        return {names.get(name, f"mitigation_{name}"): frame for name, frame in vars(self).items() if name != "advice"}


def shown_mitigation(inputs: ReportInput, protected: pl.DataFrame) -> Mitigation:
    """Return the tables of mitigation as they may be shown.

    Parameters
    ----------
    protected : frame of task, attribute, subgroup
    """
    settings = inputs.audit.fairness
    small = inputs.mitigation_subgroups.filter(pl.col("status").is_in(["suppressed", "not_estimable"]))
    hidden = pl.concat([protected, small.select(protected.columns)]).unique()
    results = inputs.mitigation_results.select(MITIGATION.names()).with_columns(
        own=own_run().fill_null(value=False),
        narrowed=narrows(settings).fill_null(value=False),
        widened=widens(settings).fill_null(value=False),
    )
    advice = inputs.mitigation_recommendations.select(ADVICE.names())
    for end in _ENDS:
        results = _without(results, hidden, end, (f"{end}_udr_delta",))
    shown = Mitigation(
        results=_rounded(results, hidden, (*_GAPS, *(f"{end}_udr_delta" for end in _ENDS))),
        subgroups=_subgroups(inputs.mitigation_subgroups, hidden),
        advice=_rounded(
            _without(advice, hidden, "worst_subgroup", ("worst_subgroup_udr_delta",)),
            hidden, ("reduction", "worst_subgroup_udr_delta"), attribute="target_attribute",
        ),
        leakage=inputs.mitigation_leakage.select(LEAKAGE.names()),
        probes=inputs.demographic_probes.select(PROBES.names()),
        capacity=_rounded(inputs.mitigation_capacity.select(CAPACITY.names()), hidden, _GAPS),
        interactions=_rounded(inputs.mitigation_interactions.select(INTERACTIONS.names()), hidden, _COMPARED),
        ladder=_rounded(inputs.mitigation_ladder.select(LADDER.names()), hidden, _GAPS),
    )  # fmt: skip
    return Mitigation(**{name: frame.sort(_keys(frame)) for name, frame in vars(shown).items()})


def _keys(frame: pl.DataFrame) -> list[str]:
    """Columns that tell rows apart."""
    return [name for name in _ORDER if name in frame.columns]


def _subgroups(subgroups: pl.DataFrame, hidden: pl.DataFrame) -> pl.DataFrame:
    rows = subgroups.select(MITIGATED.names()).with_columns(
        harmed=harms().fill_null(value=False),
        helped=((pl.col("status") == "tested") & (pl.col("ci_high") < 0)).fill_null(value=False),
    )
    levels = hidden.with_columns(withheld=pl.lit(value=True))
    neighbours = hidden.select("task", "attribute").unique().with_columns(coarse=pl.lit(value=True))
    on = ["task", "attribute", "subgroup"]
    rows = rows.join(levels, on=on, how="left", maintain_order="left").join(
        neighbours, on=on[:2], how="left", maintain_order="left"
    )
    withheld, coarse = (pl.col(name).fill_null(value=False) for name in ("withheld", "coarse"))
    return rows.with_columns(
        *(
            pl.when(withheld).then(None).when(coarse).then(pl.col(name).round(DECIMALS)).otherwise(name).alias(name)
            for name in _RATES
        ),
        *(pl.when(withheld).then(pl.lit(value=False)).otherwise(name).alias(name) for name in ("harmed", "helped")),
        status=pl.when(withheld).then(pl.lit("suppressed")).otherwise("status"),
        counts=pl.when(withheld)
        .then(pl.lit("withheld"))
        .when(coarse)
        .then(pl.lit("rounded"))
        .otherwise(pl.lit("exact")),
    ).drop("withheld", "coarse")


def _without(rows: pl.DataFrame, hidden: pl.DataFrame, end: str, values: Sequence[str]) -> pl.DataFrame:
    """Return rows without the values of a subgroup that they name in `end`, where it is hidden."""
    attribute = "attribute" if "attribute" in rows.columns else "target_attribute"
    levels = hidden.rename({"attribute": attribute, "subgroup": end}).with_columns(withheld=pl.lit(value=True))
    joined = rows.join(levels, on=["task", attribute, end], how="left", maintain_order="left")
    blank = [pl.when("withheld").then(None).otherwise(name).alias(name) for name in values]
    return joined.with_columns(pl.col("withheld").fill_null(value=False)).with_columns(blank).drop("withheld")


def _rounded(
    rows: pl.DataFrame, hidden: pl.DataFrame, values: Sequence[str], *, attribute: str = "attribute"
) -> pl.DataFrame:
    """Return rows with values in whole percent where their attribute has a hidden subgroup."""
    neighbours = (
        hidden.select("task", pl.col("attribute").alias(attribute)).unique().with_columns(coarse=pl.lit(value=True))
    )
    joined = rows.join(neighbours, on=["task", attribute], how="left", maintain_order="left")
    there = [name for name in values if name in rows.columns]
    coarse = pl.col("coarse").fill_null(value=False)
    return joined.with_columns(
        *(pl.when(coarse).then(pl.col(name).round(DECIMALS)).otherwise(name).alias(name) for name in there),
        rounded=coarse,
    ).drop("coarse")

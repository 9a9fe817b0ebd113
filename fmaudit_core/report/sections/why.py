"""Why there is a gap: gaps before and after standardising for declared covariates, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from fmaudit_core.common import formatting
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.common.vocabulary import subgroup_title
from fmaudit_core.report.index.score_set_index import Key, Row, ScoreSetIndex, by_key

#: why two groups cannot be compared -> the page's words
_NO_OVERLAP: Final = {
    "separated": "the covariates separate it from the other subgroups",
    "few_effective": "too few of its patients are like those of the other subgroups",
    "unbalanced": "the covariates stay different after weighting",
    "one_study": "one study would carry more than a tenth of the weight",
}


@dataclass(frozen=True)
class WhyLine:
    """A subgroup and metric as text: the gap to the other subgroups, what is left of it, and what goes with the covariates."""

    attribute: str
    subgroup: str
    metric: str
    crude: Estimate
    adjusted: Estimate
    p: str
    p_within: str
    explained: Estimate
    share: str
    att: Estimate
    n_effective: str
    imbalance: str
    note: str


@dataclass(frozen=True)
class WhyView:
    """The adjusted gaps of one encoder and task: sentences on the subgroups that fare worst, and every row."""

    encoder: str
    outcome: str
    sentences: Sequence[str]
    lines: Sequence[WhyLine]


@dataclass(frozen=True)
class Why:
    """The section: the covariates and mediators by their titles, and a view per encoder and task."""

    covariates: str
    mediators: str
    views: Sequence[WhyView]


def why_section(index: ScoreSetIndex, adjusted: pl.DataFrame) -> Why | None:
    """Return the section; None if no covariate was declared or nothing could be compared."""
    of_key = by_key(adjusted)
    views = [_view(index, key, of_key[key]) for key in index.keys if key in of_key]
    if not views:
        return None
    audit = index.audit
    return Why(_listed(audit.covariates), _listed(audit.mediators), views)


def _view(index: ScoreSetIndex, key: Key, rows: Sequence[Row]) -> WhyView:
    primary = index.primary_metric
    sentences = []
    for row in rows:
        finding = index.finding(key, row["attribute"], primary) or {}
        if row["metric"] == primary and finding.get("worst_subgroup") == row["subgroup"]:
            sentences.append(why_sentence(row))
    return WhyView(index.named(key.encoder), index.outcome(key), sentences, list(map(_line, rows)))


def why_sentence(row: Row) -> str:
    """Return how much of a gap goes with the covariates; no cause is claimed.

    Parameters
    ----------
    row : a row of `adjusted_gaps`
    """
    whom = f"{formatting.attribute_title(row['attribute'])}, {subgroup_title(row['subgroup'])}"
    names = _listed(row["covariates"])
    if row["status"] != "tested":
        return (
            f"{whom}: how much of the gap goes with {names} cannot be answered, because {_NO_OVERLAP[row['reason']]}."
        )
    crude, adjusted, explained = (_difference(row, name) for name in ("crude", "adjusted", "explained"))
    text = (
        f"{whom}: {formatting.metric_said(row['metric'])} differs from the other subgroups by {crude}. After standardising for "
        f"{names}, {adjusted} is left ({formatting.exploratory_p_text(row['adjusted_p'])}); {explained} goes with them."
    )
    if row["share"] is not None:
        ends = formatting.between(100 * row["share_low"], 100 * row["share_high"], 0)
        text += f" That is {_share(row['share'])} of the gap ({ends}%)."
    if row["mediators"]:
        text += f" {_listed(row['mediators'])} may follow from the subgroup: what goes with it can still belong to the subgroup."
    return text


def _line(row: Row) -> WhyLine:
    size = row["n_effective"]
    before, after = (_plain(row[name]) for name in ("imbalance_before", "imbalance"))
    outside = "" if not row["outside"] else f"{formatting.percent(row['outside'], 0)} of studies have no counterpart"
    return WhyLine(
        attribute=formatting.attribute_title(row["attribute"]),
        subgroup=subgroup_title(row["subgroup"]),
        metric=formatting.metric_title(row["metric"]),
        crude=_difference(row, "crude"),
        adjusted=_difference(row, "adjusted"),
        p=formatting.p_number(row["adjusted_p"]),
        p_within=formatting.p_number(row["adjusted_p_within"]),
        explained=_difference(row, "explained"),
        share=_share(row["share"]),
        att=_difference(row, "att"),
        n_effective=formatting.NONE if size is None else f"{size:,.0f}",
        imbalance=f"{before} to {after}",
        note=outside if row["status"] == "tested" else f"No answer: {_NO_OVERLAP[row['reason']]}",
    )


def _difference(row: Row, name: str) -> Estimate:
    ends = (row[name], row[f"{name}_low"], row[f"{name}_high"])
    return formatting.difference_estimate(row["metric"], *ends, rounded=row["counts"] == "rounded")


def _share(value: float | None) -> str:
    return formatting.NONE if value is None else f"{formatting.signed(100 * value, 0, plus=False)}%"


def _plain(value: float | None) -> str:
    return formatting.NONE if value is None else f"{value:.2f}"


def _listed(names: Sequence[str]) -> str:
    titles = [formatting.attribute_title(name) for name in names]
    return " and ".join([", ".join(titles[:-1]), titles[-1]] if len(titles) > 1 else titles)

"""Audits of several sites as one page: what they show together, with a forest plot of each comparison. How it is pooled:
`sites/pooling.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from typing import Any, Final

from fmaudit_core.common import formatting
from fmaudit_core.common.vocabulary import how_many, subgroup_title
from fmaudit_core.fairness.random_effects import APPROXIMATE_UNDER
from fmaudit_core.report.figures.site_forest import site_forest
from fmaudit_core.report.text.templating import environment

#: order of display; the first is open
_METRICS: Final = ("udr", "fpr", "auroc")


@dataclass(frozen=True)
class SiteEstimate:
    """A subgroup's difference at one site, as a difference of the metric, with its own interval and its weight."""

    site: str
    difference: float
    low: float
    high: float
    weight: float


@dataclass(frozen=True)
class PooledContrast:
    """A subgroup less the other shown subgroups, over sites.

    All differences are of the metric itself: transformed from the scale of the tests at the pooled level of the others.

    Parameters
    ----------
    n : int or None
        Studies over all sites; None if too few sites have the subgroup.
    rounded : bool
        Whether a count was rounded.
    others : float
        The pooled level of the other subgroups.
    difference, low, high : float
    p, p_holm : float
        Exploratory, and corrected over all subgroups and attributes of this model and metric.
    tau : float
        Standard deviation between sites, as a difference of the metric.
    i2 : float
    predicted_low, predicted_high : float
        Interval for the true difference at another site.
    without : sequence of (site, difference, low, high)
        Pooled without each site; empty for two sites.
    """

    encoder: str
    task: str
    attribute: str
    metric: str
    subgroup: str
    sites: Sequence[SiteEstimate]
    n: int | None
    rounded: bool
    others: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    tau: float
    i2: float
    predicted_low: float
    predicted_high: float
    without: Sequence[tuple[str, float, float, float]]


@dataclass(frozen=True)
class Pooled:
    """What several sites show together.

    Parameters
    ----------
    sites : names of the sites
    notes : sentences on accepted differences, and on what the files cannot prove
    n_withholding : int, sites that withhold a small subgroup
    contrasts : sequence of PooledContrast
    alone : (encoder, task, attribute, metric, subgroup) that only one site shows
    titles : mapping of task to title
    confidence : float
    """

    sites: Sequence[str]
    notes: Sequence[str]
    n_withholding: int
    contrasts: Sequence[PooledContrast]
    alone: Sequence[tuple[str, ...]]
    titles: Mapping[str, str]
    confidence: float


def render_pooled(pooled: Pooled) -> str:
    """Return one HTML document that needs nothing else."""
    sections = [_section(pooled, key, list(rows)) for key, rows in groupby(_ordered(pooled), key=_of_model)]
    return (
        environment()
        .get_template("templates/pooled.html.jinja")
        .render(
            pooled=pooled,
            sections=sections,
            alone=[_alone(one) for one in pooled.alone],
            n_sites=how_many(len(pooled.sites), "site"),
            withholding=_withholding(pooled),
            approximate=min(len(pooled.sites), *(len(one.sites) for one in pooled.contrasts)) < APPROXIMATE_UNDER,
            approximate_under=APPROXIMATE_UNDER,
            confidence=formatting.percent(pooled.confidence, 0),
            style=files("fmaudit_core.report").joinpath("templates", "page.css").read_text(encoding="utf-8"),
        )
    )


def _withholding(pooled: Pooled) -> str:
    if not pooled.n_withholding:
        return "No site withholds a small subgroup."
    return (
        f"{pooled.n_withholding} of {len(pooled.sites)} sites withhold small subgroups. Those take no part, and the others are "
        "compared with shown subgroups only."
    )


def _ordered(pooled: Pooled) -> list[PooledContrast]:
    return sorted(pooled.contrasts, key=lambda one: (one.task, one.encoder, _METRICS.index(one.metric), one.attribute))


def _of_model(one: PooledContrast) -> tuple[str, str, str]:
    return one.task, one.encoder, one.metric


def _section(pooled: Pooled, key: tuple[str, str, str], rows: Sequence[PooledContrast]) -> dict[str, Any]:
    task, encoder, metric = key
    return {
        "title": f"{encoder}, {formatting.task_title(task, pooled.titles)}: {formatting.metric_title(metric)}",
        "open": metric == _METRICS[0],
        "headline": _headline(rows, pooled.confidence),
        "rows": [_row(one) for one in rows],
        "forests": [
            site_forest(formatting.attribute_title(attribute), metric, list(_plotted(of_attribute)))
            for attribute, of_attribute in groupby(rows, key=lambda one: one.attribute)
        ],
    }


def _headline(rows: Sequence[PooledContrast], confidence: float) -> str:
    """Return which subgroups differ from the others over sites, after the correction."""
    found = [one for one in rows if one.p_holm <= 1 - confidence]
    if not found:
        return "No subgroup was shown to differ from the others over these sites. A difference may have gone unseen."
    names = "; ".join(
        f"{formatting.group_label(one.attribute, one.subgroup)} {formatting.difference(one.metric, one.difference)}"
        for one in found
    )
    return f"Differs from the other subgroups over these sites, after correction for all comparisons: {names}."


def _row(one: PooledContrast) -> dict[str, str]:
    of_without = [value for _, value, _, _ in one.without]
    metric = one.metric
    return {
        "group": formatting.group_label(one.attribute, one.subgroup),
        "sites": str(len(one.sites)),
        "n": formatting.count(one.n, "rounded" if one.rounded else "exact"),
        "others": formatting.level(metric, one.others),
        "difference": formatting.difference(metric, one.difference),
        "interval": formatting.difference_interval(metric, one.low, one.high),
        "predicted": formatting.difference_interval(metric, one.predicted_low, one.predicted_high),
        "tau": formatting.spread(metric, one.tau),
        "i2": formatting.percent(one.i2, 0),
        "p": formatting.p_number(one.p),
        "p_holm": formatting.p_number(one.p_holm),
        "without": formatting.difference_interval(metric, min(of_without), max(of_without))
        if of_without
        else formatting.NONE,
    }


def _plotted(rows: Iterator[PooledContrast]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a forest plot: of each subgroup its sites, then the pooled row."""
    for one in rows:
        yield {"kind": "heading", "label": subgroup_title(one.subgroup)}
        for site in one.sites:
            text = formatting.difference_estimate(one.metric, site.difference, site.low, site.high)
            yield {
                "kind": "site", "label": site.site, "value": site.difference, "low": site.low, "high": site.high,
                "weight": site.weight, "text": str(text),
            }  # fmt: skip
        text = formatting.difference_estimate(one.metric, one.difference, one.low, one.high)
        yield {
            "kind": "pooled", "label": "All sites", "value": one.difference, "low": one.low, "high": one.high,
            "predicted": (one.predicted_low, one.predicted_high), "text": str(text),
        }  # fmt: skip


def _alone(key: Sequence[str]) -> str:
    encoder, task, attribute, metric, subgroup = key
    return f"{encoder}, {task}: {formatting.group_label(attribute, subgroup)}, {formatting.metric_title(metric)}"

"""The contrasts of several sites pooled: random effects over sites, and again with each site left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from fmaudit_core.fairness.intervals import normal_quantile
from fmaudit_core.fairness.multiplicity import holm
from fmaudit_core.fairness.random_effects import RESOLUTION, RandomEffects, random_effects
from fmaudit_core.fairness.studentised import back
from fmaudit_core.report.documents.pooled_page import Pooled, PooledContrast, SiteEstimate
from fmaudit_core.sites.errors import SiteError
from fmaudit_core.sites.harmonise import harmonised
from fmaudit_core.sites.summary_file import Comparison, SiteSummary, SubgroupResult

#: a pooled count needs this many sites: of two, each could subtract its own
LEAST_SITES: Final = 3
#: counts are rounded to this if one of them is
_ROUND_TO: Final = 10


_Found = tuple[SiteSummary, Comparison, SubgroupResult]


def pool(sites: Sequence[SiteSummary], *, accept: Collection[str] = ()) -> Pooled:
    """Pool the summaries of at least two sites.

    Parameters
    ----------
    accept : collection of str
        Names of differences to accept; see `harmonise.ACCEPTABLE`.

    Raises
    ------
    SiteError
        The sites differ, or have nothing in common.
    """
    notes = harmonised(sites, accept)
    confidence = max(one.confidence for one in sites)
    found: dict[tuple[str, ...], list[_Found]] = {}
    for site in sites:
        for one in site.comparisons:
            for row in one.subgroups:
                key = (one.encoder, one.task, one.attribute, one.metric, row.subgroup)
                found.setdefault(key, []).append((site, one, row))
    pooled = [_pooled(key, rows, confidence) for key, rows in sorted(found.items()) if len(rows) > 1]
    if not pooled:
        raise SiteError("nothing_in_common", "no encoder, task, attribute and subgroup is in two of the files.")
    return Pooled(
        sites=[one.site.name for one in sites],
        notes=notes,
        n_withholding=sum(one.site.withholds for one in sites),
        contrasts=_corrected(pooled),
        alone=sorted(key for key, rows in found.items() if len(rows) == 1),
        titles={one.task: one.title for site in sites for one in site.models},
        confidence=confidence,
    )


def _pooled(key: tuple[str, ...], rows: Sequence[_Found], confidence: float) -> PooledContrast:
    encoder, task, attribute, metric, subgroup = key
    found = _effects([row for _, _, row in rows], confidence)
    level = float(found.weights @ np.array([row.others for _, _, row in rows]))
    at = _Scale(metric, level)
    half = normal_quantile(confidence)
    rounded = any(one.counts == "rounded" for _, one, _ in rows)
    total = sum(row.n for _, _, row in rows)
    return PooledContrast(
        encoder=encoder,
        task=task,
        attribute=attribute,
        metric=metric,
        subgroup=subgroup,
        sites=[
            SiteEstimate(
                site=site.site.name,
                difference=at.difference(row.theta),
                low=at.difference(row.theta - half * row.variance**0.5),
                high=at.difference(row.theta + half * row.variance**0.5),
                weight=float(weight),
            )
            for (site, _, row), weight in zip(rows, found.weights, strict=True)
        ],
        n=None if len(rows) < LEAST_SITES else round(total / _ROUND_TO) * _ROUND_TO if rounded else total,
        rounded=rounded,
        others=at.level,
        difference=at.difference(found.mean),
        low=at.difference(found.low),
        high=at.difference(found.high),
        p=found.p,
        p_holm=found.p,
        tau=abs(at.difference(found.mean + found.tau2**0.5) - at.difference(found.mean)),
        i2=found.i2,
        predicted_low=at.difference(found.predicted_low),
        predicted_high=at.difference(found.predicted_high),
        without=_without_each(rows, at, confidence),
    )


@dataclass(frozen=True)
class _Scale:
    """From differences on the scale of a test to differences of the metric, at one level of the others."""

    metric: str
    others: float

    @property
    def level(self) -> float:
        """Return the level of the others."""
        return float(back(self.metric, np.asarray(self.others)))

    def difference(self, theta: float) -> float:
        """Return a difference of the metric."""
        return float(back(self.metric, np.asarray(self.others + theta))) - self.level


def _effects(rows: Sequence[SubgroupResult], confidence: float) -> RandomEffects:
    return random_effects(
        [one.theta for one in rows], [one.variance for one in rows], confidence=confidence, resolution=RESOLUTION
    )


def _without_each(rows: Sequence[_Found], at: _Scale, confidence: float) -> list[tuple[str, float, float, float]]:
    if len(rows) < LEAST_SITES:
        return []
    found = []
    for place, (site, _, _) in enumerate(rows):
        rest = _effects([row for other, (_, _, row) in enumerate(rows) if other != place], confidence)
        found.append((site.site.name, at.difference(rest.mean), at.difference(rest.low), at.difference(rest.high)))
    return found


def _corrected(pooled: Sequence[PooledContrast]) -> list[PooledContrast]:
    """Return the contrasts with p corrected over the subgroups and attributes of a model and metric (Holm)."""
    families: dict[tuple[str, ...], list[int]] = {}
    for place, one in enumerate(pooled):
        families.setdefault((one.encoder, one.task, one.metric), []).append(place)
    out = list(pooled)
    for places in families.values():
        adjusted = holm(np.array([pooled[place].p for place in places]))
        for place, p in zip(places, adjusted, strict=True):
            out[place] = replace(pooled[place], p_holm=float(p))
    return out

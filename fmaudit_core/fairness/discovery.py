"""Subgroups nobody named: regions found without test, tested on test, described, and how stable and how detectable they are.

Test studies are assigned to a region by their embedding or metadata alone. A method that looks at evaluated labels to draw a
region found something in every one of eight cohorts without any. The statistic: `excess_misses.py`; how regions are proposed:
`region_search.py`; their description: `region_traits.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import stdtrit

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.excess_misses import Scored, compare_with_rest, standard_error
from fmaudit_core.fairness.miss_rules import Condition
from fmaudit_core.fairness.multiplicity import holm
from fmaudit_core.fairness.power import POWER
from fmaudit_core.fairness.region_search import MOST_RULES, Region, Searched, Side, proposed_regions, sides_of
from fmaudit_core.fairness.region_traits import traits_of
from fmaudit_core.fairness.seeding import seed_of
from fmaudit_core.fairness.small_groups import metric_status
from fmaudit_core.tables.fairness import DISCOVERED_MEMBERS, DISCOVERED_SUBGROUPS, DISCOVERED_TRAITS

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: regions that are tested at most
MOST_REGIONS: Final = 1 + MOST_RULES
#: mean overlap with the regions of these resamples below which a region is called unstable
UNSTABLE: Final = 0.4
#: share of the studies of the region whose detectable size is reported
DETECTABLE_SHARE: Final = 0.1


@dataclass(frozen=True)
class Discovered:
    """Frames of `DISCOVERED_SUBGROUPS`, `DISCOVERED_TRAITS` and `DISCOVERED_MEMBERS`."""

    subgroups: pl.DataFrame
    traits: pl.DataFrame
    members: pl.DataFrame


def discover(searched: Searched, settings: FairnessSection) -> Discovered:
    """Search for regions that are missed more often than their scores predict."""
    search, test = sides_of(searched)
    seed = seed_of(settings.seed, f"{searched.key['task']}/discovered_subgroups")
    regions = []
    if _is_large(test.scored, settings):
        regions = proposed_regions(searched, search, test, settings, seed)
    return Discovered(
        DISCOVERED_SUBGROUPS.frame([{**searched.key, **row} for row in _tested(regions, test.scored, settings)]),
        DISCOVERED_TRAITS.frame([{**searched.key, **row} for row in _traits(searched, regions, test, settings)]),
        DISCOVERED_MEMBERS.frame([{**searched.key, **row} for row in _members(searched, regions, search, test)]),
    )


def _tested(regions: Sequence[Region], test: Scored, settings: FairnessSection) -> list[dict[str, Any]]:
    """Return the rows of the regions, tested on test and corrected over them; one row without a region if there is none."""
    detectable = _detectable(test, settings)
    if not regions:
        return [{"finder": "", "region": 0, "status": "none", "confirmed": False, "detectable": detectable}]
    rows, p_values = [], []
    for at, region in enumerate(regions):
        row = {"finder": region.finder, "region": at + 1, "rule": list(map(_said, region.rule)), "share": region.share}
        row |= {"stability": region.stability, "detectable": detectable}
        sides = [test.only(one) for one in (region.test, ~region.test)]
        if not all(_is_large(one, settings) for one in sides):
            rows.append(row | {"status": "few"})
            p_values.append(np.nan)
            continue
        found = compare_with_rest(test, region.test)
        low, high = found.interval(settings.confidence)
        row |= {
            "status": "tested",
            "n": int(region.test.sum()),
            "n_pos": int(sides[0].y_true.sum()),
            "udr": found.region.udr,
        }
        row |= {"expected": found.region.expected, "rest_udr": found.rest.udr, "rest_expected": found.rest.expected}
        p_values.append(found.p_value())
        rows.append(row | {"excess": found.value, "excess_low": low, "excess_high": high, "p_value": p_values[-1]})
    adjusted = holm(np.array(p_values), np.array([region.z**2 for region in regions]))
    return [
        row | {"confirmed": bool(p <= settings.alpha), "p_adjusted": None if np.isnan(p) else float(p)}
        for row, p in zip(rows, adjusted, strict=True)
    ]


def _is_large(studies: Scored, settings: FairnessSection) -> bool:
    return metric_status(studies.y_true, studies.patient, settings)["auroc"] == "tested"


def _detectable(test: Scored, settings: FairnessSection) -> float | None:
    """Return the excess of a tenth of the studies that is found with power 0.8, if the finder meets the region exactly.

    None if no possible excess would be found.
    """
    if not _is_large(test, settings):
        return None
    degrees = max(int(DETECTABLE_SHARE * test.n_patients) - 1, 1)
    quantiles = stdtrit(degrees, 1 - settings.alpha / MOST_REGIONS) + stdtrit(degrees, POWER)
    found = float(quantiles) * standard_error(test, DETECTABLE_SHARE)
    return found if found < 1 else None


def _said(condition: Condition) -> str:
    return f"{condition.column} {'=' if condition.holds else '!='} {condition.level}"


def _traits(
    searched: Searched, regions: Sequence[Region], test: Side, settings: FairnessSection
) -> list[dict[str, Any]]:
    levels = {name: one[test.rows] for name, one in searched.levels.items()}
    least, confidence = settings.suppress_under, settings.confidence
    return [
        {"region": at + 1} | row
        for at, region in enumerate(regions)
        for row in traits_of(
            levels,
            region.test,
            test.scored.patient,
            [one.column for one in region.rule],
            least=least,
            confidence=confidence,
        )
    ]


def _members(searched: Searched, regions: Sequence[Region], search: Side, test: Side) -> list[dict[str, Any]]:
    ids, splits = (searched.studies.get_column(name).to_list() for name in ("study_id", "split"))
    return [
        {"region": at + 1, "study_id": ids[row], "split": splits[row]}
        for at, region in enumerate(regions)
        for side, inside in ((search, region.within), (test, region.test))
        for row in side.rows[inside]
    ]

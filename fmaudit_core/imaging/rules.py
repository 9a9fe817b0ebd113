"""Requirements of a cohort for a readable series: enough slices, small enough spacing, the values of a chest CT, patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

RULE_REASONS: Final = {
    "too_few_slices": "fewer slices than the cohort requires",
    "too_thick": "slices further apart than the cohort allows",
    "not_chest_values": "too little air or nothing dense: the values are not HU of a chest",
    "not_required_series": "description, kernel, image type or thickness do not match `imaging: series: require`",
    "series_not_found": "the series that the cohort's table names is not among the readable ones",
}
#: more than one percent of a chest CT is lung and air, and it contains bone or contrast
_AIR_UNDER_HU: Final = -500
_DENSE_OVER_HU: Final = 200


@dataclass(frozen=True)
class SeriesPattern:
    """Regular expressions that a series matches if each one given is found in its attribute, ignoring case.

    Parameters
    ----------
    thickness : str, optional
        For the whole slice thickness in mm, as "1", "1.25" or "0.625"; blank if not recorded.
    """

    description: str | None = None
    kernel: str | None = None
    image_type: str | None = None
    thickness: str | None = None

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Return whether a quality row matches."""
        mm = row["thickness_mm"]
        shown = {**row, "thickness": "" if mm is None else f"{mm:g}"}
        given = [(one.name, getattr(self, one.name)) for one in fields(self) if getattr(self, one.name) is not None]
        return all(
            (re.fullmatch if name == "thickness" else re.search)(pattern, shown[name] or "", re.IGNORECASE)
            for name, pattern in given
        )


@dataclass(frozen=True)
class SeriesRules:
    """Rules of a cohort, applied to the quality of each accepted series before one of a study is chosen.

    Parameters
    ----------
    min_slices : int
    max_spacing_mm : float, optional
        Largest step between slices.
    chest_values : bool
        Whether the 1st percentile must be below -500 HU and the maximum above 200 HU.
    require : SeriesPattern
        A series that does not match is quarantined.
    prefer : tuple of SeriesPattern
        A series that matches an earlier pattern is chosen before one that matches a later one or none.
    """

    min_slices: int = 1
    max_spacing_mm: float | None = None
    chest_values: bool = False
    require: SeriesPattern = SeriesPattern()
    prefer: tuple[SeriesPattern, ...] = ()

    def broken_by(self, row: Mapping[str, Any]) -> str | None:
        """Return the first rule violated by a quality row, a key of `RULE_REASONS`; None if there is none."""
        if row["n_slices"] < self.min_slices:
            return "too_few_slices"
        if self.max_spacing_mm is not None and row["spacing_mm"] > self.max_spacing_mm:
            return "too_thick"
        if self.chest_values and (row["hu_p01"] >= _AIR_UNDER_HU or row["hu_max"] <= _DENSE_OVER_HU):
            return "not_chest_values"
        return None if self.require.matches(row) else "not_required_series"

    def preference(self, row: Mapping[str, Any]) -> int:
        """Return the index of the first preferred pattern that a quality row matches, or their number if none."""
        matching = (at for at, pattern in enumerate(self.prefer) if pattern.matches(row))
        return next(matching, len(self.prefer))


NO_RULES: Final = SeriesRules()

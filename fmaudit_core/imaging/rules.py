"""Requirements of a cohort for a readable series: enough slices, small enough spacing, and the values of a chest CT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

RULE_REASONS: Final = {
    "too_few_slices": "fewer slices than the cohort requires",
    "too_thick": "slices further apart than the cohort allows",
    "not_chest_values": "too little air or nothing dense: the values are not HU of a chest",
}
#: more than one percent of a chest CT is lung and air, and it contains bone or contrast
_AIR_UNDER_HU: Final = -500
_DENSE_OVER_HU: Final = 200


@dataclass(frozen=True)
class SeriesRules:
    """Rules of a cohort, applied to the quality of each accepted series; changing a rule does not require reading CT again.

    Parameters
    ----------
    min_slices : int
    max_spacing_mm : float, optional
        Largest step between slices.
    chest_values : bool
        Whether the 1st percentile must be below -500 HU and the maximum above 200 HU. For files without a modality.
    """

    min_slices: int = 1
    max_spacing_mm: float | None = None
    chest_values: bool = False

    def broken_by(self, row: Mapping[str, Any]) -> str | None:
        """Return the first rule violated by a quality row, a key of `RULE_REASONS`; None if there is none."""
        if row["n_slices"] < self.min_slices:
            return "too_few_slices"
        if self.max_spacing_mm is not None and row["spacing_mm"] > self.max_spacing_mm:
            return "too_thick"
        if self.chest_values and (row["hu_p01"] >= _AIR_UNDER_HU or row["hu_max"] <= _DENSE_OVER_HU):
            return "not_chest_values"
        return None


NO_RULES: Final = SeriesRules()

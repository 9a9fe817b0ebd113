"""What patients of a region have more often than the others: attributes, acquisition and record codes, as odds ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from fmaudit_core.fairness.intervals import normal_quantile
from fmaudit_core.fairness.multiplicity import benjamini_hochberg

Levels = Mapping[str, npt.NDArray[np.str_]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: false discovery rate up to which a trait is reported, and how many are, the most frequent excess first
_Q: Final = 0.05
_MOST: Final = 8


@dataclass(frozen=True)
class _Cross:
    """Patients of the region and of the rest, with and without a level."""

    inside: tuple[int, int]
    outside: tuple[int, int]

    def log_odds_ratio(self) -> tuple[float, float]:
        """Return the log odds ratio and its standard error (Woolf 1955); no count is 0."""
        (a, b), (c, d) = self.inside, self.outside
        return float(np.log(a * d / (b * c))), float(np.sqrt(1 / a + 1 / b + 1 / c + 1 / d))


def traits_of(
    levels: Levels, region: BoolArray, patient: IntArray, skipped: Sequence[str], *, least: int, confidence: float
) -> list[dict[str, Any]]:
    """Return what patients of a region have more often, with q values over all that was looked at.

    A patient with a study in the region counts there, and has a level if one of these studies has it. Levels for which one of the
    four counts is below `least` are not looked at, so no small group can follow.

    Parameters
    ----------
    levels : mapping of column to (n,) levels; a record code is a column with the levels `yes` and `no`
    region : (n,) bool
    patient : (n,) int64, codes from 0
    skipped : columns that made the region
    """
    n = int(patient.max()) + 1
    in_region = np.bincount(patient[region], minlength=n) > 0
    present = np.bincount(patient, minlength=n) > 0
    side = np.where(in_region[patient], region, True)
    crossed = list(
        _crossed(
            {name: one for name, one in levels.items() if name not in skipped}, patient, in_region, present, side, least
        )
    )
    if not crossed:
        return []
    ratios = np.array([cross.log_odds_ratio() for _, _, cross in crossed])
    q = benjamini_hochberg(2 * ndtr(-np.abs(ratios[:, 0]) / ratios[:, 1]))
    half = normal_quantile(confidence) * ratios[:, 1]
    rows = [
        {
            "column": column, "level": level, "q_value": float(q[at]),
            "share_inside": cross.inside[0] / sum(cross.inside), "share_outside": cross.outside[0] / sum(cross.outside),
            "odds_ratio": float(np.exp(ratios[at, 0])),
            "odds_low": float(np.exp(ratios[at, 0] - half[at])), "odds_high": float(np.exp(ratios[at, 0] + half[at])),
        }
        for at, (column, level, cross) in enumerate(crossed)
        if q[at] <= _Q and ratios[at, 0] > 0
    ]  # fmt: skip
    return sorted(rows, key=_excess)[:_MOST]


def _excess(row: Mapping[str, Any]) -> float:
    return float(row["share_outside"] - row["share_inside"])


def _crossed(
    levels: Levels, patient: IntArray, in_region: BoolArray, present: BoolArray, side: BoolArray, least: int
) -> Iterator[tuple[str, str, _Cross]]:
    whole = int((present & in_region).sum()), int((present & ~in_region).sum())
    for column, values in levels.items():
        for level in np.unique(values):
            has = np.bincount(patient[side & (values == level)], minlength=len(present)) > 0
            a, c = int((has & in_region).sum()), int((has & ~in_region).sum())
            if min(a, whole[0] - a, c, whole[1] - c) >= max(least, 1):
                yield column, str(level), _Cross((a, whole[0] - a), (c, whole[1] - c))

"""Rules over metadata under which misses exceed what scores predict: the finder `rules` of hidden subgroups.

A rule is one to three conditions that hold together, such as "scanner is B and sex is female". Rules are grown condition by
condition, the best few at a time (a beam, as in subgroup discovery; Clark & Niblett 1989, Friedman & Fisher 1999).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

MOST_CONDITIONS: Final = 3
#: rules that are grown further at a time
_BEAM: Final = 12
#: standard errors that a further condition must gain: the best of many conditions gains some by chance
_GAIN: Final = 0.75
#: rules that share more of their studies than this are the same one
_ALIKE: Final = 0.5


@dataclass(frozen=True)
class Condition:
    """A level of a column that a study has, or has not."""

    column: str
    level: str
    holds: bool


@dataclass(frozen=True)
class Rule:
    """Conditions that hold together.

    Parameters
    ----------
    at : tuple of int, the conditions in `Conditions.names`
    z : float, of the residuals in the region against the rest, less `_GAIN` for every further condition
    """

    at: tuple[int, ...]
    z: float


@dataclass(frozen=True)
class Conditions:
    """What may be asked of a study.

    Parameters
    ----------
    names : sequence of Condition
    holds : (n, m) bool
    """

    names: Sequence[Condition]
    holds: BoolArray

    @cached_property
    def as_numbers(self) -> Float32Array:
        """Return what holds as 0 and 1, (n, m) float32."""
        return self.holds.astype(np.float32)

    def region(self, at: Sequence[int]) -> BoolArray:
        """Return the studies of which some conditions hold together, (n,) bool."""
        out: BoolArray = np.all(self.holds[:, list(at)], axis=1, keepdims=True)[:, 0]
        return out

    def only(self, rows: IntArray) -> Conditions:
        """Return the same conditions of some studies, by their rows."""
        return Conditions(self.names, self.holds[rows])


def conditions_of(columns: Mapping[str, npt.NDArray[np.str_]], askable: Mapping[str, Sequence[str]]) -> Conditions:
    """Return the conditions on the levels in `askable`, of (n,) levels by column; of two levels, "has not" is the other one."""
    names: list[Condition] = []
    holds = []
    for column, levels in columns.items():
        both = len(np.unique(levels)) == 2 and len(askable[column]) == 2
        for level in askable[column]:
            for wanted in (True,) if both else (True, False):
                names.append(Condition(column, level, wanted))
                holds.append((levels == level) == wanted)
    n = len(next(iter(columns.values()))) if columns else 0
    return Conditions(names, np.stack(holds, axis=1) if holds else np.empty((n, 0), dtype=bool))


def find_rules(
    conditions: Conditions, residual: Float64Array, counted: BoolArray, weight: Float64Array, *, least: int, most: int
) -> list[Rule]:
    """Return the best rules, at most `most`, best first.

    Parameters
    ----------
    residual : (n,) float64
    counted : (n,) bool, one study with the outcome of each patient that has one
    weight : (n,) float64, how often each study counts
    least : int, patients with the outcome that a region and the rest must have
    """
    of_studies = np.stack([np.ones(len(residual)), residual, residual**2, counted], axis=1)
    values = (of_studies * weight[:, None]).astype(np.float32)
    whole = values.sum(axis=0)
    found: dict[tuple[int, ...], Rule] = {}
    beam: list[tuple[int, ...]] = [()]
    for _ in range(MOST_CONDITIONS):
        grown: dict[tuple[int, ...], Rule] = {}
        regions = np.concatenate([values * conditions.region(rule)[:, None] for rule in beam], axis=1)
        sums = (conditions.as_numbers.T @ regions).reshape(len(conditions.names), len(beam), 4)
        for place, rule in enumerate(beam):
            z = _separations(sums[:, place], whole, least)
            for at in np.argsort(-z)[:_BEAM]:
                key = tuple(sorted({*rule, int(at)}))
                if np.isfinite(z[at]) and len(key) > len(rule):
                    grown[key] = Rule(key, float(z[at]) - _GAIN * (len(key) - 1))
        best = sorted(grown.values(), key=lambda one: (-one.z, one.at))[:_BEAM]
        if not best:  # no region is large enough, as may happen in a resample
            break
        found |= {one.at: one for one in best}
        beam = [one.at for one in best]
    return _distinct(conditions, sorted(found.values(), key=lambda one: (-one.z, one.at)), most)


def _separations(inside: Float32Array, whole: Float32Array, least: int) -> Float64Array:
    """Return the difference of mean residuals in standard errors, (m,), from sums in regions (m, 4) and in all studies (4,)."""
    n, total, squares, counted = inside.astype(np.float64).T
    rest_n, rest_total, rest_squares, rest_counted = (whole - inside).astype(np.float64).T
    enough = (counted >= least) & (rest_counted >= least)
    n, rest_n = np.maximum(n, 1), np.maximum(rest_n, 1)
    means = total / n, rest_total / rest_n
    variance = (squares / n - means[0] ** 2) / n + (rest_squares / rest_n - means[1] ** 2) / rest_n
    z: Float64Array = (means[0] - means[1]) / np.sqrt(np.maximum(variance, 1e-12))
    return np.where(enough, z, -np.inf)


def _distinct(conditions: Conditions, ranked: Sequence[Rule], most: int) -> list[Rule]:
    kept: list[Rule] = []
    regions: list[BoolArray] = []
    for rule in ranked:
        region = conditions.region(rule.at)
        if all(jaccard(region, other) <= _ALIKE for other in regions):
            kept.append(rule)
            regions.append(region)
        if len(kept) == most:
            break
    return kept


def jaccard(one: BoolArray, other: BoolArray) -> float:
    """Return the share of studies in either region that are in both; 0 if both are empty."""
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 0.0

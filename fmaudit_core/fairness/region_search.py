"""Regions that finders propose without a look at the labels of test, and how stable they are if patients are resampled.

They are searched for in training and validation studies. Training studies are scored by probes that did not see their patient, so
that what is missed among them is what is missed in new patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.matrix_rows import rows_of
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.calibration_fit import fit_intercept
from fmaudit_core.fairness.cluster_sizes import n_patients
from fmaudit_core.fairness.excess_misses import Scored, log_odds_of, miss_residuals, recalibration_slope
from fmaudit_core.fairness.miss_direction import FOLDS, Choice, choose, fit_directions, folds_of, separation, top
from fmaudit_core.fairness.miss_rules import Condition, Conditions, Rule, conditions_of, find_rules, jaccard
from fmaudit_core.fairness.small_groups import metric_status

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

DIRECTION: Final = "direction"
RULES: Final = "rules"
#: rules that are proposed at most
MOST_RULES: Final = 2
#: resamples of the patients in which the finders are run again
RESAMPLES: Final = 10
#: shares of the studies that a region of the embedding may have
_SHARES: Final = (0.05, 0.1, 0.2, 0.3)
#: patients of the rarer outcome that such a region is expected to have in test, in those that it must have to be tested
_ENOUGH: Final = 1.4
#: standard errors that a region must stand out by, out of fold where it is searched for: one-sided 5 %
_LEAST_Z: Final = 1.645


@dataclass(frozen=True)
class Searched:
    """Studies of one score set, with embeddings and metadata.

    Parameters
    ----------
    x : (n, d) float32, raw embeddings
    studies : frame of n rows with `study_id`, `patient_id`, `split`, `y_true`, `y_score`, `threshold`
        Training studies have cross-fitted scores and a threshold of their own; there may be none.
    levels : mapping of column to (n,) levels: attributes, acquisition, record codes as `yes` and `no`
    key : mapping of the columns of a score set
    """

    x: Float32Array
    studies: pl.DataFrame
    levels: Mapping[str, npt.NDArray[np.str_]]
    key: Mapping[str, str]


@dataclass(frozen=True)
class Region:
    """A region: which of the searched studies and of the test studies are in it.

    Parameters
    ----------
    within, test : bool arrays
    share : float, of a direction: the share of studies it is the top of
    rule : sequence of Condition, of a rule
    z : float, standard errors that it stands out by, out of fold where it was searched for
    stability : float, mean overlap with the regions of resampled patients, on test
    """

    finder: str
    within: BoolArray
    test: BoolArray
    z: float
    stability: float
    share: float | None = None
    rule: Sequence[Condition] = field(default_factory=tuple)


@dataclass(frozen=True)
class Side:
    """The studies that are searched, or those of test.

    Parameters
    ----------
    rows : (n,) int64, in the frame of `Searched`
    x : (n, d) float32, standardised as the searched ones
    residual : (n,) float64, see `miss_residuals`; empty for test
    """

    rows: IntArray
    x: Float32Array
    scored: Scored
    residual: Float64Array


def sides_of(searched: Searched) -> tuple[Side, Side]:
    """Return the studies that are searched, and test. Scores are recalibrated split by split, those of test as on validation."""
    split = searched.studies.get_column("split").to_numpy()
    score = searched.studies.get_column("y_score").to_numpy()
    every = Scored(
        searched.studies.get_column("y_true").to_numpy(),
        log_odds_of(score),
        score < searched.studies.get_column("threshold").to_numpy(),
        searched.studies.get_column("patient_id").rank("dense").cast(pl.Int64).to_numpy() - 1,
    )
    within = [np.flatnonzero(split == one) for one in ("train", "val") if (split == one).any()]
    log_odds, residual = every.log_odds.copy(), np.zeros(len(score))
    for rows in within:
        of_split = every.only(rows)
        slope = recalibration_slope(of_split.y_true, score[rows], of_split.patient)
        shift = fit_intercept(of_split.y_true, slope * of_split.log_odds, of_split.patient).value
        log_odds[rows] = slope * of_split.log_odds + shift
        residual[rows] = miss_residuals(replace(of_split, log_odds=log_odds[rows]))
    test, rows = np.flatnonzero(split == "test"), np.concatenate(within)
    log_odds[test] = slope * every.log_odds[test]  # the slope of validation, which is last
    of_search = rows_of(searched.x, rows)
    mean, spread = of_search.mean(axis=0), of_search.std(axis=0)
    scale = np.where(spread > 0, spread, np.inf).astype(np.float32)
    calibrated = replace(every, log_odds=log_odds)
    search, tested = (
        Side(of, _standardised(rows_of(searched.x, of), mean, scale), _recoded(calibrated.only(of)), residual[of])
        for of in (rows, test)
    )
    return search, tested


def _standardised(x: Float32Array, mean: Float32Array, scale: Float32Array) -> Float32Array:
    out = x - mean
    out /= scale
    return out


def _recoded(studies: Scored) -> Scored:
    return replace(studies, patient=np.unique(studies.patient, return_inverse=True)[1].ravel())


def proposed_regions(
    searched: Searched, search: Side, test: Side, settings: FairnessSection, seed: int
) -> list[Region]:
    """Return the regions that stand out where they are searched for: at most one direction and `MOST_RULES` rules."""
    rng = np.random.default_rng(seed)
    n = int(search.scored.patient.max()) + 1
    resamples = [rng.multinomial(n, np.full(n, 1 / n))[search.scored.patient] for _ in range(RESAMPLES)]
    return [
        *_direction(search, test, resamples, settings, seed),
        *_rules(searched, search, test, resamples, settings, seed),
    ]


def _direction(
    search: Side, test: Side, resamples: Sequence[IntArray], settings: FairnessSection, seed: int
) -> list[Region]:
    """Return the top of the direction, if it stands out out of fold."""
    shares = _shares(search.scored, test.scored, settings)
    if not shares:
        return []
    chosen, z = choose(search.x, search.scored, search.residual, shares, seed)
    if z < _LEAST_Z:
        return []
    within, of_test = (_top(chosen, search, side) for side in (search, test))
    again = [_top(chosen, search, test, np.repeat(np.arange(len(times)), times)) for times in resamples]
    stability = float(np.mean([jaccard(of_test, one) for one in again]))
    return [Region(DIRECTION, within, of_test, z, stability, share=chosen.share)]


def _shares(search: Scored, test: Scored, settings: FairnessSection) -> list[float]:
    """Return the shares that a region may have: enough of test to be tested, as far as one can know without its labels."""
    rarer = min(n_patients(search.patient[search.y_true == outcome]) for outcome in (False, True))
    expected = rarer * n_patients(test.patient) / n_patients(search.patient)
    needed = _ENOUGH * settings.test_from
    if 2 * needed > expected:  # not even half of test would be enough
        return []
    least = math.ceil(100 * needed / expected) / 100
    return sorted({max(one, least) for one in _SHARES})


def _top(chosen: Choice, search: Side, of: Side, rows: IntArray | slice = slice(None)) -> BoolArray:
    (fitted,) = fit_directions(search.x[rows], search.scored.log_odds[rows], search.residual[rows], (chosen,))
    return top(fitted.along(of.x, of.scored.log_odds), chosen.share)


def _rules(
    searched: Searched, search: Side, test: Side, resamples: Sequence[IntArray], settings: FairnessSection, seed: int
) -> list[Region]:
    """Return the best rules, as many as stand out out of fold."""
    conditions, of_test = _conditions(searched, search, test, settings)
    if not conditions.names:
        return []
    first = _first_positive(search.scored)

    def found(weight: Float64Array, share: float = 1.0) -> list[Rule]:
        least = round(share * settings.test_from)
        return find_rules(conditions, search.residual, first, weight, least=least, most=MOST_RULES)

    # the best of hundreds of rules stands out where it was found, whether or not there is anything to find
    inside = np.zeros((MOST_RULES, len(first)), dtype=bool)
    fold = folds_of(search.scored.patient, seed)
    for one in range(FOLDS):
        for place, rule in enumerate(found((fold != one).astype(np.float64), 1 - 1 / FOLDS)):
            inside[place] |= (fold == one) & conditions.region(rule.at)
    stand_out = [separation(search.residual, one) for one in inside]
    proposed = zip(found(np.ones(len(first))), stand_out, strict=False)
    rules = [(rule, z) for rule, z in proposed if z >= _LEAST_Z]
    again = [found(times.astype(np.float64)) for times in resamples] if rules else []
    regions = []
    for rule, z in rules:
        test_region = of_test.region(rule.at)
        nearest = [max((jaccard(test_region, of_test.region(one.at)) for one in of), default=0.0) for of in again]
        named = [conditions.names[at] for at in rule.at]
        regions.append(Region(RULES, conditions.region(rule.at), test_region, z, float(np.mean(nearest)), rule=named))
    return regions


def _first_positive(studies: Scored) -> BoolArray:
    """Return one study with the outcome of each patient that has one, (n,) bool."""
    out = np.zeros(len(studies.y_true), dtype=bool)
    positive = np.flatnonzero(studies.y_true)
    out[positive[np.unique(studies.patient[positive], return_index=True)[1]]] = True
    return out


def _conditions(
    searched: Searched, search: Side, test: Side, settings: FairnessSection
) -> tuple[Conditions, Conditions]:
    """Return the conditions that may be asked: on levels that are no small group where they are searched for, or in test."""
    askable = {}
    for column, levels in searched.levels.items():
        askable[column] = [
            str(level)
            for level in np.unique(levels)
            if all(_is_tested(side, levels[side.rows] == level, settings, str(level)) for side in (search, test))
        ]
    every = conditions_of(searched.levels, askable)
    return every.only(search.rows), every.only(test.rows)


def _is_tested(side: Side, inside: BoolArray, settings: FairnessSection, level: str) -> bool:
    of = side.scored.only(inside)
    return metric_status(of.y_true, of.patient, settings, level)["auroc"] == "tested"

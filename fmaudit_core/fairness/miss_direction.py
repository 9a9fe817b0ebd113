"""A direction in the embedding along which misses exceed what scores predict: the finder `direction` of hidden subgroups.

A ridge regression of the residuals of misses on the embedding, after what goes with the score is projected out: along the
score's own direction disease looks milder, which is no excess. The region is the top of the direction. If it holds most of a
cluster, a second regression, of who is in the region, turns the direction towards the rest of it. Clusters that are looked for
without the residuals found next to nothing in simulations.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from fmaudit_core.fairness.excess_misses import Scored, compare_with_rest

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: penalties that are tried, relative to the mean eigenvalue of the Gram matrix
_RIDGES: Final = (1.0, 5.0, 25.0)
#: penalty of the second regression, whose target is known of every study
_RIDGE_OF_REGION: Final = 0.5
FOLDS: Final = 5
#: smallest mean eigenvalue: an embedding without variation has no direction
_LEAST: Final = 1e-12


@dataclass(frozen=True)
class Choice:
    """How a direction is fitted.

    Parameters
    ----------
    ridge : float, penalty relative to the mean eigenvalue
    share : float, of the studies that are in its region
    twice : whether who is in the region is regressed on the embedding, too
    """

    ridge: float
    share: float
    twice: bool


def choose(
    x: Float32Array, scored: Scored, residual: Float64Array, shares: Sequence[float], seed: int
) -> tuple[Choice, float]:
    """Choose how to fit (n, d) standardised studies, each placed by a fit without its patient, for one of some shares.

    The choice is by what is tested later; chosen by residuals, regions are too large to be confirmed.

    Returns
    -------
    Choice, and the excess misses of its region less those of the rest, in standard errors
    """
    fold, log_odds = folds_of(scored.patient, seed), scored.log_odds
    tried = [Choice(*one) for one in itertools.product(_RIDGES, shares, (False, True))]
    along = np.empty((len(tried), len(x)))
    for one in range(FOLDS):
        inside, out = fold != one, fold == one
        for at, fitted in enumerate(fit_directions(x[inside], log_odds[inside], residual[inside], tried)):
            along[at, out] = fitted.along(x[out], log_odds[out])
    z = [_excess_z(scored, top(along[at], one.share)) for at, one in enumerate(tried)]
    best = int(np.argmax(z))
    return tried[best], z[best]


def folds_of(patient: IntArray, seed: int) -> IntArray:
    """Return the fold of each study, (n,) int64 from 0: a patient's studies are in the same one."""
    out: IntArray = np.random.default_rng(seed).permutation(int(patient.max()) + 1)[patient] % FOLDS
    return out


@dataclass(frozen=True)
class Direction:
    """A direction in the embedding and the factor of the score that makes it uncorrelated with the score.

    Parameters
    ----------
    weights : (d,) float64, for standardised features
    of_score : float
    """

    weights: Float64Array
    of_score: float

    def along(self, x: Float32Array, log_odds: Float64Array) -> Float64Array:
        """Return how far studies lie along the direction, (n,) float64."""
        out: Float64Array = x @ self.weights.astype(np.float32) - self.of_score * log_odds
        return out


def fit_directions(
    x: Float32Array, log_odds: Float64Array, residual: Float64Array, choices: Sequence[Choice]
) -> list[Direction]:
    """Fit a direction for each choice.

    Parameters
    ----------
    x : (n, d) float32, standardised
    log_odds, residual : (n,) float64
    """
    regression = _Regression(x, log_odds)
    ridges = list(dict.fromkeys(one.ridge for one in choices))
    first = {ridge: regression.fit(residual[:, np.newaxis], ridge)[0] for ridge in ridges}
    fitted = [first[one.ridge] for one in choices]
    again = [at for at, one in enumerate(choices) if one.twice]
    if again:
        regions = np.stack([top(fitted[at].along(x, log_odds), choices[at].share) for at in again], axis=1)
        for at, direction in zip(again, regression.fit(regions.astype(np.float64), _RIDGE_OF_REGION), strict=True):
            fitted[at] = direction
    return fitted


class _Regression:
    """Ridge regressions on the same studies, from which what goes with the score is projected out."""

    def __init__(self, x: Float32Array, log_odds: Float64Array) -> None:
        self._x = x
        self._score = (log_odds - log_odds.mean()).astype(np.float32)
        size = float(self._score @ self._score)
        self._with_score = (self._score @ x) / size if size > 0 else np.zeros(x.shape[1], dtype=np.float32)
        #: the (n, d) features without the score where there are more features than studies, else None
        self._features = x - np.outer(self._score, self._with_score) if x.shape[1] > x.shape[0] else None
        self._gram: npt.NDArray[np.floating]
        if self._features is None:
            self._gram = x.T @ x - size * np.outer(self._with_score, self._with_score)
        else:
            self._gram = self._features @ self._features.T
        self._mean = max(float(np.trace(self._gram)) / len(self._gram), _LEAST)

    def fit(self, targets: Float64Array, ridge: float) -> list[Direction]:
        """Return the direction of each target, (n, k)."""
        centred = (targets - targets.mean(axis=0)).astype(np.float32)
        right = centred
        if self._features is None:
            right = self._x.T @ centred - np.outer(self._with_score, self._score @ centred)
        penalised = self._gram + np.float32(ridge * self._mean) * np.eye(len(self._gram), dtype=np.float32)
        solved = cho_solve(cho_factor(penalised, overwrite_a=True, check_finite=False), right, check_finite=False)
        weights = solved if self._features is None else self._features.T @ solved
        return [Direction(one, float(self._with_score @ one)) for one in weights.T.astype(np.float64)]


def top(along: Float64Array, share: float) -> BoolArray:
    """Return the studies in the top share of a direction, (n,) bool."""
    out: BoolArray = along > np.quantile(along, 1 - share)
    return out


def _excess_z(scored: Scored, region: BoolArray) -> float:
    """Return the excess misses of a region against the rest in standard errors; minus infinity if a side has one outcome."""
    if any(len(np.unique(scored.y_true[side])) < 2 for side in (region, ~region)):
        return -np.inf
    found = compare_with_rest(scored, region)
    return found.value / found.se if found.se > 0 else -np.inf


def separation(residual: Float64Array, region: BoolArray) -> float:
    """Return the mean residual in a region less that in the rest, in standard errors."""
    if region.all() or not region.any():
        return -np.inf
    sides = residual[region], residual[~region]
    se = np.sqrt(sum(one.var() / len(one) for one in sides))
    return float((sides[0].mean() - sides[1].mean()) / se) if se > 0 else -np.inf

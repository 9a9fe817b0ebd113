"""A direction in the embedding along which misses exceed what scores predict: the finder `direction` of hidden subgroups.

A ridge regression of the residuals of misses on the embedding, after what goes with the score is projected out: along the
score's own direction disease looks milder, which is no excess. The region is the top of the direction. Clusters of the
embedding found next to nothing in simulations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: shares of the studies that a region may have
SHARES: Final = (0.1, 0.2, 0.3)
#: penalties that are tried, relative to the mean eigenvalue of the Gram matrix
_RIDGES: Final = (1.0, 5.0, 25.0)
FOLDS: Final = 5
#: smallest mean eigenvalue: an embedding without variation has no direction
_LEAST: Final = 1e-12


@dataclass(frozen=True)
class Choice:
    """How a direction is fitted: chosen across folds of the patients.

    Parameters
    ----------
    ridge, share : float
    z : float, of the residuals in the region against the rest, out of fold
    """

    ridge: float
    share: float
    z: float


def choose(x: Float32Array, log_odds: Float64Array, residual: Float64Array, patient: IntArray, seed: int) -> Choice:
    """Choose penalty and size on (n, d) standardised studies; each study is placed by a fit without its patient."""
    fold = folds_of(patient, seed)
    along = np.empty((len(_RIDGES), len(x)))
    for one in range(FOLDS):
        inside, out = fold != one, fold == one
        for at, weights in enumerate(fit_directions(x[inside], log_odds[inside], residual[inside], _RIDGES)):
            along[at, out] = weights.along(x[out], log_odds[out])
    tried = [
        Choice(ridge, share, separation(residual, top(along[at], share)))
        for at, ridge in enumerate(_RIDGES)
        for share in SHARES
    ]
    return max(tried, key=lambda one: one.z)


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
    x: Float32Array, log_odds: Float64Array, residual: Float64Array, ridges: tuple[float, ...]
) -> list[Direction]:
    """Fit the direction for each penalty.

    Parameters
    ----------
    x : (n, d) float32, standardised
    log_odds, residual : (n,) float64
    """
    score = (log_odds - log_odds.mean()).astype(np.float32)
    size = float(score @ score)
    with_score = (score @ x) / size if size > 0 else np.zeros(x.shape[1], dtype=np.float32)
    centred = (residual - residual.mean()).astype(np.float32)
    wide = x.shape[1] > x.shape[0]
    if wide:
        rest = x - np.outer(score, with_score)
        gram, target = rest @ rest.T, centred
    else:
        gram = x.T @ x - size * np.outer(with_score, with_score)
        target = x.T @ centred - with_score * (score @ centred)
    mean = max(float(np.trace(gram)) / len(gram), _LEAST)
    out = []
    for ridge in ridges:
        penalised = gram + np.float32(ridge * mean) * np.eye(len(gram), dtype=np.float32)
        solved = cho_solve(cho_factor(penalised, overwrite_a=True, check_finite=False), target, check_finite=False)
        weights = (rest.T @ solved if wide else solved).astype(np.float64)
        out.append(Direction(weights, float(with_score @ weights)))
    return out


def top(along: Float64Array, share: float) -> BoolArray:
    """Return the studies in the top share of a direction, (n,) bool."""
    out: BoolArray = along > np.quantile(along, 1 - share)
    return out


def separation(residual: Float64Array, region: BoolArray) -> float:
    """Return the mean residual in a region less that in the rest, in standard errors."""
    if region.all() or not region.any():
        return -np.inf
    sides = residual[region], residual[~region]
    se = np.sqrt(sum(one.var() / len(one) for one in sides))
    return float((sides[0].mean() - sides[1].mean()) / se) if se > 0 else -np.inf

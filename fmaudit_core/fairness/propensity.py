"""Probability of belonging to a subgroup given covariates, by logistic regression without a penalty.

A penalty biases the weights that follow from the probabilities: a ridge of a thousandth of the sample lowered the coverage of
explained differences from 95 to 91 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_MOST_STEPS: Final = 50
_TOLERANCE: Final = 1e-10
#: log odds beyond which covariates separate the subgroup from the rest
_SEPARATED: Final = 20.0
#: directions of the information matrix below this share of its largest one are collinear
_COLLINEAR: Final = 1e-9


@dataclass(frozen=True)
class Propensity:
    """Fitted probabilities of n studies of one class.

    Parameters
    ----------
    member : (n,) bool, whether a study is of the subgroup
    inside : (n,) bool
        Whether every level of the study's covariates occurs both in the subgroup and in the rest.
    probability : (n,) float64, of studies inside; 0 outside
    design : (n, p) float64, with an intercept; 0 outside
    covariance : (p, p) float64, inverse of the information
    levels : (n, l) float64, an indicator for every level of every covariate
    """

    member: BoolArray
    inside: BoolArray
    probability: Float64Array
    design: Float64Array
    covariance: Float64Array
    levels: Float64Array

    def score(self) -> Float64Array:
        """Return each study's contribution to the score equations, (n, p)."""
        out: Float64Array = np.where(self.inside, self.member - self.probability, 0.0)[:, None] * self.design
        return out


def fit_propensity(member: BoolArray, covariates: IntArray) -> Propensity | None:
    """Fit the probabilities of n studies.

    Parameters
    ----------
    member : (n,) bool
    covariates : (n, c) int64
        The level of each covariate, from 0.

    Returns
    -------
    Propensity, or None if covariates separate the subgroup from the rest
    """
    inside = _on_both_sides(member, covariates)
    if not (member & inside).any() or not (~member & inside).any():
        return None
    design = np.zeros((len(member), 1))
    design[inside] = 1.0
    design = np.concatenate([design, _indicators(covariates, inside)], axis=1)
    # studies with the same covariates are one binomial observation
    cells, place = np.unique(design[inside], axis=0, return_inverse=True)
    n = np.bincount(place.ravel()).astype(np.float64)
    fitted = _newton(cells, n, np.bincount(place.ravel(), member[inside], len(cells)).astype(np.float64))
    if fitted is None:
        return None
    of_cells, covariance = fitted
    probability = np.zeros(len(member))
    probability[inside] = of_cells[place.ravel()]
    return Propensity(member, inside, probability, design, covariance, _every_level(covariates))


def _on_both_sides(member: BoolArray, covariates: IntArray) -> BoolArray:
    """Exclude levels that one side lacks, until every level that is left occurs on both."""
    inside = np.ones(len(member), dtype=bool)
    while True:
        before = int(inside.sum())
        for column in covariates.T:
            sides = [np.bincount(column[inside & side], minlength=int(column.max()) + 1) for side in (member, ~member)]
            inside &= ((sides[0] > 0) & (sides[1] > 0))[column]
        if int(inside.sum()) == before:
            return inside


def _indicators(covariates: IntArray, inside: BoolArray) -> Float64Array:
    """Return an indicator of each level of the studies inside but the most frequent one of each covariate."""
    columns: list[BoolArray] = []
    for column in covariates.T:
        counts = np.bincount(column[inside])
        others = (level for level in np.flatnonzero(counts) if level != counts.argmax())
        columns.extend((column == level) & inside for level in others)
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.empty((len(inside), 0))


def _every_level(covariates: IntArray) -> Float64Array:
    columns = [column == level for column in covariates.T for level in np.unique(column)]
    return np.stack(columns, axis=1).astype(np.float64)


def _newton(x: Float64Array, n: Float64Array, members: Float64Array) -> tuple[Float64Array, Float64Array] | None:
    """Return the probability of each cell and the inverse information; None if the likelihood has no maximum."""
    beta = np.zeros(x.shape[1])
    for _ in range(_MOST_STEPS):
        eta = x @ beta
        if np.abs(eta).max() > _SEPARATED:
            return None
        p = 1 / (1 + np.exp(-eta))
        information = (x * (n * p * (1 - p))[:, None]).T @ x
        covariance: Float64Array = np.linalg.pinv(information, rcond=_COLLINEAR, hermitian=True).astype(np.float64)
        step = covariance @ (x.T @ (members - n * p))
        beta = beta + step
        if np.abs(x @ step).max() < _TOLERANCE:
            return 1 / (1 + np.exp(-(x @ beta))), covariance
    return None

"""A subgroup compared with the rest after both are standardised to one distribution of covariates, with clustered variances.

Means are weighted by functions of the fitted propensity. Their influence functions contain the estimation of the propensity, and
are summed by patient, so variances and covariances of crude and adjusted differences follow from sums of squares and products.

References
----------
Li, Morgan & Zaslavsky 2018, JASA 113:390 (overlap weights); Lunceford & Davidian 2004, Statistics in Medicine 23:2937 (variance
with an estimated propensity); Janes & Pepe 2009, Biometrika 96:371 (covariate-adjusted ROC).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from fmaudit_core.fairness.propensity import Propensity

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: weightings: none; overlap weights; the subgroup's own distribution (average in the subgroup)
CRUDE: Final = "crude"
OVERLAP: Final = "overlap"
OF_SUBGROUP: Final = "att"


@dataclass(frozen=True)
class Weights:
    """Weights of the n studies of one class, and their derivatives.

    Parameters
    ----------
    fitted : Propensity
    weight : (n,) float64
    slope : (n,) float64, derivative of the weight in the linear predictor of the propensity
    """

    fitted: Propensity
    weight: Float64Array
    slope: Float64Array

    @classmethod
    def of(cls, fitted: Propensity, kind: str) -> Weights:
        """Return the weights of a kind: `CRUDE`, `OVERLAP` or `OF_SUBGROUP`."""
        member, e = fitted.member, fitted.probability
        if kind == CRUDE:
            return cls(fitted, np.ones(len(e)), np.zeros(len(e)))
        if kind == OVERLAP:
            weight, slope = np.where(member, 1 - e, e), np.where(member, -1.0, 1.0) * e * (1 - e)
        else:
            odds = e / (1 - e)
            weight, slope = np.where(member, 1.0, odds), np.where(member, 0.0, odds)
        return cls(fitted, weight * fitted.inside, slope * fitted.inside)

    def effective(self) -> tuple[float, float]:
        """Return the effective numbers of studies in the subgroup and in the rest (Kish): (sum w)^2 / sum w^2."""
        first, rest = (_kish(self.weight[side]) for side in (self.fitted.member, ~self.fitted.member))
        return first, rest

    def largest(self) -> float:
        """Return the largest share of one study in the weight of its side."""
        sides = (self.weight[side] for side in (self.fitted.member, ~self.fitted.member))
        return max(float(one.max() / one.sum()) if one.sum() > 0 else 1.0 for one in sides)

    def imbalance(self) -> float:
        """Return the largest standardised difference of a covariate's level between both sides, in studies with weight."""
        used = self.weight > 0
        member, x, w = self.fitted.member[used], self.fitted.levels[used], self.weight[used]
        if member.all() or not member.any():
            return np.inf
        plain = [x[side].mean(axis=0) for side in (member, ~member)]
        spread = np.sqrt(sum(p * (1 - p) for p in plain) / 2)
        means = [w[side] @ x[side] / w[side].sum() for side in (member, ~member)]
        off = np.abs(means[0] - means[1])
        return float(np.max(np.divide(off, spread, out=np.zeros_like(off), where=spread > 0)))

    def mean(self, y: Float64Array, side: BoolArray) -> tuple[float, Float64Array]:
        """Return the weighted mean of y, (n,), over one side, and its influence function by study, (n,)."""
        w = self.weight * side
        total = w.sum()
        mean = float(w @ y / total)
        off = np.where(side, y - mean, 0.0) / total
        of_propensity = self.fitted.design.T @ (self.slope * off)
        influence: Float64Array = w * off
        if of_propensity.any():
            influence = influence + self.fitted.score() @ (self.fitted.covariance @ of_propensity)
        return mean, influence


@dataclass(frozen=True)
class Contrast:
    """A metric in a subgroup less that in the rest.

    Parameters
    ----------
    first, rest : float, the metric on both sides
    by_patient : (k,) float64, influence of each patient on the difference
    scaled : float, the difference on the scale of the test: logit for AUROC, plain for rates
    scaled_by_patient : (k,) float64, influence on `scaled`
    """

    first: float
    rest: float
    by_patient: Float64Array
    scaled: float
    scaled_by_patient: Float64Array

    @property
    def difference(self) -> float:
        """Return the difference."""
        return self.first - self.rest


def rate_contrast(weights: Weights, event: BoolArray, patient: IntArray) -> Contrast:
    """Compare the share of events between both sides.

    Parameters
    ----------
    event : (n,) bool, of the studies of the class
    patient : (n,) int64, patient codes from 0
    """
    y = event.astype(np.float64)
    member = weights.fitted.member
    (first, of_first), (rest, of_rest) = weights.mean(y, member), weights.mean(y, ~member)
    influence = np.bincount(patient, of_first - of_rest).astype(np.float64)
    return Contrast(first, rest, influence, first - rest, influence)


def auroc_contrast(
    positives: Weights,
    negatives: Weights,
    scores: tuple[Float64Array, Float64Array],
    patients: tuple[IntArray, IntArray],
) -> Contrast:
    """Compare the AUROC within the subgroup with that within the rest.

    Parameters
    ----------
    scores, patients : of positives and of negatives; patient codes from 0, shared by both
    """
    k = 1 + max(int(one.max()) for one in patients)
    values, influences = [], []
    for side in (True, False):
        of_pos, of_neg = positives.fitted.member == side, negatives.fitted.member == side
        below = np.zeros(len(scores[0]))
        below[of_pos] = _share_below(scores[1][of_neg], negatives.weight[of_neg], scores[0][of_pos])
        above = np.zeros(len(scores[1]))
        above[of_neg] = 1 - _share_below(scores[0][of_pos], positives.weight[of_pos], scores[1][of_neg])
        value, of_first = positives.mean(below, of_pos)
        _, of_second = negatives.mean(above, of_neg)
        values.append(value)
        influences.append(np.bincount(patients[0], of_first, k) + np.bincount(patients[1], of_second, k))
    first, rest = values
    inside = [min(max(one, 1e-6), 1 - 1e-6) for one in values]
    slopes = [1 / (one * (1 - one)) for one in inside]
    return Contrast(
        first,
        rest,
        influences[0] - influences[1],
        float(logit(inside[0]) - logit(inside[1])),
        slopes[0] * influences[0] - slopes[1] * influences[1],
    )


def covariance(one: Float64Array, other: Float64Array, n_patients: int) -> float:
    """Return the covariance of two estimates from their influence by patient, (k,) each."""
    return float(one @ other) * n_patients / (n_patients - 1)


def _share_below(scores: Float64Array, weights: Float64Array, at: Float64Array) -> Float64Array:
    """Return for each value in `at` the weighted share of `scores` below it; ties count half."""
    order = np.argsort(scores)
    ascending, summed = scores[order], np.concatenate([[0.0], np.cumsum(weights[order])])
    below = summed[np.searchsorted(ascending, at, side="left")] + summed[np.searchsorted(ascending, at, side="right")]
    out: Float64Array = below / (2 * summed[-1])
    return out


def _kish(weight: Float64Array) -> float:
    squares = float(weight @ weight)
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0

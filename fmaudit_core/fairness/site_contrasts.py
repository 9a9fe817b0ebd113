"""Each subgroup of a site against its other subgroups, on the scale of the tests: the input of pooling over sites.

Only subgroups that are shown take part, with the numbers that are shown. A contrast with all other patients would disclose a
hidden subgroup: it follows from the contrasts of the shown ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from fmaudit_core.fairness.random_effects import RESOLUTION
from fmaudit_core.fairness.studentised import arcsine

Float64Array = npt.NDArray[np.float64]

#: smallest variance of a contrast, as a share of the subgroup's own
_LEAST: Final = 0.01


@dataclass(frozen=True)
class Shown:
    """A subgroup as it is shown.

    Parameters
    ----------
    subgroup : str
    value : float
    n_effective : float
        Number of independent studies with the same precision.
    """

    subgroup: str
    value: float
    n_effective: float


@dataclass(frozen=True)
class SiteContrast:
    """A subgroup less the weighted mean of the others, rounded to `RESOLUTION`.

    Parameters
    ----------
    subgroup : str
    theta, others : float
        The difference, and the mean of the others, on the scale of the test (arcsine of rates, logit of AUROC).
    variance : float
        Variance of the difference if all subgroups have the same true value: it does not depend on the subgroup's own value, so
        that sites do not weigh more where its value is extreme by chance.
    """

    subgroup: str
    theta: float
    others: float
    variance: float


def site_contrasts(
    metric: str, shown: Sequence[Shown], correlations: Mapping[tuple[str, str], float]
) -> list[SiteContrast]:
    """Return the contrast of each subgroup; none if fewer than two are shown.

    Parameters
    ----------
    correlations : mapping of two subgroups to float
        Correlations of the estimates of subgroups that share patients, in either order; absent ones are 0.
    """
    if len(shown) < 2:
        return []
    size = np.array([one.n_effective for one in shown])
    t = np.array([_scaled(metric, one) for one in shown])
    spread = np.sqrt(_null_variance(metric, shown, size))
    names = [one.subgroup for one in shown]
    related = np.array([[_correlation(correlations, one, other) for other in names] for one in names])
    covariance = related * np.outer(spread, spread)
    found = []
    for at, name in enumerate(names):
        weights = np.where(np.arange(len(names)) == at, 0.0, size)
        weights /= weights.sum()
        contrast = np.where(np.arange(len(names)) == at, 1.0, -weights)
        # rounded correlations may be those of no studies at all
        variance = max(float(contrast @ covariance @ contrast), _LEAST * float(covariance[at, at]))
        found.append(SiteContrast(name, _rounded(float(contrast @ t)), _rounded(float(weights @ t)), variance))
    return found


def _scaled(metric: str, one: Shown) -> float:
    """Return a value on the scale of its test."""
    n = one.n_effective
    if metric == "auroc":
        return float(logit(min(max(one.value, 0.5 / n), 1 - 0.5 / n)))
    return float(arcsine(np.asarray(one.value), np.asarray(n)))


def _null_variance(metric: str, shown: Sequence[Shown], size: Float64Array) -> Float64Array:
    if metric != "auroc":
        return np.asarray(1 / (4 * size + 2))
    common = float(size @ np.array([one.value for one in shown]) / size.sum())
    common = min(max(common, 0.5 / size.sum()), 1 - 0.5 / size.sum())
    return np.asarray(1 / (size * common * (1 - common)))


def _correlation(correlations: Mapping[tuple[str, str], float], one: str, other: str) -> float:
    return 1.0 if one == other else correlations.get((one, other), correlations.get((other, one), 0.0))


def _rounded(value: float) -> float:
    return round(round(value / RESOLUTION) * RESOLUTION, 6) + 0.0

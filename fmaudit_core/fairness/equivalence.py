"""Equivalence tests: whether subgroups differ by less than the margin, over all levels of an attribute or the tested ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from scipy.special import expit, logit

from fmaudit_core.common.vocabulary import UNKNOWN
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.intervals import clopper_pearson, t_quantile
from fmaudit_core.fairness.power import all_within_margin
from fmaudit_core.fairness.rates import Rate
from fmaudit_core.fairness.score_sets import Studies

#: value and the limits of its interval
Estimate = tuple[float, tuple[float, float]]

_NOTHING_KNOWN: Estimate = (0.5, (0.0, 1.0))


@dataclass(frozen=True)
class Equivalence:
    """Result of the equivalence tests over the levels of an attribute.

    Parameters
    ----------
    within_margin : bool
        Every two levels with a study in the evaluated split differ by less than the margin, small and suppressed ones included.
    within_margin_of_tested : bool
        Every two tested levels differ by less than the margin.
    not_covered : tuple of str
        Levels that are not tested, by name, including the level of studies whose attribute was not recorded.
    """

    within_margin: bool
    within_margin_of_tested: bool
    not_covered: tuple[str, ...]


def equivalence(
    levels: Mapping[str, Studies], tested: Collection[str], metric: str, settings: FairnessSection
) -> Equivalence:
    """Test whether every two levels differ by less than the margin.

    Two one-sided tests at `alpha` are run for each pair. All must reject (intersection-union, Berger & Hsu 1996), so no
    correction for their number is needed. The interval of a pair's difference is computed from the intervals of both levels
    (MOVER).

    Parameters
    ----------
    levels : mapping of level to Studies
        Every level of one score set with a study in the evaluated split. Studies whose attribute was not recorded are not a
        group of people and are never compared.
    tested : collection of str
        Levels that are tested for the metric.
    metric : str
        One of `gaps.GAP_METRICS`.

    Raises
    ------
    ValueError
        The metric is unknown, or a rate is requested for a score set without a threshold.

    Notes
    -----
    Rates: Clopper & Pearson's interval at confidence 1 - 2 alpha and Kish's effective size, as if all studies of a patient
    agreed. An estimated design effect misses rare patients all of whose studies would be missed; with it, equivalence was
    claimed in up to 28 % of simulated draws at a true difference of exactly the margin.

    AUROC: the logit interval with Student's t at confidence 1 - alpha, because at 1 - 2 alpha equivalence was claimed in up to
    7 %. The interval is widened for kinds of patients not yet observed: with k patients of the rarer class, a kind with share
    1 - (alpha / 2)^(1 / k) may be absent by chance, and such patients may rank at either end. Without this, equivalence was
    claimed in up to 20 % if 5 % of the patients with the outcome rank below all others. If all pairs of studies are ranked
    alike, the interval is Clopper & Pearson's for k observations.

    A level without a study of a class that the metric needs may have any value, so equivalence is not shown.

    References
    ----------
    Berger & Hsu 1996, Statistical Science 11:283; Zou & Donner 2008, Statistics in Medicine 27:1693 (MOVER); Kish 1965.
    """
    estimate = _ESTIMATES.get(metric)
    if estimate is None:
        raise ValueError(f"unknown metric '{metric}'; the metrics are {', '.join(_ESTIMATES)}.")
    if metric != "auroc" and not all(studies.has_threshold for studies in levels.values()):
        raise ValueError(f"'{metric}' needs an operating threshold.")

    @cache
    def of_level(level: str) -> Estimate:
        return estimate(levels[level], settings.alpha)

    # smallest first: it most often decides the result
    recorded = sorted((level for level in levels if level != UNKNOWN), key=lambda level: len(levels[level].y_true))
    return Equivalence(
        within_margin=_are_within((of_level(level) for level in recorded), settings.margin),
        within_margin_of_tested=_are_within(
            (of_level(level) for level in recorded if level in tested), settings.margin
        ),
        not_covered=tuple(sorted(level for level in levels if level == UNKNOWN or level not in tested)),
    )


def _are_within(estimates: Iterable[Estimate], margin: float) -> bool:
    """Return whether every two lie within the margin. Stop at the first interval that is too wide for any other."""
    taken = []
    for value, (low, high) in estimates:
        # the interval of a difference is at least as wide as the interval of either level
        if high - low >= min(2 * margin, 1.0):
            return False
        taken.append((value, (low, high)))
    return all_within_margin([value for value, _ in taken], [interval for _, interval in taken], margin)


def _auroc(studies: Studies, alpha: float) -> Estimate:
    found = studies.ranked
    if found.value is None or found.se is None:
        return _NOTHING_KNOWN
    if not found.has_variance:
        return found.value, clopper_pearson(found.value, found.fewest_patients, 1 - alpha)
    seen = (alpha / 2) ** (1 / found.fewest_patients)
    half = t_quantile(1 - alpha, found.fewest_patients - 1) * found.se / (found.value * (1 - found.value))
    centre = float(logit(found.value))
    low = min(float(expit(centre - half)), found.value * seen)
    high = max(float(expit(centre + half)), 1 - (1 - found.value) * seen)
    return found.value, (low, high)


def _share(found: Rate, alpha: float) -> Estimate:
    if found.value is None or not found.kish_size:
        return _NOTHING_KNOWN
    return found.value, clopper_pearson(found.value, found.kish_size, 1 - 2 * alpha)


_ESTIMATES: dict[str, Callable[[Studies, float], Estimate]] = {
    "auroc": _auroc,
    "udr": lambda studies, alpha: _share(studies.missed, alpha),
    "fpr": lambda studies, alpha: _share(studies.alarmed, alpha),
}

"""Closed-form sample sizes: where the simulation of a plan starts."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import scipy
from scipy.optimize import brentq
from scipy.special import ndtri, owens_t

from fmaudit_core.fairness.planned_cohort import Design, drawn_cohort

#: patients from whom the sizes of clusters are counted
_DRAWN: Final = 20_000


def fleiss_size(first: float, second: float, *, ratio: float, alpha: float, power: float) -> float:
    """Return the size of the first of two groups for a two-sided test of two proportions, with continuity correction.

    Parameters
    ----------
    first, second : float
        The proportions, which differ.
    ratio : float
        Size of the second group over the size of the first.

    References
    ----------
    Fleiss, Tytun & Ury 1980, Biometrics 36:343.
    """
    difference = abs(first - second)
    pooled = (first + ratio * second) / (1 + ratio)
    noise = math.sqrt((ratio + 1) * pooled * (1 - pooled))
    signal = math.sqrt(ratio * first * (1 - first) + second * (1 - second))
    plain = (ndtri(1 - alpha / 2) * noise + ndtri(power) * signal) ** 2 / (ratio * difference**2)
    return float(plain / 4 * (1 + math.sqrt(1 + 2 * (ratio + 1) / (plain * ratio * difference))) ** 2)


def auroc_variance(auroc: float, negatives_per_positive: float) -> float:
    """Return the variance of AUROC for normal scores of equal spread, times the number of positives.

    The placement of a positive and that of a negative have the same variance: the probability that one positive outranks two
    negatives (a bivariate normal probability at correlation 1/2, by Owen's T), less AUROC squared.

    References
    ----------
    DeLong, DeLong & Clarke-Pearson 1988; Owen 1956, Annals of Mathematical Statistics 27:1075.
    """
    outranks_two = auroc - 2 * float(owens_t(ndtri(auroc), math.sqrt(1 / 3)))
    return (outranks_two - auroc**2) * (1 + 1 / negatives_per_positive)


def disparity_patients(design: Design, power: float) -> float:
    """Return about how many patients, of all subgroups together, the test of a gap needs."""
    at = list(design.subgroups).index(design.worse)
    group, rest = _class_shares(design)[at], np.delete(_class_shares(design), at).sum()
    ratio = float(rest / group)
    if design.metric == "auroc":
        size = _auroc_size(design, ratio, power)
    else:
        size = fleiss_size(design.worse_value, design.value, ratio=ratio, alpha=design.alpha, power=power)
    return size * _more_subgroups(len(design.subgroups), design.alpha, power) * design_effect(design) / float(group)


def equivalence_patients(design: Design, power: float) -> float:
    """Return about how many patients two one-sided tests of the two smallest subgroups need, if all are equal."""
    settings = design.settings
    alpha = settings.alpha / 2 if design.metric == "auroc" else settings.alpha  # `equivalence` is stricter for AUROC
    if design.metric == "auroc":
        negatives = (1 - float(design.prevalences.mean())) / float(design.prevalences.mean())
        variance = auroc_variance(design.value, negatives)
    else:
        variance = design.value * (1 - design.value)
    z = ndtri(1 - alpha) + ndtri((1 + power) / 2)
    smallest = np.sort(_class_shares(design))[:2]
    # for rates, `equivalence` assumes that all studies of a patient agree
    effect = design_effect(design, agreement=None if design.metric == "auroc" else 1.0)
    return float(z**2 * variance * (1 / smallest).sum() / settings.margin**2 * effect)


def design_effect(design: Design, *, agreement: float | None = None) -> float:
    """Return the factor by which several studies of a patient inflate the variance of the planned metric (Kish 1965).

    Parameters
    ----------
    agreement : float, optional
        Correlation of a patient's studies within a class; that of missed studies, or false alarms, for the planned correlation of
        their scores if not given.
    """
    if design.studies_per_patient == 1:
        return 1.0
    cohort = drawn_cohort(design, _DRAWN, np.random.default_rng(design.settings.seed))
    of_class = cohort.positive if design.metric != "fpr" else ~cohort.positive
    sizes = np.bincount(cohort.patient[of_class]).astype(np.float64)
    size = float(sizes @ sizes / sizes.sum())
    return 1 + (size - 1) * (_agreement(design) if agreement is None else agreement)


def _agreement(design: Design) -> float:
    """Return the correlation of two studies of a patient: of the calls for a rate, of the scores for AUROC."""
    if design.metric == "auroc":
        return design.icc
    p = design.value
    both = p - 2 * float(owens_t(ndtri(p), math.sqrt((1 - design.icc) / (1 + design.icc))))
    return (both - p * p) / (p * (1 - p))


def _class_shares(design: Design) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return studies of the class that the metric is of, per patient of the whole audit, by subgroup."""
    of_class = 1 - design.prevalences if design.metric == "fpr" else design.prevalences
    return np.asarray(design.shares * of_class * design.studies_per_patient)


def _auroc_size(design: Design, ratio: float, power: float) -> float:
    prevalence = design.subgroups[design.worse].prevalence
    negatives = (1 - prevalence) / prevalence
    equal, worse = auroc_variance(design.value, negatives), auroc_variance(design.worse_value, negatives)
    noise, signal = math.sqrt(equal * (1 + 1 / ratio)), math.sqrt(worse + equal / ratio)
    return float(((ndtri(1 - design.alpha / 2) * noise + ndtri(power) * signal) / design.gap) ** 2)


def _more_subgroups(n_groups: int, alpha: float, power: float) -> float:
    """Return how many times more patients a test of all subgroups needs than one of two subgroups."""

    def noncentrality(degrees: int) -> float:
        limit = scipy.stats.chi2.isf(alpha, degrees)
        return float(brentq(lambda size: scipy.stats.ncx2.sf(limit, degrees, size) - power, 1e-6, 1e4))

    return noncentrality(n_groups - 1) / noncentrality(1)

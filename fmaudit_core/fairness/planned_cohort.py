"""Simulated cohorts of a planned audit, and whether the audit's own tests find what is planted in them.

Scores of a class are normal, with the means that give the planned values at a threshold of 0. Outcomes and scores of a patient's
studies are correlated through normal latent variables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from fmaudit_core.common.vocabulary import UNKNOWN
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.equivalence import equivalence
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.gaps import GAP_METRICS, null_gaps
from fmaudit_core.fairness.kernels import Ranking
from fmaudit_core.fairness.permutation import PatientPermuter
from fmaudit_core.fairness.score_sets import Studies
from fmaudit_core.fairness.small_groups import metric_status
from fmaudit_core.fairness.units import Units

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: permutations of a planned test: at least so many, and so many times the smallest number that can reject at its level
_LEAST_PERMUTATIONS: Final = 399
_TIMES_SMALLEST: Final = 10


@dataclass(frozen=True)
class Subgroup:
    """A subgroup of a planned audit.

    Parameters
    ----------
    share : float
        Its share of the patients; shares are divided by their sum.
    prevalence : float
        Share of its studies with the outcome.
    """

    share: float
    prevalence: float


@dataclass(frozen=True)
class Design:
    """A planned audit of one attribute.

    Parameters
    ----------
    subgroups : mapping of name to Subgroup
    worse : str
        The subgroup in which the metric is worse.
    metric : {"udr", "fpr", "auroc"}
    value : float
        The metric in the other subgroups.
    gap : float
        How much worse it is in the subgroup `worse`, above 0; exactly 0 to plan a test of equivalence.
    comparisons : int
        Comparisons of the declared family: attributes times encoders. The gap is tested at `alpha` divided by it.
    studies_per_patient : float
        On average, at least 1; one plus a Poisson number.
    icc : float
        Correlation of a patient's studies, of latent outcome and of score, from 0 to 1.
    settings : FairnessSection

    Raises
    ------
    FairnessError
        A number is out of range.
    """

    subgroups: Mapping[str, Subgroup]
    worse: str
    metric: str
    value: float
    gap: float
    comparisons: int
    studies_per_patient: float
    icc: float
    settings: FairnessSection

    def __post_init__(self) -> None:
        """Check the numbers."""
        for wrong, message in self._problems():
            if wrong:
                raise FairnessError(message)

    def _problems(self) -> list[tuple[bool, str]]:
        groups = self.subgroups
        return [
            (len(groups) < 2, "at least two subgroups are needed to plan a comparison."),
            (UNKNOWN in groups, f"`{UNKNOWN}` is not a subgroup of people and is never tested: leave it out."),
            (
                any(not 0 < one.share < math.inf for one in groups.values()),
                "the share of every subgroup must be above 0.",
            ),
            (
                any(not 0 < one.prevalence < 1 for one in groups.values()),
                "every prevalence must lie between 0 and 1, such as 0.2 for 20 %.",
            ),
            (
                self.worse not in groups,
                f"the worse subgroup {self.worse} is not one of the subgroups, which are {', '.join(groups)}.",
            ),
            (self.metric not in GAP_METRICS, f"the metric must be one of {', '.join(GAP_METRICS)}."),
            (
                not 0 < self.value < 1 or not 0 < self.worse_value < 1,
                f"a value of {self.value:g} that is {self.gap:g} worse in one subgroup does not lie between 0 and 1.",
            ),
            (
                self.metric == "auroc" and self.worse_value <= 0.5,
                f"an AUROC of {self.worse_value:g} is no better than chance: plan a smaller gap.",
            ),
            (self.gap < 0, "the gap must be above 0."),
            (self.comparisons < 1, "the family has at least one comparison."),
            (not 1 <= self.studies_per_patient <= 100, "studies per patient must be from 1 to 100."),
            (not 0 <= self.icc <= 1, "the correlation of a patient's studies must be from 0 to 1."),
        ]

    @property
    def alpha(self) -> float:
        """Return the level of the planned test."""
        return self.settings.alpha / self.comparisons

    @property
    def worse_value(self) -> float:
        """Return the metric in the subgroup `worse`."""
        return self.value - self.gap if self.metric == "auroc" else self.value + self.gap

    @cached_property
    def shares(self) -> Float64Array:
        """Return the share of patients of each subgroup, (g,) with sum 1."""
        shares = np.array([one.share for one in self.subgroups.values()])
        return np.asarray(shares / shares.sum())

    @cached_property
    def prevalences(self) -> Float64Array:
        """Return the prevalence of each subgroup, (g,)."""
        return np.array([one.prevalence for one in self.subgroups.values()])

    def values(self) -> Float64Array:
        """Return the metric in each subgroup, (g,)."""
        return np.array([self.worse_value if name == self.worse else self.value for name in self.subgroups])


@dataclass(frozen=True)
class PlannedCohort:
    """Studies of one simulated audit, each (n,); a study is called positive from a score of 0."""

    group: IntArray
    patient: IntArray
    positive: BoolArray
    score: Float64Array

    def level(self, group: int) -> Studies:
        """Return the studies of one subgroup."""
        at = self.group == group
        return Studies(self.positive[at], self.score[at], self.patient[at], threshold=0.0)


def drawn_cohort(design: Design, n_patients: int, rng: np.random.Generator) -> PlannedCohort:
    """Draw an audit with this number of patients in all, divided by the shares of the subgroups."""
    sizes = np.maximum(np.round(design.shares * n_patients).astype(np.int64), 1)
    home = np.repeat(np.arange(len(sizes)), sizes)
    extra = design.studies_per_patient - 1
    counts = 1 + rng.poisson(extra, len(home)) if extra else np.ones(len(home), dtype=np.int64)
    patient = np.repeat(np.arange(len(home)), counts)
    group = home[patient]
    positive = _correlated(patient, design.icc, rng) > ndtri(1 - design.prevalences)[group]
    of_positives, of_negatives = _means(design)
    score = np.where(positive, of_positives[group], of_negatives[group]) + _correlated(patient, design.icc, rng)
    return PlannedCohort(group, patient, positive, score)


def finds_gap(design: Design, cohort: PlannedCohort, seed: int) -> bool:
    """Return whether the permutation test of all tested subgroups rejects at the level of the plan."""
    tested = _tested(design, cohort)
    if len(tested) < 2 or list(design.subgroups).index(design.worse) not in tested:
        return False
    inside = np.isin(cohort.group, tested)
    group = np.searchsorted(tested, cohort.group[inside])
    positive = cohort.positive[inside]
    units = Units.of(group, cohort.patient[inside], positive)
    permuter = PatientPermuter(units, seed=seed, named="plan", test_from=design.settings.test_from)
    ranking = Ranking.of(cohort.score[inside], positive, units, 0.0)
    permutations = permuter.permutations(n_permutations(design.alpha))
    (found,) = null_gaps([ranking], units, permutations, metrics=(design.metric,))
    p = found[design.metric].p_value
    return p is not None and p <= design.alpha


def shows_equivalence(design: Design, cohort: PlannedCohort) -> bool:
    """Return whether all subgroups are shown to differ by less than the margin."""
    names = list(design.subgroups)
    levels = {name: cohort.level(at) for at, name in enumerate(names)}
    tested = [names[at] for at in _tested(design, cohort)]
    return equivalence(levels, tested, design.metric, design.settings).within_margin


def n_permutations(alpha: float) -> int:
    """Return the permutations of a planned test: so many that their number costs little power."""
    return max(_LEAST_PERMUTATIONS, math.ceil(_TIMES_SMALLEST / alpha) - 1)


def _tested(design: Design, cohort: PlannedCohort) -> list[int]:
    found = []
    for at in range(len(design.subgroups)):
        inside = cohort.group == at
        status = metric_status(cohort.positive[inside], cohort.patient[inside], design.settings)
        if status[design.metric] == "tested":
            found.append(at)
    return found


def _means(design: Design) -> tuple[Float64Array, Float64Array]:
    """Return the mean score of positives and of negatives by subgroup; their standard deviation is 1."""
    values = design.values()
    if design.metric == "auroc":
        return math.sqrt(2) * ndtri(values), np.zeros_like(values)
    if design.metric == "udr":
        return -ndtri(values), np.full_like(values, -1.0)
    return np.ones_like(values), ndtri(values)


def _correlated(patient: IntArray, icc: float, rng: np.random.Generator) -> Float64Array:
    """Return a standard normal value for each study, correlated by `icc` within a patient."""
    shared = rng.normal(size=int(patient.max()) + 1)
    out: Float64Array = math.sqrt(icc) * shared[patient] + math.sqrt(1 - icc) * rng.normal(size=len(patient))
    return out

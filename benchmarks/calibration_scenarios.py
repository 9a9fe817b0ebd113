"""Cohorts for `bench_fairness_calibration.py`: subgroups that differ in everything except the tested metric, and planted gaps.

A score is `shift + scale * (d * y - worse * y + e)`, with `e` standard normal and correlated within a patient. A null scenario
lists a metric only if its population value is the same in every subgroup: AUROC is unchanged by a subgroup's shift and scale; UDR
and FPR are equal if the scores of a class have the same distribution, whatever the prevalence, the correlation, and the number of
studies per patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: within-patient correlation of the latent illness; 1 if a patient's studies share one outcome
ILLNESS_ICC: Final = 0.5
#: four cuts between five score levels, relative to the threshold
_LEVELS: Final = (-1.2, -0.5, 0.0, 0.8)
#: minimum number of patients of each class for a subgroup to be tested
TEST_FROM: Final = 25


def separation(auroc: float) -> float:
    """Return the distance, in standard deviations, between two normal classes of this AUROC."""
    return float(np.sqrt(2) * ndtri(auroc))


@dataclass(frozen=True)
class Group:
    """A simulated subgroup.

    Parameters
    ----------
    patients : int
    prevalence : float, of studies
    studies : float
        Studies per patient: exactly this number if whole, else 1 + Poisson(studies - 1).
    icc : float, within-patient correlation of the scores given the outcome
    illness_icc : float, within-patient correlation of the latent illness
    shift, scale : float, of all scores of the subgroup
    worse : float, subtracted from the scores of positives
    """

    patients: int
    prevalence: float = 0.2
    studies: float = 1.2
    icc: float = 0.5
    illness_icc: float = ILLNESS_ICC
    shift: float = 0.0
    scale: float = 1.0
    worse: float = 0.0


@dataclass(frozen=True)
class Cohort:
    """Studies of several subgroups: (n,) arrays, and the threshold at which a study is predicted positive."""

    score: Floats
    positive: Bools
    patient: Ints
    group: Ints
    threshold: float


@dataclass(frozen=True)
class Scenario:
    """Subgroups, the tested metrics, and the rejection rates of the design's prototype.

    Parameters
    ----------
    name : str
    groups : the subgroups
    metrics : metrics whose population values are equal (a null scenario) or tested for power
    auroc, udr : float, population values of a subgroup without a planted gap
    sick_shift : float
        Added to negatives of patients with another, positive study. For patients with one study it is random, equally frequent.
    levels : bool, scores binned into five levels
    test_from : int, minimum number of patients of each class of every subgroup in every draw
    clustered_and_small : bool, whether a subgroup of about 60 patients has repeated studies
    in_two_bands : float, share of patients whose studies fall into two adjacent age bands
    design : {metric: share of draws rejected by Q at 5 %} of the design's table
    """

    name: str
    groups: tuple[Group, ...]
    metrics: tuple[str, ...] = ("auroc", "udr", "fpr")
    auroc: float = 0.85
    udr: float = 0.26
    sick_shift: float = 0.0
    levels: bool = False
    test_from: int = TEST_FROM
    clustered_and_small: bool = False
    in_two_bands: float = 0.0
    design: dict[str, float] = field(default_factory=dict)

    def most(self, metric: str) -> float:
        """Return the maximum share of rejections at 5 %: 0.07 for clustered rates of 60 patients or fewer than 25, else 0.065."""
        small = self.test_from < TEST_FROM or (self.clustered_and_small and metric != "auroc")
        return 0.07 if small else 0.065

    def truth(self) -> dict[str, float]:
        """Return the population value of each metric in a subgroup without a planted gap."""
        d, cut = separation(self.auroc), separation(self.auroc) + float(ndtri(self.udr))
        sick = 0.0
        if self.sick_shift:
            several = next(group for group in self.groups if group.studies > 1)
            sick = share_of_sick(several.prevalence, several.illness_icc, int(several.studies))
        ranked = (1 - sick) * ndtr(d / np.sqrt(2)) + sick * ndtr((d - self.sick_shift) / np.sqrt(2))
        if self.levels:
            cuts = np.array([cut + offset for offset in _LEVELS])
            below = np.diff(ndtr(cuts), prepend=0, append=1)
            of_positives = np.diff(ndtr(cuts - d), prepend=0, append=1)
            ranked = of_positives @ (np.cumsum(below) - below / 2)
        fpr = (1 - sick) * ndtr(-cut) + sick * ndtr(self.sick_shift - cut)
        return {"auroc": float(ranked), "udr": self.udr, "fpr": float(fpr)}

    @property
    def threshold(self) -> float:
        """Return the score from which a study is predicted positive."""
        return 3.0 if self.levels else separation(self.auroc) + float(ndtri(self.udr))

    def drawn(self, rng: np.random.Generator) -> Cohort:
        """Draw one cohort. Outcomes are redrawn until every subgroup has `test_from` patients of each class."""
        if self.in_two_bands:
            return self._bands(rng)
        parts, first = [], 0
        for g, group in enumerate(self.groups):
            patient, positive = self._outcomes(group, rng)
            score = self._scores(group, patient, positive, rng)
            parts.append((score, positive, patient + first, np.full(len(score), g)))
            first += group.patients
        return self._cohort(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _cohort(self, score: Floats, positive: Bools, patient: Ints, group: Ints) -> Cohort:
        if self.levels:
            cut = separation(self.auroc) + float(ndtri(self.udr))
            score = np.digitize(score, [cut + offset for offset in _LEVELS]).astype(np.float64)
        return Cohort(score, positive, patient, group, self.threshold)

    def _outcomes(self, group: Group, rng: np.random.Generator) -> tuple[Ints, Bools]:
        while True:
            patient = np.repeat(np.arange(group.patients), _counts(group.studies, group.patients, rng))
            positive = _correlated(patient, group.illness_icc, rng) > ndtri(1 - group.prevalence)
            fewest = min(len(np.unique(patient[positive])), len(np.unique(patient[~positive])))
            if fewest >= self.test_from:
                return patient, positive

    def _scores(self, group: Group, patient: Ints, positive: Bools, rng: np.random.Generator) -> Floats:
        raw = (separation(self.auroc) - group.worse) * positive + _correlated(patient, group.icc, rng)
        if self.sick_shift:
            if group.studies == 1:
                most = max(int(other.studies) for other in self.groups)
                sick = rng.random(len(raw)) < share_of_sick(group.prevalence, group.illness_icc, most)
            else:
                sick = np.bincount(patient, positive)[patient] > 0
            raw = raw + self.sick_shift * (sick & ~positive)
        return group.shift + group.scale * raw

    def _bands(self, rng: np.random.Generator) -> Cohort:
        """Draw patients of whom a share `in_two_bands` has later studies in the next band; their scores stay correlated."""
        home = np.repeat(np.arange(len(self.groups)), [group.patients for group in self.groups])
        one = self.groups[0]
        counts = _counts(one.studies, len(home), rng)
        patient = np.repeat(np.arange(len(home)), counts)
        place = np.arange(len(patient)) - np.repeat(np.cumsum(counts) - counts, counts)
        moves = (rng.random(len(home)) < self.in_two_bands) & (home < len(self.groups) - 1)
        stays = rng.integers(1, np.maximum(counts, 2))  # studies in the first band
        band = home[patient] + (moves[patient] & (place >= stays[patient]))
        prevalence = np.array([group.prevalence for group in self.groups])[band]
        positive = _correlated(patient, one.illness_icc, rng) > ndtri(1 - prevalence)
        score = separation(self.auroc) * positive + _correlated(patient, one.icc, rng)
        return self._cohort(score, positive, patient, band)

    def enlarged(self, times: float) -> Scenario:
        """Return the scenario with `times` as many patients, to approximate the population values."""
        return replace(
            self, groups=tuple(replace(group, patients=int(group.patients * times)) for group in self.groups)
        )


@cache
def share_of_sick(prevalence: float, illness_icc: float, studies: int) -> float:
    """Return the share of negative studies whose patient has a positive among all of the patient's `studies`."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    cut = ndtri(1 - prevalence)
    negative = ndtr((cut - np.sqrt(illness_icc) * nodes) / np.sqrt(1 - illness_icc))
    return float(1 - (weights @ negative**studies) / (weights @ negative))


def _counts(studies: float, n: int, rng: np.random.Generator) -> Ints:
    if studies == int(studies):
        return np.full(n, int(studies))
    return 1 + rng.poisson(studies - 1, n)


def _correlated(patient: Ints, icc: float, rng: np.random.Generator) -> Floats:
    """Return a standard normal value for each study, correlated by `icc` within a patient."""
    shared = rng.normal(size=int(patient.max()) + 1)
    out: Floats = np.sqrt(icc) * shared[patient] + np.sqrt(1 - icc) * rng.normal(size=len(patient))
    return out


def _log_odds(prevalence: float) -> float:
    return float(np.log(prevalence / (1 - prevalence)))


def _prevalences(patients: int, prevalences: Sequence[float], calibrated: bool = False) -> tuple[Group, ...]:
    """Return equal subgroups of these prevalences; `calibrated` scores are the log odds of the outcome in the subgroup."""
    d = separation(0.85)
    return tuple(
        Group(patients, p, shift=_log_odds(p) - d * d / 2, scale=d) if calibrated else Group(patients, p)
        for p in prevalences
    )


_SMALL: Final = (Group(140), Group(170), Group(2_400))
_FIFTY: Final = Group(60, 0.5, illness_icc=1.0)
_BANDS: Final = tuple(Group(300, p, studies=3) for p in (0.1, 0.15, 0.2, 0.25, 0.3))

NULLS: Final = (
    Scenario(
        "exchangeable, 3 groups, 1.2 studies/patient",
        (Group(260), Group(700), Group(1_700)),
        design={"auroc": 0.047, "udr": 0.050, "fpr": 0.055},
    ),
    Scenario("scores shifted by 1 sd", (Group(500, shift=1), Group(2_150)), ("auroc",), design={"auroc": 0.058}),
    Scenario("scores x2.5", (Group(500, scale=2.5), Group(2_150)), ("auroc",), design={"auroc": 0.056}),
    Scenario(
        "calibrated, prevalence 8-40 %",
        _prevalences(660, (0.08, 0.16, 0.26, 0.40), calibrated=True),
        ("auroc",),
        design={"auroc": 0.041},
    ),
    Scenario(
        "prevalence 8-40 %, same scores",
        _prevalences(660, (0.08, 0.16, 0.26, 0.40)),
        design={"auroc": 0.045, "udr": 0.042, "fpr": 0.040},
    ),
    Scenario(
        "ICC .95 small group / 0 large, 4 studies",
        (Group(60, 0.5, 4, icc=0.95), Group(400, 0.5, 4, icc=0.0)),
        clustered_and_small=True,
        design={"auroc": 0.042, "udr": 0.042, "fpr": 0.053},
    ),
    Scenario(
        "ICC 0 small group / .95 large, 4 studies (mirror)",
        (Group(60, 0.5, 4, icc=0.0), Group(400, 0.5, 4, icc=0.95)),
        clustered_and_small=True,
        design={"auroc": 0.058, "udr": 0.046, "fpr": 0.040},
    ),
    Scenario(
        "ICC .95 / 0, 35 of the 60 patients with positives",
        (Group(60, 0.3, 4, icc=0.95), Group(400, 0.3, 4, icc=0.0)),
        clustered_and_small=True,
    ),
    Scenario(
        "ICC 0 / .95, 35 of the 60 patients with positives",
        (Group(60, 0.3, 4, icc=0.0), Group(400, 0.3, 4, icc=0.95)),
        clustered_and_small=True,
    ),
    Scenario(
        "3 studies/patient small group, 1 large",
        (Group(150, studies=3), Group(2_750, studies=1)),
        design={"auroc": 0.048, "udr": 0.058, "fpr": 0.041},
    ),
    Scenario(
        "1 study small, 3 large",
        (Group(250, studies=1), Group(950, studies=3)),
        design={"auroc": 0.051, "udr": 0.053, "fpr": 0.062},
    ),
    Scenario(
        "3 v 1 studies, sick patients' negatives +1.5 sd",
        (Group(150, studies=3), Group(2_750, studies=1)),
        sick_shift=1.5,
        design={"auroc": 0.051, "udr": 0.049, "fpr": 0.055},
    ),
    Scenario(
        "3 v 1 studies, sick patients' negatives +1.5 sd, large groups",
        (Group(600, studies=3), Group(1_800, studies=1)),
        sick_shift=1.5,
        design={"auroc": 0.042, "udr": 0.043, "fpr": 0.047},
    ),
    Scenario("25-40 positives x2, 2,900", _SMALL, design={"auroc": 0.052, "udr": 0.049, "fpr": 0.046}),
    Scenario(
        "25-40 positives x2, 2,900, scale x2.5 and shift",
        (replace(_SMALL[0], scale=2.5), replace(_SMALL[1], shift=1), _SMALL[2]),
        ("auroc",),
        design={"auroc": 0.057},
    ),
    Scenario(
        "13 patients with positives, ICC .9, below the rule of 25",
        (Group(60, icc=0.9), Group(60, icc=0.9), Group(2_500, icc=0.9)),
        test_from=5,
        design={"auroc": 0.064, "udr": 0.067, "fpr": 0.058},
    ),
    Scenario(
        "50/300/2,200 patients, prevalence 50/10/19.5 %",
        (
            Group(52, 0.5, studies=1),
            Group(300, 0.1),
            Group(2_200, 0.195),
        ),
        design={"auroc": 0.046, "udr": 0.050, "fpr": 0.057},
    ),
    Scenario(
        "AUROC .95, 25-40 positives, shifted",
        (replace(_SMALL[0], shift=1), replace(_SMALL[1], shift=-1), _SMALL[2]),
        ("auroc",),
        auroc=0.95,
        udr=0.17,
        design={"auroc": 0.049},
    ),
    Scenario(
        "AUROC .95, exchangeable",
        _SMALL,
        auroc=0.95,
        udr=0.17,
        design={"auroc": 0.051, "udr": 0.055, "fpr": 0.044},
    ),
    Scenario(
        "5 score levels, prevalence 10-40 %",
        _prevalences(900, (0.1, 0.25, 0.4)),
        levels=True,
        design={"auroc": 0.058, "udr": 0.045, "fpr": 0.043},
    ),
    Scenario(
        "60/500/2,600 patients, scale x2.5",
        (Group(60, 0.5, 2, scale=2.5), Group(500, 0.15, 2), Group(2_600, 0.2)),
        ("auroc",),
        clustered_and_small=True,
        design={"auroc": 0.046},
    ),
    Scenario(
        "60/500/2,600 patients, ICC .9/.5/.2",
        (Group(60, 0.5, 2, icc=0.9), Group(500, 0.15, 2, icc=0.5), Group(2_600, 0.2, icc=0.2)),
        clustered_and_small=True,
        design={"auroc": 0.054, "udr": 0.053, "fpr": 0.064},
    ),
    Scenario(
        "60 of 50 % prevalence v 3,000 of 5 %, scale x1.5",
        (replace(_FIFTY, scale=1.5), Group(3_000, 0.05)),
        ("auroc",),
        clustered_and_small=True,
        design={"auroc": 0.044},
    ),
    Scenario(
        "60 of 50 % prevalence v 3,000 of 5 %, ICC .8 v .3",
        (replace(_FIFTY, icc=0.8), Group(3_000, 0.05, icc=0.3)),
        clustered_and_small=True,
        design={"auroc": 0.040, "udr": 0.049, "fpr": 0.055},
    ),
    Scenario("age bands, a third of the patients in two", _BANDS, in_two_bands=0.33),
    Scenario(
        "age bands, two thirds in two, ICC .8",
        tuple(replace(group, icc=0.8) for group in _BANDS),
        in_two_bands=0.67,
    ),
)


#: subgroups of the power scenarios: the paper's 3,200 studies
_POWER_UDR: Final = 0.25


def worse_in_udr(more: float, udr: float = _POWER_UDR) -> float:
    """Return how much lower the scores of positives are for a UDR that is `more` higher."""
    return float(ndtri(udr + more) - ndtri(udr))


def worse_in_auroc(less: float, auroc: float = 0.85) -> float:
    """Return how much lower the scores of positives are for an AUROC that is `less` lower."""
    return separation(auroc) - separation(auroc - less)


@dataclass(frozen=True)
class Power:
    """A scenario with a planted gap, and the design's power of Q, of the groups against the others, and of the gap."""

    scenario: Scenario
    design: dict[str, tuple[float, float, float]]


def _planted(name: str, at: int, worse: float) -> Scenario:
    groups = [Group(patients, icc=0.3) for patients in (1_500, 430, 420, 170, 160)]
    groups[at] = replace(groups[at], worse=worse)
    return Scenario(name, tuple(groups), ("udr", "auroc"), udr=_POWER_UDR)


POWERS: Final = (
    Power(
        _planted("one group of 500 worse by .15 UDR", 1, worse_in_udr(0.15)),
        {"udr": (0.64, 0.66, 0.40), "auroc": (0.69, 0.71, 0.35)},
    ),
    Power(
        _planted("one group of 200 worse by .15 UDR", 3, worse_in_udr(0.15)),
        {"udr": (0.32, 0.31, 0.38), "auroc": (0.36, 0.35, 0.45)},
    ),
    Power(
        Scenario(
            "linear trend, 5 bands of 640, UDR +.18 end to end",
            tuple(Group(533, worse=worse_in_udr(more, 0.26)) for more in (0.0, 0.045, 0.09, 0.135, 0.18)),
            ("udr", "auroc"),
        ),
        {"udr": (0.74, 0.64, 0.68), "auroc": (0.76, 0.70, 0.72)},
    ),
    Power(
        _planted("one group of 500: AUROC .05 lower", 1, worse_in_auroc(0.05)),
        {"udr": (0.33, 0.34, 0.18), "auroc": (0.34, 0.35, 0.14)},
    ),
)


@dataclass(frozen=True)
class Family:
    """Three encoders on the same studies, and two attributes of the same patients, without any disparity.

    The first attribute's prevalence and studies per patient depend on its subgroup.
    """

    name: str
    studies: tuple[float, ...]
    n_studies: int = 3_200

    def drawn(self, rng: np.random.Generator) -> tuple[list[Cohort], list[Ints]]:
        """Draw one cohort for each encoder, grouped by the first attribute, and the groups of both attributes."""
        shares, prevalence = np.array((0.30, 0.25, 0.20, 0.15, 0.10)), np.array((0.05, 0.12, 0.20, 0.26, 0.32))
        mean = np.broadcast_to(np.array(self.studies), len(shares))
        n_patients = int(self.n_studies / float(mean @ shares))
        of_patient = rng.choice(len(shares), n_patients, p=shares)
        patient = np.repeat(np.arange(n_patients), 1 + rng.poisson(mean[of_patient] - 1))
        group = of_patient[patient]
        positive = _correlated(patient, ILLNESS_ICC, rng) > ndtri(1 - prevalence)[group]
        shared = _correlated(patient, 0.3, rng)
        other = rng.integers(0, 2, n_patients)[patient]
        one = Scenario("", ())
        cohorts = [
            Cohort(
                separation(one.auroc) * positive + np.sqrt(0.6) * shared + np.sqrt(0.4) * _correlated(patient, 0.5, rng),
                positive, patient, group, one.threshold,
            )
            for _ in range(3)
        ]  # fmt: skip
        return cohorts, [group, other]


FAMILIES: Final = (
    Family("3 encoders x 2 attributes, 1.2 studies/patient", (1.2,)),
    Family("3 encoders x 2 attributes, 1.2 to 3 studies/patient by subgroup", (1.2, 1.5, 1.2, 2.0, 3.0)),
)


@dataclass(frozen=True)
class Margin:
    """Subgroups whose largest true difference in one metric is `difference`; equal subgroups show the power of equivalence.

    `design` is the share of draws that the design's prototype declared equivalent, if it has the scenario.
    """

    scenario: Scenario
    difference: float
    design: float | None = None

    @property
    def metric(self) -> str:
        """Return the compared metric."""
        return self.scenario.metrics[0]


def _at_the_margin(
    name: str, groups: Sequence[Group], metric: str = "udr", *, udr: float = 0.2, auroc: float = 0.85
) -> Margin:
    """Return subgroups of which the last is worse by 5.01 points."""
    worse = worse_in_udr(0.0501, udr) if metric == "udr" else worse_in_auroc(0.0501, auroc)
    groups = (*groups[:-1], replace(groups[-1], worse=worse))
    return Margin(Scenario(name, groups, (metric,), auroc=auroc, udr=udr, test_from=2), 0.0501)


#: all outcomes of a patient are equal, so that a UDR of few patients has large clusters
_SICK: Final = {"prevalence": 0.5, "illness_icc": 1.0}

MARGINS: Final = (
    _at_the_margin("UDR .20 v .25, 500 v 500 patients", (Group(500), Group(500))),
    _at_the_margin("UDR .20 v .25, 6,000 v 6,000 v 6,000 patients", (Group(6_000), Group(6_000), Group(6_000))),
    _at_the_margin(
        "UDR .01 v .06, 3,000 v 120 patients of 10, ICC .9",
        (Group(3_000), Group(120, studies=10, icc=0.9, **_SICK)),
        udr=0.01,
    ),
    _at_the_margin(
        "UDR .01 v .06, 3,000 v 60 patients of 10, ICC .95",
        (Group(3_000), Group(60, studies=10, icc=0.95, **_SICK)),
        udr=0.01,
    ),
    _at_the_margin(
        "UDR .01 v .06, 3,000 v 60 patients of 3, ICC .9",
        (Group(3_000), Group(60, studies=3, icc=0.9, **_SICK)),
        udr=0.01,
    ),
    _at_the_margin("AUROC .999 v .949, 3,000 v 125 patients", (Group(3_000), Group(125)), "auroc", auroc=0.9990),
    _at_the_margin("AUROC .90 v .85, 2,000 v 2,000 patients", (Group(2_000), Group(2_000)), "auroc", auroc=0.90),
    _at_the_margin(
        "AUROC .90 v .85, 60 patients of 10 v 2,000",
        (Group(60, studies=10, icc=0.8, **_SICK), Group(2_000)),
        "auroc",
        auroc=0.90,
    ),
    Margin(
        Scenario(
            "equal UDR .2, 2,000 v 2,000 sick patients", (Group(4_000, 0.5, 1), Group(4_000, 0.5, 1)), ("udr",), udr=0.2
        ),
        0.0,
        0.97,
    ),
    Margin(
        Scenario(
            "equal UDR .2, 1,000 v 1,000 sick patients", (Group(2_000, 0.5, 1), Group(2_000, 0.5, 1)), ("udr",), udr=0.2
        ),
        0.0,
        0.68,
    ),
)

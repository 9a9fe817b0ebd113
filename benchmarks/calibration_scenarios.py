"""Cohorts for `bench_fairness_calibration.py`: subgroups that differ in everything but the metric tested, and planted gaps.

A score is `shift + scale * (d * y - worse * y + e)`, with `e` standard normal and correlated within a patient. In a null scenario a
metric is listed only if its population value is the same in every subgroup: AUROC is unchanged by a subgroup's shift and scale, UDR
and FPR are equal if the scores of a class have the same distribution, whatever the prevalence, the correlation, and the number of
studies a patient has.
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

#: within-patient correlation of the latent illness; 1 where a patient's studies share one outcome
ILLNESS_ICC: Final = 0.5
#: patients of each class that a subgroup needs in order to be tested
TEST_FROM: Final = 25


def separation(auroc: float) -> float:
    """Return the distance, in standard deviations, between two normal classes of this AUROC."""
    return float(np.sqrt(2) * ndtri(auroc))


@dataclass(frozen=True)
class Group:
    """One subgroup.

    Parameters
    ----------
    patients : int
    prevalence : float, of studies
    studies : float
        Studies a patient has: exactly so many if whole, else 1 + Poisson(studies - 1).
    icc : float, within-patient correlation of the scores beside what the outcome explains
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
    """Studies of several subgroups: (n,) arrays, and the threshold at which a study is called positive."""

    score: Floats
    positive: Bools
    patient: Ints
    group: Ints
    threshold: float


@dataclass(frozen=True)
class Scenario:
    """Subgroups, the metrics tested, and what the design's prototype found there.

    Parameters
    ----------
    name : str
    groups : the subgroups
    metrics : metrics whose population values are equal (a null scenario) or tested for power
    auroc, udr : float, population values of a subgroup that is not worse
    sick_shift : float
        Added to the negatives of patients who have another positive study. Patients of one study get it at random, equally often.
    levels : bool, scores binned into five levels
    test_from : int, patients of each class that every subgroup has in every draw
    clustered_and_small : bool, promise 0.07 for rates: repeated studies at 60 patients, or subgroups below the rule of 25
    in_two_bands : float, share of patients whose studies fall into two neighbouring age bands
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

    @property
    def threshold(self) -> float:
        """Return the score from which a study is called positive."""
        return 3.0 if self.levels else separation(self.auroc) + float(ndtri(self.udr))

    def drawn(self, rng: np.random.Generator) -> Cohort:
        """Return one cohort. Outcomes are redrawn until every subgroup has `test_from` patients of each class."""
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
            score = np.digitize(score, [cut - 1.2, cut - 0.5, cut, cut + 0.8]).astype(np.float64)
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
        """Return patients of whom `in_two_bands` have their later studies in the next band; scores go on correlating."""
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
        """Return the scenario with as many times the patients, to see the population values."""
        return replace(
            self, groups=tuple(replace(group, patients=int(group.patients * times)) for group in self.groups)
        )


@cache
def share_of_sick(prevalence: float, illness_icc: float, studies: int) -> float:
    """Return the share of negative studies whose patient has a positive among all `studies` of theirs."""
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
    """Return equal subgroups of these prevalences; `calibrated` scores are the log-odds of the outcome in the subgroup."""
    d = separation(0.85)
    return tuple(
        Group(patients, p, shift=_log_odds(p) - d * d / 2, scale=d) if calibrated else Group(patients, p)
        for p in prevalences
    )


_SMALL: Final = (Group(140), Group(170), Group(2_400))
_FIFTY: Final = Group(60, 0.5, illness_icc=1.0)
_BANDS: Final = tuple(Group(300, p, studies=3) for p in (0.1, 0.15, 0.2, 0.25, 0.3))
_SIZES: Final = {"prevalence": 0.45}

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
        (Group(60, 0.3, 4, icc=0.95), Group(400, 0.3, 4, icc=0.0)),
        clustered_and_small=True,
        design={"auroc": 0.042, "udr": 0.042, "fpr": 0.053},
    ),
    Scenario(
        "ICC 0 small group / .95 large, 4 studies (mirror)",
        (Group(60, 0.3, 4, icc=0.0), Group(400, 0.3, 4, icc=0.95)),
        clustered_and_small=True,
        design={"auroc": 0.058, "udr": 0.046, "fpr": 0.040},
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
        clustered_and_small=True,
        design={"auroc": 0.064, "udr": 0.067, "fpr": 0.058},
    ),
    Scenario(
        "50/300/2,200 patients, prevalence 50/10/19.5 %",
        (
            Group(52, 0.5, studies=1),
            Group(300, 0.1),
            Group(2_200, 0.195),
        ),
        clustered_and_small=True,
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


def _worse_in_udr(more: float, udr: float = 0.26) -> float:
    """Return how much lower the scores of positives are if UDR is `more` higher."""
    return float(ndtri(udr + more) - ndtri(udr))


_OTHERS: Final = (Group(1_250), Group(580))


@dataclass(frozen=True)
class Power:
    """A scenario with a planted gap, and the design's power of Q, of the worst group against the others, and of the gap."""

    scenario: Scenario
    design: dict[str, tuple[float, float, float]]


POWERS: Final = (
    Power(
        Scenario(
            "one group of 500 worse by .15 UDR",
            (Group(1_660), Group(420, worse=_worse_in_udr(0.15)), Group(420), Group(170)),
            ("udr", "auroc"),
        ),
        {"udr": (0.64, 0.66, 0.40), "auroc": (0.69, 0.71, 0.35)},
    ),
    Power(
        Scenario(
            "one group of 200 worse by .15 UDR",
            (Group(1_660), Group(420), Group(420), Group(170, worse=_worse_in_udr(0.15))),
            ("udr", "auroc"),
        ),
        {"udr": (0.32, 0.31, 0.38), "auroc": (0.36, 0.35, 0.45)},
    ),
    Power(
        Scenario(
            "linear trend, 5 bands of 640, UDR +.18 end to end",
            tuple(Group(533, worse=_worse_in_udr(more)) for more in (0.0, 0.045, 0.09, 0.135, 0.18)),
            ("udr", "auroc"),
        ),
        {"udr": (0.74, 0.64, 0.68), "auroc": (0.76, 0.70, 0.72)},
    ),
    Power(
        Scenario(
            "one group of 500: AUROC .05 lower",
            (
                Group(1_660),
                Group(420, worse=separation(0.85) - separation(0.80)),
                Group(420),
                Group(170),
            ),
            ("udr", "auroc"),
        ),
        {"udr": (0.33, 0.34, 0.18), "auroc": (0.34, 0.35, 0.14)},
    ),
)

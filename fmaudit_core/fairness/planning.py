"""How many patients a prospective audit needs: a closed form to start from, then a simulation of the audit's own tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from scipy.special import ndtri

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.cluster_sizes import patients_by_class
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.intervals import normal_quantile, wilson
from fmaudit_core.fairness.planned_cohort import (
    Design,
    Subgroup,
    drawn_cohort,
    finds_gap,
    shows_equivalence,
)
from fmaudit_core.fairness.sample_size import disparity_patients, equivalence_patients
from fmaudit_core.fairness.seeding import seed_of

#: largest audit that is simulated
MOST_PATIENTS: Final = 100_000
#: shares of the simulated audits in each round; those of a similar size give the answer together
_ROUNDS: Final = (0.1, 0.3, 1.0)
_NEAR: Final = 0.3
_LEAST_AUDITS: Final = 40
#: further rounds if the last one is not close to the wanted power
_MORE_ROUNDS: Final = 2
_CLOSE: Final = 0.04
#: rounds with a share found outside these limits inform about the direction only
_INFORMATIVE: Final = (0.1, 0.97)
_MOST_SEARCHED: Final = 12
_POWERS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Round:
    """Simulated audits of one size: how many there were, and in how many the test succeeded."""

    n_patients: int
    n_audits: int
    n_found: int

    @property
    def share(self) -> float:
        """Return the share of audits in which the test succeeded."""
        return self.n_found / self.n_audits

    @property
    def smoothed(self) -> float:
        """Return the share moved by half an audit away from 0 and 1."""
        return (self.n_found + 0.5) / (self.n_audits + 1)


@dataclass(frozen=True)
class Plan:
    """How many patients an audit needs.

    Parameters
    ----------
    design : Design
    power : float
        The wanted probability.
    n_patients : int
        Patients of the evaluated split, all subgroups together.
    patients : frame
        A row per subgroup: `subgroup`, `value`, and the numbers of patients to expect: `n_patients`, `n_with` (a study with the
        outcome), `n_without` (a study without it), `n_studies`.
    curve : frame
        `power`, and `n_patients` that give it, interpolated on the probit scale.
    rounds : tuple of Round
        The simulations behind it.
    closed_form : int
        Patients by the closed form that the simulation started from.
    """

    design: Design
    power: float
    n_patients: int
    patients: pl.DataFrame
    curve: pl.DataFrame
    rounds: tuple[Round, ...]
    closed_form: int

    @property
    def simulated_power(self) -> tuple[float, float, float]:
        """Return the share of audits in the last round that found it, with its 95 % interval."""
        last = self.rounds[-1]
        return last.share, *wilson(last.share, last.n_audits, normal_quantile(0.95))


def plan(
    subgroups: Mapping[str, float],
    *,
    prevalence: float | Mapping[str, float],
    value: float,
    gap: float = 0.0,
    metric: str = "udr",
    worse: str | None = None,
    margin: float | None = None,
    power: float = 0.8,
    comparisons: int = 1,
    studies_per_patient: float = 1.0,
    icc: float = 0.5,
    settings: FairnessSection | None = None,
    draws: int = 1_500,
    progress: Progress = silent,
) -> Plan:
    """Return how many patients an audit needs to find a gap, or to show that there is none beyond the margin.

    Parameters
    ----------
    subgroups : mapping of name to share
        Shares of the patients; they are divided by their sum, so counts are accepted.
    prevalence : float, or mapping of name to float
        Share of studies with the outcome.
    value : float
        The metric in all subgroups but the worse one.
    gap : float
        How much worse it is in the subgroup `worse`.
    metric : {"udr", "fpr", "auroc"}
    worse : str, optional
        The smallest subgroup if not given.
    margin : float, optional
        Plan a test of equivalence within this margin, if all subgroups are equal. Give either a gap or a margin.
    power : float
        The wanted probability of the verdict.
    comparisons : int
        Comparisons of the declared family (attributes times encoders). The gap is tested at `alpha` divided by it. Equivalence
        needs no correction.
    studies_per_patient, icc : float
        Mean number of studies of a patient, and their correlation.
    settings : FairnessSection, optional
        Significance level, small-group rule and seed.
    draws : int
        Simulated audits in the last round, from 100.
    progress : callable, optional
        Called with the number of simulated audits.

    Raises
    ------
    FairnessError
        A number is out of range, or the audit would need more than 100,000 patients.
    """
    _check(gap, margin, power, draws)
    settings = settings or FairnessSection()
    if margin is not None:
        settings = settings.model_copy(update={"margin": margin})
    by_name = dict(prevalence) if isinstance(prevalence, Mapping) else dict.fromkeys(subgroups, prevalence)
    if missing := [name for name in subgroups if name not in by_name]:
        raise FairnessError(f"the prevalence of {', '.join(missing)} is not given.")
    groups = {name: Subgroup(share, by_name[name]) for name, share in subgroups.items()}
    smallest = min(groups, key=lambda name: groups[name].share) if groups else ""
    design = Design(
        groups, worse or smallest, metric, value, gap, comparisons, studies_per_patient, icc, settings
    )  # fmt: skip
    return planned(design, power, draws=draws, progress=progress)


def _check(gap: float, margin: float | None, power: float, draws: int) -> None:
    if (margin is None) == (gap == 0):
        raise FairnessError("give either a gap to find or a margin for equivalence.")
    if margin is not None and not 0 < margin < 1:
        raise FairnessError("the margin must lie between 0 and 1, such as 0.05 for 5 points.")
    if not 0.5 <= power <= 0.99:
        raise FairnessError("the power must be from 0.5 to 0.99.")
    if draws < 100:
        raise FairnessError("at least 100 simulated audits are needed.")


def planned(design: Design, power: float, *, draws: int, progress: Progress = silent) -> Plan:
    """Run `plan` for a design; a gap of 0 plans the test of equivalence within the margin of its settings."""
    start = (disparity_patients if design.gap else equivalence_patients)(design, power)
    floor = _least_patients(design)
    first = max(start, floor)
    _refuse_beyond(first)
    rounds = _searched(design, first, power, draws, progress)

    def size_for(wanted: float) -> int:
        return math.ceil(max(_size(design, rounds, wanted), floor))

    total = size_for(power)
    powers = sorted({*_POWERS, power})
    curve = pl.DataFrame({"power": powers, "n_patients": [size_for(one) for one in powers]})
    return Plan(design, power, total, _expected(design, total), curve, tuple(rounds), math.ceil(start))


def power_at(design: Design, n_patients: int, n_audits: int, *, first: int = 0, progress: Progress = silent) -> Round:
    """Simulate audits of one size with the audit's own test; `first` is the number of the first simulated audit."""
    found = 0
    for draw in range(first, first + n_audits):
        seed = seed_of(design.settings.seed, f"plan/{draw}")
        cohort = drawn_cohort(design, n_patients, np.random.default_rng(seed))
        found += finds_gap(design, cohort, draw) if design.gap else shows_equivalence(design, cohort)
        progress(draw + 1, first + n_audits)
    return Round(n_patients, n_audits, found)


def _searched(design: Design, start: float, power: float, draws: int, progress: Progress) -> list[Round]:
    """Simulate rounds of more and more audits, each at the size that the previous ones suggest."""
    n, drawn, floor = start, 0, _least_patients(design)
    rounds: list[Round] = []
    for share in (*_ROUNDS, *[1.0] * _MORE_ROUNDS):
        for _ in range(_MOST_SEARCHED):
            _refuse_beyond(n)
            n_audits = max(math.ceil(share * draws), _LEAST_AUDITS)
            rounds.append(power_at(design, math.ceil(n), n_audits, first=drawn, progress=progress))
            drawn += n_audits
            found = rounds[-1].share
            if _INFORMATIVE[0] <= found <= _INFORMATIVE[1]:
                n = _size(design, rounds, power)
                break
            if n <= floor and found > power:
                return rounds
            n = n * 1.5 if found < _INFORMATIVE[0] else max(0.75 * n, floor)
        n = max(n, floor)
        if len(rounds) >= len(_ROUNDS) and share == 1.0 and abs(found - power) <= _CLOSE:
            break
    return rounds


def _size(design: Design, rounds: Sequence[Round], power: float) -> float:
    """Return the size that gives the wanted power, from the rounds of a size close to the last one.

    The normal quantile of the power, plus that of the level, is proportional to the square root of the size. If all subgroups
    are equal, both one-sided tests of equivalence succeed with a probability of twice the normal probability less one.
    """
    alpha = design.alpha if design.gap else 2 * design.settings.alpha
    limit = normal_quantile(1 - alpha)
    near = [one for one in rounds if abs(math.log(one.n_patients / rounds[-1].n_patients)) < _NEAR]
    slopes = [(_z(design, one.smoothed) + limit) / math.sqrt(one.n_patients) for one in near]
    slope = float(np.average(slopes, weights=[one.n_audits for one in near]))
    return ((_z(design, power) + limit) / max(slope, 1e-9)) ** 2


def _z(design: Design, power: float) -> float:
    return float(ndtri(power if design.gap else (1 + power) / 2))


def _least_patients(design: Design) -> float:
    """Return how many patients give the worse subgroup, or for equivalence every subgroup, enough of the class to be tested."""
    with_it = {"udr": (design.prevalences,), "fpr": (1 - design.prevalences,)}
    classes = with_it.get(design.metric, (design.prevalences, 1 - design.prevalences))
    per_patient = np.min([one * design.shares for one in classes], axis=0) * design.studies_per_patient
    at = list(design.subgroups).index(design.worse)
    return design.settings.test_from / float(per_patient[at] if design.gap else per_patient.min())


def _refuse_beyond(n: float) -> None:
    if n > MOST_PATIENTS:
        raise FairnessError(
            f"the audit would need about {n:,.0f} patients, more than the {MOST_PATIENTS:,} that are simulated.",
            fix="Plan a larger gap or margin, fewer comparisons, or a subgroup with a larger share.",
        )


def _expected(design: Design, n_patients: int) -> pl.DataFrame:
    """Return the numbers of patients and studies to expect by subgroup: means of 20 simulated audits, rounded up."""
    names, values = list(design.subgroups), design.values()
    counted = np.zeros((len(names), 4))
    times = 20
    for draw in range(times):
        rng = np.random.default_rng(seed_of(design.settings.seed, f"plan/expected/{draw}"))
        cohort = drawn_cohort(design, n_patients, rng)
        for at in range(len(names)):
            inside = cohort.group == at
            patient, positive = cohort.patient[inside], cohort.positive[inside]
            counted[at] += [len(np.unique(patient)), *patients_by_class(positive, patient), len(patient)]
    means = np.ceil(counted / times).astype(np.int64)
    rows: list[dict[str, Any]] = [
        {"subgroup": name, "value": values[at]}
        | dict(zip(("n_patients", "n_with", "n_without", "n_studies"), means[at].tolist(), strict=True))
        for at, name in enumerate(names)
    ]
    return pl.DataFrame(rows)

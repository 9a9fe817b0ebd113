"""Simulation of the coverage of 95 % intervals of rates and AUROCs, and of the error of equivalence at the margin.

Rates: patients with equally many studies each, whose predictions have an intraclass correlation (beta-binomial). AUROC: normal
scores of two classes, with a patient component of their variance. Equivalence: two subgroups whose true difference is the margin.
Required: coverage of 93 to 98 % from 25 patients of the rarer class on with clusters; equivalence declared in at most 5 %.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.equivalence import equivalence
from fmaudit_core.fairness.rates import rate
from fmaudit_core.fairness.score_sets import Studies

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Called:
    """Patients of one class with `studies` each, predicted positive at a true rate with an intraclass correlation."""

    patients: int
    studies: float
    rate: float
    icc: float = 0.0

    def __str__(self) -> str:
        return f"{self.patients} patients x {self.studies:g}, rate {self.rate:g}, ICC {self.icc:g}"

    def draw(self, rng: np.random.Generator) -> tuple[BoolArray, IntArray]:
        """Draw predictions and patients, both (n,); a fractional number of studies is a mean, 1 + Poisson."""
        patient = _patients(rng, self.patients, self.studies)
        p = np.full(self.patients, self.rate)
        if self.icc >= 1:
            p = (rng.random(self.patients) < self.rate).astype(np.float64)
        elif self.icc > 0:
            total = 1 / self.icc - 1
            p = rng.beta(self.rate * total, (1 - self.rate) * total, self.patients)
        return rng.random(len(patient)) < p[patient], patient


@dataclass(frozen=True)
class Ranked:
    """Patients with positives and others with negatives, `studies` each, at a true AUROC.

    `icc` is the share of the patients' component in the scores' variance within a class. A share `silent` of the patients with
    positives ranks below all others; the other positives rank higher to compensate.
    """

    positives: int
    negatives: int
    auroc: float
    studies: float = 1
    icc: float = 0.0
    silent: float = 0.0

    def __str__(self) -> str:
        clusters = "" if self.studies == 1 else f" x {self.studies:g}, ICC {self.icc:g}"
        silent = f", {self.silent:.0%} silent" if self.silent else ""
        return f"{self.positives} positive, {self.negatives} negative patients{clusters}, AUROC {self.auroc:g}{silent}"

    def draw(self, rng: np.random.Generator) -> tuple[BoolArray, Float64Array, IntArray]:
        """Draw labels, scores and patients, each (n,)."""
        size = self.positives + self.negatives
        patient = _patients(rng, size, self.studies)
        y = patient < self.positives
        noise = np.sqrt(self.icc) * rng.normal(size=size)[patient]
        noise += np.sqrt(1 - self.icc) * rng.normal(size=len(patient))
        silent = y & (rng.random(size) < self.silent)[patient]
        return y, noise + np.sqrt(2) * norm.ppf(self.auroc / (1 - self.silent)) * y - 100 * silent, patient


#: scenario -> whether its coverage is required: at least 25 patients, several studies each
RATES: Final = {
    Called(25, 1, 0.5): False,
    Called(25, 1, 0.2): False,
    Called(60, 1, 0.3): False,
    Called(40, 2, 0.1, 0.5): True,
    Called(60, 3, 0.05, 0.5): True,
    Called(60, 3, 0.3, 0.5): True,
    Called(12, 4, 0.3, 0.5): False,
    Called(12, 10, 0.3, 0.3): False,
    Called(200, 1.2, 0.2, 0.5): True,
}
AUROCS: Final = (
    Ranked(25, 25, 0.9), Ranked(25, 25, 0.97), Ranked(25, 120, 0.7), Ranked(25, 120, 0.95), Ranked(25, 120, 0.98),
    Ranked(40, 160, 0.95), Ranked(60, 240, 0.98), Ranked(25, 500, 0.95), Ranked(25, 60, 0.95, 2, 0.8),
)  # fmt: skip


#: pairs of subgroups whose true difference is the margin of 5 points
AT_THE_MARGIN: Final[tuple[tuple[Called, Called] | tuple[Ranked, Ranked], ...]] = (
    (Called(3_000, 1, 0.0), Called(52, 1, 0.05)),
    (Called(3_000, 1, 0.05), Called(52, 1, 0.0)),
    (Called(3_000, 1, 0.02), Called(300, 1, 0.07)),
    (Called(1_000, 1, 0.20), Called(1_000, 1, 0.25)),
    (Called(3_000, 1, 0.01), Called(30, 10, 0.06, 0.99)),
    (Called(3_000, 1, 0.0), Called(30, 10, 0.05, 1.0)),
    (Called(3_000, 1, 0.0), Called(60, 10, 0.05, 1.0)),
    (Called(3_000, 1, 0.01), Called(60, 3, 0.06, 0.8)),
    (Called(3_000, 1, 0.0), Called(60, 3, 0.05, 0.5)),
    (Called(400, 3, 0.20, 0.3), Called(400, 3, 0.25, 0.9)),
    (Called(2_000, 1.2, 0.10, 0.9), Called(400, 1.2, 0.15, 0.9)),
    (Ranked(500, 2_000, 0.999), Ranked(25, 200, 0.949)),
    (Ranked(25, 200, 0.999), Ranked(500, 2_000, 0.949)),
    (Ranked(25, 25, 0.999), Ranked(25, 25, 0.949)),
    (Ranked(500, 1_000, 0.90), Ranked(100, 400, 0.85)),
    (Ranked(300, 600, 0.80, 2, 0.8), Ranked(300, 600, 0.75, 2, 0.8)),
    (Ranked(500, 1_000, 0.999), Ranked(30, 30, 0.949, 10, 0.95)),
    (Ranked(500, 1_000, 0.999), Ranked(30, 120, 0.949, 3, 0.8)),
    (Ranked(500, 1_000, 0.999), Ranked(25, 200, 0.949, silent=0.05)),
    (Ranked(500, 1_000, 0.999), Ranked(30, 100, 0.949, 10, 0.5, silent=0.05)),
    (Ranked(500, 1_000, 0.999), Ranked(100, 200, 0.949, silent=0.05)),
)


def equivalence_shown(pair: tuple[Called, Called] | tuple[Ranked, Ranked], n_draws: int, seed: int = 0) -> float:
    """Return the share of draws of two subgroups in which equivalence within 5 points is shown."""
    rng = np.random.default_rng(seed)
    metric = "udr" if isinstance(pair[0], Called) else "auroc"
    shown = 0
    for _ in range(n_draws):
        levels = {"a": _studies(pair[0], rng), "b": _studies(pair[1], rng)}
        shown += equivalence(levels, ("a", "b"), metric, FairnessSection(margin=0.05)).within_margin
    return shown / n_draws


def _studies(scenario: Called | Ranked, rng: np.random.Generator) -> Studies:
    if isinstance(scenario, Ranked):
        return Studies(*scenario.draw(rng), threshold=0.0)
    missed, patient = scenario.draw(rng)
    return Studies(np.ones(len(missed), dtype=bool), (~missed).astype(np.float64), patient, threshold=0.5)


def rate_coverage(scenario: Called, n_draws: int, seed: int = 0) -> tuple[float, float, float]:
    """Return the share of 95 % intervals of a rate that cover it, and of those that lie above it and below it."""
    rng = np.random.default_rng(seed)
    ends = np.array([rate(*scenario.draw(rng)).interval(0.95) for _ in range(n_draws)])
    return _coverage(ends, scenario.rate)


def auroc_coverage(scenario: Ranked, n_draws: int, seed: int = 0) -> tuple[float, float, float]:
    """Return the share of 95 % intervals of an AUROC that cover it, and of those that lie above it and below it."""
    rng = np.random.default_rng(seed)
    ends = np.array([auroc(*scenario.draw(rng)).interval(0.95) for _ in range(n_draws)])
    return _coverage(ends, scenario.auroc)


def _coverage(ends: Float64Array, truth: float) -> tuple[float, float, float]:
    above, below = float((ends[:, 0] > truth).mean()), float((ends[:, 1] < truth).mean())
    return 1 - above - below, above, below


def _patients(rng: np.random.Generator, size: int, studies: float) -> IntArray:
    counts = np.full(size, int(studies)) if float(studies).is_integer() else 1 + rng.poisson(studies - 1, size)
    return np.repeat(np.arange(size), counts)


def main() -> None:
    """Print every scenario, and whether all requirements are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10_000)
    draws = parser.parse_args().draws
    kept = True
    print(f"95 % intervals over {draws:,} draws: covering, above the truth, below it")
    for scenario, promised in RATES.items():
        covered, above, below = rate_coverage(scenario, draws)
        kept &= not promised or 0.93 <= covered <= 0.98
        print(f"  {scenario!s:62s} {covered:.3f} {above:.3f} {below:.3f}{'' if promised else '  (not promised)'}")
    for one in AUROCS:
        covered, above, below = auroc_coverage(one, draws)
        kept &= one.studies == 1 or 0.93 <= covered <= 0.98
        print(f"  {one!s:62s} {covered:.3f} {above:.3f} {below:.3f}")
    print(f"two subgroups whose true difference is the margin: equivalence shown, {draws:,} draws")
    for pair in AT_THE_MARGIN:
        shown = equivalence_shown(pair, draws)
        kept &= shown <= 0.05 + 2 * (0.05 * 0.95 / draws) ** 0.5
        print(f"  {pair[0]!s:62s} | {pair[1]!s:62s} {shown:.4f}")
    print("all promises kept" if kept else "a promise was NOT kept")


if __name__ == "__main__":
    main()

"""Check by simulation that 95 % intervals of rates and AUROCs cover, and that equivalence is not claimed at the margin.

Rates: patients with equally many studies each, whose calls agree with an intraclass correlation (beta-binomial). AUROC: normal
scores of two classes, with a patient's part in their variance. Equivalence: two subgroups whose true difference is the margin.
Promised: coverage of 93 to 98 % from 25 patients of the rarer class on with clusters; equivalence claimed in at most 5 %.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.rates import rate

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Called:
    """Patients of one class with `studies` each, called at a true rate with an intraclass correlation."""

    patients: int
    studies: float
    rate: float
    icc: float = 0.0

    def __str__(self) -> str:
        return f"{self.patients} patients x {self.studies:g}, rate {self.rate:g}, ICC {self.icc:g}"

    def draw(self, rng: np.random.Generator) -> tuple[BoolArray, IntArray]:
        """Draw calls and patients, both (n,); a fractional number of studies is a mean, 1 + Poisson."""
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
    """Patients with positives and others with negatives, `studies` each, at a true AUROC; `icc` of a patient's scores."""

    positives: int
    negatives: int
    auroc: float
    studies: float = 1
    icc: float = 0.0

    def __str__(self) -> str:
        clusters = "" if self.studies == 1 else f" x {self.studies:g}, ICC {self.icc:g}"
        return f"{self.positives} positive, {self.negatives} negative patients{clusters}, AUROC {self.auroc:g}"

    def draw(self, rng: np.random.Generator) -> tuple[BoolArray, Float64Array, IntArray]:
        """Draw labels, scores and patients, each (n,)."""
        size = self.positives + self.negatives
        patient = _patients(rng, size, self.studies)
        y = patient < self.positives
        noise = np.sqrt(self.icc) * rng.normal(size=size)[patient]
        noise += np.sqrt(1 - self.icc) * rng.normal(size=len(patient))
        return y, noise + np.sqrt(2) * norm.ppf(self.auroc) * y, patient


#: scenario -> whether its coverage is promised: at least 25 patients, several studies each
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
    """Print every scenario, and whether what is promised was kept."""
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
    print("all promises kept" if kept else "a promise was NOT kept")


if __name__ == "__main__":
    main()

"""Simulation of the type-I error of the tests that compare calibration slope and intercept between subgroups.

Patients have several studies with correlated outcomes (Gaussian copula). Subgroups differ in prevalence, in the spread of their
scores and in size; calibration is the same in all, perfect or not. Required: 3.5 to 6.5 % rejections at the 5 % level.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from fmaudit_core.fairness.calibration import Calibration, calibration
from fmaudit_core.fairness.calibration_tests import MIN_PATIENTS, homogeneity
from fmaudit_core.fairness.cluster_sizes import patients_by_class


@dataclass(frozen=True)
class Subgroup:
    """A simulated subgroup: patients with `studies` each on average; the log odds of the scores are normal."""

    patients: int
    studies: float
    centre: float
    spread: float = 1.2

    def draw(self, rng: np.random.Generator, slope: float, intercept: float, together: float) -> Calibration:
        """Draw a sample with at least `MIN_PATIENTS` patients of each class and calibrate it.

        Parameters
        ----------
        slope, intercept : true calibration
        together : correlation of the latent outcomes of a patient's studies, given their scores
        """
        while True:
            patient = np.repeat(np.arange(self.patients), 1 + rng.poisson(self.studies - 1, self.patients))
            own, shared = rng.normal(size=len(patient)), rng.normal(size=self.patients)[patient]
            log_odds = self.centre + self.spread * (np.sqrt(0.5) * shared + np.sqrt(0.5) * own)
            latent = np.sqrt(together) * rng.normal(size=self.patients)[patient]
            latent += np.sqrt(1 - together) * rng.normal(size=len(patient))
            y = norm.cdf(latent) < expit(intercept + slope * log_odds)
            if min(patients_by_class(y, patient)) >= MIN_PATIENTS:
                return calibration(y, expit(log_odds), patient)


#: subgroups, true slope and intercept, correlation
SCENARIOS: Final = {
    "3 of 1,000 patients x 1.2, prevalence 15 to 40 %": (
        [Subgroup(1_000, 1.2, centre) for centre in (-2.2, -1.3, -0.5)], 1.0, 0.0, 0.5,
    ),
    "3,000, 600 and 200 patients x 1.2, prevalence 10 to 40 %": (
        [Subgroup(3_000, 1.2, -2.6), Subgroup(600, 1.2, -1.5), Subgroup(200, 1.2, -0.5)], 1.0, 0.0, 0.5,
    ),
    "the same x 3, slope 0.7, intercept 0.4": (
        [Subgroup(3_000, 3, -2.6), Subgroup(600, 3, -1.5), Subgroup(200, 3, -0.5)], 0.7, 0.4, 0.7,
    ),
    "3,000 patients x 1 v 150 x 3, of other spread": (
        [Subgroup(3_000, 1, -2.0, 0.7), Subgroup(150, 3, -1.0, 1.8)], 1.0, 0.0, 0.7,
    ),
    "5 of about 60 patients of the rarer class": (
        [Subgroup(300, 1.2, -1.8), Subgroup(250, 1.2, -1.5), Subgroup(350, 1.2, -2.0), Subgroup(280, 1.2, -1.6),
         Subgroup(150, 1.2, -0.5)], 1.0, 0.0, 0.5,
    ),
    "3,000 v about 60 of the rarer class": ([Subgroup(3_000, 1.2, -2.0), Subgroup(250, 1.2, -1.5)], 1.0, 0.0, 0.5),
}  # fmt: skip


def rejected(
    subgroups: Sequence[Subgroup], slope: float, intercept: float, together: float, n_draws: int, seed: int = 0
) -> dict[str, float]:
    """Return the share of draws in which each parameter's test rejects at 5 %.

    The intercept is that of the score's log odds with the slope fixed at 1. It is equal in subgroups of different prevalence only
    if the slope is 1, and is left out otherwise.
    """
    rng = np.random.default_rng(seed)
    drawn = [[one.draw(rng, slope, intercept, together) for one in subgroups] for _ in range(n_draws)]
    out = {}
    for parameter in ("slope", "intercept") if slope == 1 else ("slope",):
        p = [
            homogeneity(
                [getattr(one, parameter) for one in of_draw], [getattr(one, f"{parameter}_se") for one in of_draw]
            )[1]
            for of_draw in drawn
        ]
        out[parameter] = float(np.mean(np.array(p) <= 0.05))
    return out


def main() -> None:
    """Print every scenario, and whether all requirements are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2_000)
    draws = parser.parse_args().draws
    kept, rounding = True, 2 * (0.05 * 0.95 / draws) ** 0.5
    print(f"subgroups calibrated alike, {draws:,} draws: called different at 5 %")
    for name, (subgroups, slope, intercept, together) in SCENARIOS.items():
        found = rejected(subgroups, slope, intercept, together, draws)
        kept &= all(0.035 - rounding <= share <= 0.065 + rounding for share in found.values())
        shares = "  ".join(f"{parameter} {share:.4f}" for parameter, share in found.items())
        print(f"  {name:58s} {shares}", flush=True)
    print("all promises kept" if kept else "a promise was NOT kept")


if __name__ == "__main__":
    main()

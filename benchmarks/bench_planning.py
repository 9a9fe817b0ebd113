"""Planned sizes: the closed form, the simulation, and the power of new simulated audits of the planned size.

Required: 0.78 to 0.82 of the audits find the planted gap, or show equivalence. A share counts as violated if it lies outside by
more than two Monte-Carlo standard errors.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, Final

import numpy as np

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.gaps import null_gaps
from fmaudit_core.fairness.kernels import Ranking
from fmaudit_core.fairness.permutation import PatientPermuter
from fmaudit_core.fairness.planned_cohort import Design, Subgroup, drawn_cohort
from fmaudit_core.fairness.planning import plan, power_at
from fmaudit_core.fairness.power import minimal_detectable_difference
from fmaudit_core.fairness.studentised import Scaled, scaled_rate
from fmaudit_core.fairness.units import Units

_BANDS: Final = {"18-40": 0.15, "41-60": 0.35, "61-74": 0.3, "over 74": 0.2}
_RARE: Final = {"a": 0.1, "b": 0.9}

#: name -> arguments of `plan`
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "UDR 30 v 45 %, two halves": {"subgroups": {"a": 1, "b": 1}, "prevalence": 0.2, "value": 0.3, "gap": 0.15},
    "UDR 30 v 45 %, one of four bands": {"subgroups": _BANDS, "prevalence": 0.2, "value": 0.3, "gap": 0.15},
    "UDR 10 v 25 %, a tenth of the patients": {"subgroups": _RARE, "prevalence": 0.2, "value": 0.1, "gap": 0.15},
    "UDR 30 v 45 %, 2 studies a patient": {
        "subgroups": {"a": 0.3, "b": 0.7}, "prevalence": 0.2, "value": 0.3, "gap": 0.15, "studies_per_patient": 2.0,
    },
    "UDR 30 v 50 %, a family of 9": {
        "subgroups": {"a": 0.3, "b": 0.7}, "prevalence": 0.2, "value": 0.3, "gap": 0.2, "comparisons": 9,
    },
    "FPR 20 v 27 %": {
        "subgroups": {"a": 0.3, "b": 0.7}, "prevalence": 0.2, "value": 0.2, "gap": 0.07, "metric": "fpr",
    },
    "AUROC 0.85 v 0.75": {
        "subgroups": {"a": 0.3, "b": 0.7}, "prevalence": 0.2, "value": 0.85, "gap": 0.1, "metric": "auroc",
    },
    "UDR 30 %, equivalence within 10 points": {
        "subgroups": {"a": 0.3, "b": 0.7}, "prevalence": 0.2, "value": 0.3, "margin": 0.1,
    },
    "AUROC 0.85, equivalence within 0.1": {
        "subgroups": {"a": 0.3, "b": 0.7}, "prevalence": 0.2, "value": 0.85, "margin": 0.1, "metric": "auroc",
    },
}  # fmt: skip


def at_the_mde(times: float, n_audits: int, *, attributes: int = 3, comparisons: int = 9) -> tuple[float, float, float]:
    """Return how often a band whose UDR is `times` its minimal detectable difference higher is found.

    By its own test against the others at the level of the difference (`alpha` over the attributes), by the test of all bands at
    that level, and by the test of all bands at the level of the family, which decides the verdict.
    """
    sick = {name: round(640 * share) for name, share in _BANDS.items()}
    of_bands = {name: scaled_rate(*(np.array(float(one)) for one in (0.3, n, n))) for name, n in sick.items()}
    others = [one for name, one in of_bands.items() if name != "18-40"]
    together = Scaled(np.array([float(one.t) for one in others]), np.array([float(one.v) for one in others]))
    alpha = FairnessSection().alpha
    gap = times * minimal_detectable_difference("udr", of_bands["18-40"], together, alpha / attributes)
    groups = {name: Subgroup(share, 0.2) for name, share in _BANDS.items()}
    design = Design(groups, "18-40", "udr", 0.3, gap, comparisons, 1.0, 0.5, FairnessSection())
    found = np.zeros(3)
    for draw in range(n_audits):
        cohort = drawn_cohort(design, 3_200, np.random.default_rng([draw, 7]))
        units = Units.of(cohort.group, cohort.patient, cohort.positive)
        permuter = PatientPermuter(units, seed=draw, named="mde", test_from=25)
        ranking = Ranking.of(cohort.score, cohort.positive, units, 0.0)
        (gaps,) = null_gaps([ranking], units, permuter.permutations(1_799), metrics=("udr",))
        p_all, p_rest = gaps["udr"].p_value, gaps["udr"].p_rest
        if p_all is not None and p_rest is not None:
            found += [p_rest[0] <= alpha / attributes, p_all <= alpha / attributes, p_all <= alpha / comparisons]
    return tuple(found / n_audits)


def main() -> None:
    """Plan each setting, then simulate new audits of the planned size and of the size of the closed form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audits", type=int, default=2_000, help="new audits of each size")
    parser.add_argument("--draws", type=int, default=1_500, help="audits in the last round of a plan")
    parser.add_argument("--only", default="", help="settings whose name contains this")
    parser.add_argument(
        "--mde", action="store_true", help="how often a band at its minimal detectable difference is found"
    )
    given = parser.parse_args()
    if given.mde:
        for times in (1.0, 1.25):
            own, every, verdict = at_the_mde(times, given.audits)
            print(
                f"{times} x mde: own test {own:.3f}, all bands {every:.3f}, all bands at the family's level {verdict:.3f}"
            )
        return
    print(f"{'setting':<42}{'closed form':>12}{'its power':>11}{'planned':>9}{'its power':>11}{'seconds':>9}")
    violated = []
    for name, setting in SETTINGS.items():
        if given.only not in name:
            continue
        started = time.perf_counter()
        found = plan(**setting, draws=given.draws)
        seconds = time.perf_counter() - started
        shares = [
            power_at(found.design, size, given.audits, first=1_000_000).share
            for size in (found.closed_form, found.n_patients)
        ]
        off = max(0.78 - shares[1], shares[1] - 0.82)
        if off > 2 * np.sqrt(0.8 * 0.2 / given.audits):
            violated.append(name)
        print(
            f"{name:<42}{found.closed_form:>12,}{shares[0]:>11.3f}{found.n_patients:>9,}{shares[1]:>11.3f}{seconds:>9.1f}",
            flush=True,
        )
    print("Violated: " + (", ".join(violated) or "none"))


if __name__ == "__main__":
    main()

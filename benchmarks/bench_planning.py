"""Planned sizes: the closed form, the simulation, and the power of new simulated audits of the planned size.

Required: 0.78 to 0.82 of the audits find the planted gap, or show equivalence. A share counts as violated if it lies outside by
more than two Monte-Carlo standard errors.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, Final

import numpy as np

from fmaudit_core.fairness.planning import plan, power_at

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


def main() -> None:
    """Plan each setting, then simulate new audits of the planned size and of the size of the closed form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audits", type=int, default=2_000, help="new audits of each size")
    parser.add_argument("--draws", type=int, default=1_500, help="audits in the last round of a plan")
    parser.add_argument("--only", default="", help="settings whose name contains this")
    given = parser.parse_args()
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

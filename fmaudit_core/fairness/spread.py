"""How far subgroups truly lie apart: the standard deviation between them with the sampling variance taken out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.fairness.seeding import seed_of

Float64Array = npt.NDArray[np.float64]

_N_DRAWS: Final = 2_000


def corrected_sd(values: Sequence[float], standard_errors: Sequence[float]) -> float:
    """Between-subgroup standard deviation with the sampling variance taken out, 0 where sampling explains it all.

    References
    ----------
    Lum, Zhang & Bower, FAccT 2022.
    """
    between = float(np.var(values, ddof=1)) - float(np.mean(np.square(standard_errors)))
    return math.sqrt(max(between, 0.0))


def corrected_sd_interval(
    values: Sequence[float], standard_errors: Sequence[float], confidence: float, seed: int
) -> tuple[float, float]:
    """Interval of `corrected_sd` by the double-corrected bootstrap.

    A bootstrapped value errs twice: as the estimate does, and once more around it. So each draw's variance between subgroups
    has the sampling variance taken out twice. Draws are normal with the subgroups' own (clustered) standard errors.

    Returns
    -------
    (low, high), both 0 where sampling explains all

    References
    ----------
    Lum, Zhang & Bower, FAccT 2022, section 5.
    """
    errors = np.asarray(standard_errors)
    rng = np.random.default_rng(seed_of(seed, f"corrected_sd/{len(errors)}"))
    drawn = np.asarray(values) + errors * rng.normal(size=(_N_DRAWS, len(errors)))
    between = drawn.var(axis=1, ddof=1) - 2 * float(np.mean(errors**2))
    low, high = np.quantile(np.sqrt(np.maximum(between, 0.0)), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)

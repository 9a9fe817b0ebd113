"""Between-subgroup standard deviation, corrected for sampling variance."""

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
    """Return the between-subgroup standard deviation, corrected for sampling variance; 0 if sampling explains all of it.

    References
    ----------
    Lum, Zhang & Bower, FAccT 2022.
    """
    between = float(np.var(values, ddof=1)) - float(np.mean(np.square(standard_errors)))
    return math.sqrt(max(between, 0.0))


def corrected_sd_interval(
    values: Sequence[float], standard_errors: Sequence[float], confidence: float, seed: int
) -> tuple[float, float]:
    """Return the interval of `corrected_sd` by the double-corrected bootstrap.

    A bootstrapped value has two sampling errors: the error of the estimate and the error of the draw. The sampling variance is
    therefore subtracted twice from the between-subgroup variance of each draw. Draws are normal with the (clustered) standard
    errors of the subgroups.

    Returns
    -------
    (low, high), both 0 if sampling explains all variance

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

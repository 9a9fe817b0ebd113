"""Tests of equal calibration across the subgroups of an attribute: homogeneity of slopes and of intercepts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from scipy.special import chdtrc

from fmaudit_core.fairness.calibration import Calibration
from fmaudit_core.fairness.multiplicity import benjamini_hochberg
from fmaudit_core.tables.fairness import CALIBRATION_TESTS

#: fewest patients per class in a subgroup, because the test is a large-sample test
MIN_PATIENTS: Final = 50
PARAMETERS: Final = ("slope", "intercept")


def homogeneity(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """Compute Cochran's Q of estimates of one quantity in different groups of patients, and its p.

    Parameters
    ----------
    values, errors : (g,) float, at least two estimates and their standard errors

    Returns
    -------
    Q, the sum of squared distances from the precision-weighted mean, each divided by its variance, and p from chi-squared with
    g - 1 degrees of freedom

    References
    ----------
    Cochran 1954, Biometrics 10:101.
    """
    estimates, weights = np.asarray(values, dtype=np.float64), 1 / np.asarray(errors, dtype=np.float64) ** 2
    q = float(weights @ (estimates - weights @ estimates / weights.sum()) ** 2)
    return q, float(chdtrc(len(estimates) - 1, q))


def homogeneity_rows(
    tested: Iterable[Calibration], named: dict[str, Any], *, probabilities: bool
) -> Iterator[dict[str, Any]]:
    """Make a row of `CALIBRATION_TESTS` for slope and for intercept of one score set and attribute; `q_value` is left out.

    Parameters
    ----------
    tested : calibrations of the tested subgroups with at least `MIN_PATIENTS` patients of each class
    named : columns of the score set and the attribute
    probabilities : whether the scores can be probabilities

    Notes
    -----
    `status` is ``tested``, ``too_few_subgroups`` if fewer than two subgroups have the parameter, or ``not_probability``.
    """
    calibrations = list(tested)
    for parameter in PARAMETERS:
        found = [(getattr(one, parameter), getattr(one, f"{parameter}_se")) for one in calibrations]
        known = [(value, se) for value, se in found if value is not None and se]
        row = named | {"parameter": parameter, "n_subgroups": len(known)}
        if not probabilities:
            yield row | {"status": "not_probability", "n_subgroups": None}
        elif len(known) < 2:
            yield row | {"status": "too_few_subgroups"}
        else:
            q, p = homogeneity(*zip(*known, strict=True))
            yield row | {"status": "tested", "q_statistic": q, "p_value": p}


def with_q_values(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return rows of `homogeneity_rows` as a frame of `CALIBRATION_TESTS`, with exploratory q-values over all of them."""
    tests = CALIBRATION_TESTS.frame(rows)
    p = tests.get_column("p_value").fill_null(np.nan).to_numpy()
    return tests.with_columns(q_value=pl.Series(benjamini_hochberg(p), dtype=pl.Float64).fill_nan(None))

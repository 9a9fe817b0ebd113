"""The rule for small groups, fixed before looking at any result."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.clusters import patients_by_class
from fmaudit_core.vocabulary import UNKNOWN

#: status of a rate of a score set that has no operating threshold; such a row has no number, and no count
NO_THRESHOLD: Final = "no_threshold"


def small_group_rule(n_positive: int, n_negative: int, settings: FairnessSection, level: str = "") -> str:
    """Status of a subgroup by its patients in the evaluated split.

    It is people whom the rule protects, and people who carry the evidence: thirty studies of two patients are two patients.

    Parameters
    ----------
    n_positive, n_negative : int
        `clusters.patients_by_class`.

    Returns
    -------
    str
        ``not_estimable`` without a class, ``suppressed`` or ``interval_only`` where one is small, else ``tested``. The level
        of studies whose attribute was not recorded is reported and never tested.
    """
    smaller = min(n_positive, n_negative)
    if smaller == 0:
        return "not_estimable"
    if smaller < settings.suppress_under:
        return "suppressed"
    return "tested" if smaller >= settings.test_from and level != UNKNOWN else "interval_only"


def status_of(
    y_true: npt.NDArray[np.bool_], patient: npt.NDArray[np.integer], settings: FairnessSection, level: str = ""
) -> str:
    """`small_group_rule` of a subgroup's studies, by (n,) label and patient of each."""
    return small_group_rule(*patients_by_class(y_true, patient), settings, level)

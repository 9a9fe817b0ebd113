"""The rule for small groups, fixed before looking at any result."""

from __future__ import annotations

from typing import Final

from fmaudit_core.config import FairnessSection
from fmaudit_core.vocabulary import UNKNOWN

#: status of a rate of a score set that has no operating threshold; such a row has no number, and no count
NO_THRESHOLD: Final = "no_threshold"


def small_group_rule(n_pos: int, n_neg: int, settings: FairnessSection, level: str = "") -> str:
    """Status of a subgroup by its positives and negatives in the evaluated split.

    Returns
    -------
    str
        ``not_estimable`` without a class, ``suppressed`` or ``interval_only`` where one is small, else ``tested``. The level
        of studies whose attribute was not recorded is reported and never tested.
    """
    smaller = min(n_pos, n_neg)
    if smaller == 0:
        return "not_estimable"
    if smaller < settings.suppress_under:
        return "suppressed"
    return "tested" if smaller >= settings.test_from and level != UNKNOWN else "interval_only"

"""The small-group rule, which is fixed before any result is seen."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.common.vocabulary import UNKNOWN
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.cluster_sizes import patients_by_class

#: status of a rate of a score set without an operating threshold; such a row has neither value nor counts
NO_THRESHOLD: Final = "no_threshold"


def small_group_rule(n_patients: int, settings: FairnessSection, level: str = "") -> str:
    """Return the status of a metric in a subgroup by its number of patients in the evaluated split.

    The rule counts patients, not studies, because patients are protected and are the independent units: thirty studies of two
    patients count as two.

    Parameters
    ----------
    n_patients : int
        Patients with a positive study for UDR and TPR, with a negative one for FPR, the smaller of both for AUROC.

    Returns
    -------
    str
        ``not_estimable`` without a patient, ``suppressed`` or ``interval_only`` if there are few, else ``tested``. The level of
        studies whose attribute was not recorded is reported but never tested.
    """
    if n_patients == 0:
        return "not_estimable"
    if n_patients < settings.suppress_under:
        return "suppressed"
    return "tested" if n_patients >= settings.test_from and level != UNKNOWN else "interval_only"


def metric_status(
    y_true: npt.NDArray[np.bool_], patient: npt.NDArray[np.integer], settings: FairnessSection, level: str = ""
) -> dict[str, str]:
    """Return the status of every metric of a subgroup, from the (n,) labels and patients of its studies."""
    with_positive, with_negative = patients_by_class(y_true, patient)
    of_positives = small_group_rule(with_positive, settings, level)
    return {
        "auroc": small_group_rule(min(with_positive, with_negative), settings, level),
        "tpr": of_positives,
        "fpr": small_group_rule(with_negative, settings, level),
        "udr": of_positives,
    }


def status_of(
    y_true: npt.NDArray[np.bool_], patient: npt.NDArray[np.integer], settings: FairnessSection, level: str = ""
) -> str:
    """Return the status of a metric that uses both classes of a subgroup's studies, such as AUROC."""
    return metric_status(y_true, patient, settings, level)["auroc"]

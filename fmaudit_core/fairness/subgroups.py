"""The four metrics of one subgroup of a score set, with intervals, under the small-group rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.clusters import cluster_sizes
from fmaudit_core.fairness.power import minimal_detectable_difference
from fmaudit_core.fairness.rates import rate
from fmaudit_core.fairness.score_sets import Studies
from fmaudit_core.fairness.small_groups import NO_THRESHOLD, status_of

BoolArray = npt.NDArray[np.bool_]


def metric_rows(
    whole: Studies, inside: BoolArray, level: str, settings: FairnessSection, alpha: float
) -> Iterator[dict[str, Any]]:
    """Rows of AUROC, TPR, FPR and UDR; numbers only where the rule shows them, rates only where there is a threshold.

    Parameters
    ----------
    whole : Studies
        All studies of the score set.
    inside : (n,) bool, those of the subgroup
    level : str
        Name of the subgroup.
    alpha : float
        Level of the test whose minimal detectable difference from the rest is told.
    """
    group = whole.only(inside)
    n_pos, n_neg = int(group.y_true.sum()), int((~group.y_true).sum())
    status = status_of(group.y_true, group.patient, settings, level)
    shown = status in ("tested", "interval_only")
    rest = _measured(whole.only(~inside)) if shown and not inside.all() else {}
    for metric, one in _measured(group).items():
        told = shown and one is not None
        row: dict[str, Any] = {"metric": metric, "status": status if told or not shown else NO_THRESHOLD}
        called = told and group.has_threshold
        row |= {
            "threshold": group.threshold if called else None,
            "threshold_source": group.threshold_source if called else None,
        }
        if told:
            low, high = one.interval(settings.confidence) or (None, None)
            row |= {"n": n_pos + n_neg, "n_pos": n_pos, "n_neg": n_neg, "value": one.value, "se": one.se}
            row |= {"ci_low": low, "ci_high": high, "n_patients": len(cluster_sizes(group.patient))}
            other = rest.get(metric)
            if other is not None and one.se is not None and other.se is not None:
                row["mde"] = minimal_detectable_difference(one.se, other.se, alpha)
        yield row


def _measured(studies: Studies) -> dict[str, Any]:
    ranked = auroc(studies.y_true, studies.y_score, studies.patient)
    if not studies.has_threshold:
        return {"auroc": ranked, "tpr": None, "fpr": None, "udr": None}
    called, y = studies.y_score >= studies.threshold, studies.y_true
    tpr, fpr = (rate(called[of], studies.patient[of]) for of in (y, ~y))
    if studies.draws is not None:
        tpr, fpr = (one.with_threshold_of(studies.y_score[of], studies.draws) for one, of in ((tpr, y), (fpr, ~y)))
    return {
        "auroc": ranked,
        "tpr": tpr,
        "fpr": fpr,
        "udr": tpr.complement(),
    }

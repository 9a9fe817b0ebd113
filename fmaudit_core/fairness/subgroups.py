"""AUROC, TPR, FPR and UDR of one subgroup of a score set, with intervals, under the small-group rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.cluster_sizes import n_patients
from fmaudit_core.fairness.power import minimal_detectable_difference
from fmaudit_core.fairness.rates import rate
from fmaudit_core.fairness.score_sets import Studies
from fmaudit_core.fairness.small_groups import NO_THRESHOLD, metric_status
from fmaudit_core.fairness.studentised import Scaled, scaled_auroc, scaled_rate

Float64Array = npt.NDArray[np.float64]

METRICS: Final = ("auroc", "tpr", "fpr", "udr")
_SHOWN: Final = ("tested", "interval_only")


@dataclass(frozen=True)
class Measured:
    """A metric of one subgroup: its table row, and its value on the metric's scale (0-dimensional; None if not shown)."""

    row: dict[str, Any]
    scaled: Scaled | None

    @property
    def tested(self) -> bool:
        """Return whether the metric may be compared with other subgroups."""
        return self.scaled is not None and self.row["status"] == "tested"


def measured(
    group: Studies, level: str, settings: FairnessSection, draws: Float64Array | None = None
) -> Iterator[Measured]:
    """Yield AUROC, TPR, FPR and UDR of a subgroup: values only if the rule shows them, rates only if there is a threshold.

    Parameters
    ----------
    group : Studies
        Studies of the subgroup.
    level : str
        Name of the subgroup.
    draws : (B,) float64, optional
        Bootstrap thresholds over validation patients; the threshold is treated as fixed if not given.
    """
    y, patient = group.y_true, group.patient
    status = metric_status(y, patient, settings, level)
    n_pos, n_neg = int(y.sum()), int((~y).sum())
    whole_group = status["auroc"] in _SHOWN
    for metric in METRICS:
        shown = status[metric] in _SHOWN
        estimated = shown and (metric == "auroc" or group.has_threshold)
        row: dict[str, Any] = {"metric": metric, "status": status[metric] if estimated or not shown else NO_THRESHOLD}
        called = estimated and group.has_threshold
        row |= {
            "threshold": group.threshold if called else None,
            "threshold_source": group.threshold_source if called else None,
        }
        if not estimated:
            yield Measured(row, None)
            continue
        # if a subgroup has few patients of one class, only the other class is counted
        if whole_group or metric in ("tpr", "udr"):
            row["n_pos"] = n_pos
        if whole_group or metric == "fpr":
            row["n_neg"] = n_neg
        if whole_group:
            row |= {"n": n_pos + n_neg, "n_patients": n_patients(patient)}
        value, scaled = _estimated(group, metric, draws)
        low, high = value.interval(settings.confidence) or (None, None)
        yield Measured(row | {"value": value.value, "se": value.se, "ci_low": low, "ci_high": high}, scaled)


def _estimated(group: Studies, metric: str, draws: Float64Array | None) -> tuple[Any, Scaled]:
    """Return one metric of studies that have the classes it needs, and its value on the metric's scale."""
    if metric == "auroc":
        ranked = group.ranked
        variance = np.nan if ranked.se is None else ranked.se**2
        fewest = float(ranked.fewest_patients)
        return ranked, scaled_auroc(np.asarray(ranked.value), np.asarray(variance), np.asarray(fewest))
    of = ~group.y_true if metric == "fpr" else group.y_true
    if metric == "tpr":
        share = rate(group.y_score[of] >= group.threshold, group.patient[of])
    else:
        share = group.missed if metric == "udr" else group.alarmed
    scaled = scaled_rate(*(np.asarray(one, dtype=float) for one in (share.value, share.n_effective, share.n_patients)))
    if draws is not None:
        share = share.with_threshold_of(group.y_score[of], draws)
    return share, scaled


def with_detectable(subgroups: Iterable[Measured], alpha: float) -> list[dict[str, Any]]:
    """Return the rows of one metric for the subgroups of an attribute, with `mde` against the other tested subgroups.

    Parameters
    ----------
    alpha : float
        Level of the test for the minimal detectable difference.
    """
    every = list(subgroups)
    rows = []
    for at, one in enumerate(every):
        row = dict(one.row)
        others = [other.scaled for place, other in enumerate(every) if place != at and other.tested and other.scaled]
        if one.scaled is not None and others:
            together = Scaled(*(np.array([getattr(each, name) for each in others]) for name in ("t", "v")))
            row["mde"] = minimal_detectable_difference(row["metric"], one.scaled, together, alpha)
        rows.append(row)
    return rows

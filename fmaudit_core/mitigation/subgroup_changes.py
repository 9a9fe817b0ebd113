"""Changes per subgroup: UDR and false-positive rate before and after, on the same studies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.intervals import difference_interval
from fmaudit_core.fairness.paired import Paired
from fmaudit_core.fairness.rates import rate
from fmaudit_core.fairness.small_groups import status_of
from fmaudit_core.mitigation.dataset import levels_of
from fmaudit_core.mitigation.variants import Baseline, Variant

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def tested_subgroups(
    level_of: pl.Series, y_true: BoolArray, patient: IntArray, settings: FairnessSection
) -> tuple[IntArray, list[str], list[tuple[str, str, BoolArray]]]:
    """Return each study's index among the tested subgroups or -1, (n,), their names, and all subgroups with status
    and studies.
    """
    levels = levels_of(level_of)
    group, tested, rules = np.full(len(y_true), -1, dtype=np.int64), list[str](), []
    for g, name in enumerate(levels.names):
        inside = levels.code == g
        rule = status_of(y_true[inside], patient[inside], settings, name)
        rules.append((name, rule, inside))
        if rule == "tested":
            group[inside] = len(tested)
            tested.append(name)
    return group, tested, rules


def subgroup_rows(
    base: Baseline,
    variant: Variant,
    attribute: str,
    rules: Sequence[tuple[str, str, BoolArray]],
    settings: FairnessSection,
) -> Iterator[dict[str, Any]]:
    """Yield a row of `MITIGATION_SUBGROUPS` per subgroup and metric; `rules` are the result of `tested_subgroups`."""
    for name, rule, inside in rules:
        for metric, of_class in (("udr", base.y), ("fpr", ~base.y)):
            row = variant.key | {"attribute": attribute, "subgroup": name, "metric": metric, "status": rule}
            row["chosen"] = variant.chosen
            if rule in ("tested", "interval_only"):
                studies = inside & of_class
                called = metric == "fpr"
                before = (base.called[studies] == called).astype(np.float64)
                after = (variant.called[:, studies] == called).mean(axis=0)
                low, high = change_interval(before, after, base.patient[studies], settings.confidence)
                row |= {
                    "n": int(studies.sum()),
                    "before": float(before.mean()),
                    "after": float(after.mean()),
                    "delta": float(after.mean() - before.mean()),
                    "ci_low": low,
                    "ci_high": high,
                }
            yield row


def change_interval(
    before: Float64Array, after: Float64Array, patient: IntArray, confidence: float
) -> tuple[float, float]:
    """Return the interval of the change of a share on the same studies, clustered by patient.

    Parameters
    ----------
    before, after : (n,) float64 of 0 and 1; `after` may be a mean over runs

    Notes
    -----
    If the change is the same for all patients, the paired standard error is 0 and not informative; both shares are then treated
    as unpaired (Newcombe 1998), which gives a wider interval.
    """
    change = after - before
    codes = np.unique(patient, return_inverse=True)[1]
    size = int(codes.max()) + 1
    off = np.bincount(codes, change - change.mean(), size)
    se = float(np.sqrt(size / max(size - 1, 1) * (off @ off)) / len(change))
    if se > 1e-12:
        found = Paired(float(after.mean()), float(before.mean()), se, size).interval(confidence)
        if found is not None:
            return found
    first, second = rate(after >= 0.5, patient), rate(before >= 0.5, patient)
    return difference_interval(
        float(after.mean()), first.interval(confidence) or (0.0, 1.0),
        float(before.mean()), second.interval(confidence) or (0.0, 1.0),
    )  # fmt: skip

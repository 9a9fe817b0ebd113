"""Every two score sets of a task on the studies both scored: differences over all and in each subgroup.

The difference of one pair: `paired.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.multiplicity import benjamini_hochberg
from fmaudit_core.fairness.paired import Paired, paired_auroc, paired_rate
from fmaudit_core.fairness.score_sets import OVERALL, levels
from fmaudit_core.fairness.small_groups import small_group_rule
from fmaudit_core.fairness.thresholds import SCORE_SET

#: what tells the two models of a comparison apart: all of a score set but its task
MODEL: Final = tuple(name for name in SCORE_SET if name != "task")
COMPARISONS_SCHEMA: Final = pl.Schema(
    {
        "task": pl.String,
        **dict.fromkeys(MODEL, pl.String),
        **dict.fromkeys([f"other_{name}" for name in MODEL], pl.String),
        "attribute": pl.String,
        "subgroup": pl.String,
        "metric": pl.String,
        "status": pl.String,
        "n": pl.Int64,
        "n_pos": pl.Int64,
        "n_neg": pl.Int64,
        "value": pl.Float64,
        "other_value": pl.Float64,
        "difference": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "p_value": pl.Float64,
        "q_value": pl.Float64,
        "p_non_inferior": pl.Float64,
        "non_inferior": pl.Boolean,
    }
)


def model_comparisons(test: pl.DataFrame, attributes: Sequence[str], settings: FairnessSection) -> pl.DataFrame:
    """Compare every two score sets of each task, on the studies that both scored.

    Parameters
    ----------
    test : frame
        Checked predictions of the evaluated split, with `threshold`.
    attributes : sequence of str

    Returns
    -------
    Frame of `COMPARISONS_SCHEMA`, empty where a task has one score set: `difference` is that of the first model minus the
    other; `non_inferior` whether the first is worse by less than the margin (AUROC: `auroc_margin`), tested one-sided. Only
    `tested` rows carry p, the q-values are over all of them.
    """
    rows = [
        row
        for _, of_task in test.group_by("task", maintain_order=True)
        for first, second in combinations(of_task.partition_by(*SCORE_SET, maintain_order=True), 2)
        for row in _pair(first, second, attributes, settings)
    ]
    out = pl.DataFrame(rows, schema=COMPARISONS_SCHEMA)
    p = out.get_column("p_value").fill_null(np.nan).to_numpy()
    return out.with_columns(q_value=pl.Series(benjamini_hochberg(p), dtype=pl.Float64).fill_nan(None))


def _pair(
    first: pl.DataFrame, second: pl.DataFrame, attributes: Sequence[str], settings: FairnessSection
) -> Iterator[dict[str, Any]]:
    named = {"task": first["task"][0]} | {name: first[name][0] for name in MODEL}
    named |= {f"other_{name}": second[name][0] for name in MODEL}
    scored = second.select("study_id", other_score="y_score", other_threshold="threshold")
    both = first.join(scored, on="study_id", how="inner", maintain_order="left")
    if both.is_empty():
        return
    arrays = _Both(
        y_true=both.get_column("y_true").to_numpy(),
        first=both.get_column("y_score").to_numpy(),
        second=both.get_column("other_score").to_numpy(),
        patient=both.get_column("patient_id").rank("dense").cast(pl.Int64).to_numpy(),
        thresholds=(both["threshold"][0], both["other_threshold"][0]),
    )
    for attribute in (OVERALL, *attributes):
        of_study = None if attribute == OVERALL else both.get_column(attribute).to_numpy()
        for level in levels(both, attribute):
            inside = arrays if of_study is None else arrays.only(of_study == level)
            yield from _rows(named | {"attribute": attribute, "subgroup": level}, inside, settings)


@dataclass(frozen=True)
class _Both:
    """Studies that two models scored."""

    y_true: npt.NDArray[np.bool_]
    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]
    patient: npt.NDArray[np.int64]
    thresholds: tuple[float, float]

    def only(self, inside: npt.NDArray[np.bool_]) -> _Both:
        """The studies of one subgroup."""
        return _Both(
            self.y_true[inside], self.first[inside], self.second[inside], self.patient[inside], self.thresholds
        )


def _rows(named: dict[str, Any], both: _Both, settings: FairnessSection) -> Iterator[dict[str, Any]]:
    y = both.y_true
    n_pos, n_neg = int(y.sum()), int((~y).sum())
    status = small_group_rule(n_pos, n_neg, settings, named["subgroup"])
    if status not in ("tested", "interval_only"):
        yield from (named | {"metric": metric, "status": status} for metric in ("auroc", "udr", "fpr"))
        return
    called, other = both.first >= both.thresholds[0], both.second >= both.thresholds[1]
    found = {
        "auroc": paired_auroc(y, both.first, both.second, both.patient),
        "udr": paired_rate(~called[y], ~other[y], both.patient[y]),
        "fpr": paired_rate(called[~y], other[~y], both.patient[~y]),
    }
    counts = {"status": status, "n": len(y), "n_pos": n_pos, "n_neg": n_neg}
    for metric, pair in found.items():
        if pair is not None:
            yield named | counts | {"metric": metric} | _told(pair, metric, settings, tested=status == "tested")


def _told(pair: Paired, metric: str, settings: FairnessSection, *, tested: bool) -> dict[str, Any]:
    low, high = pair.interval(settings.confidence) or (None, None)
    row: dict[str, Any] = {"value": pair.first, "other_value": pair.second, "difference": pair.difference}
    row |= {"ci_low": low, "ci_high": high}
    if tested:
        margin = settings.auroc_margin if metric == "auroc" else settings.margin
        p = pair.p_non_inferior(margin, higher_is_better=metric == "auroc")
        row |= {
            "p_value": pair.p_value(),
            "p_non_inferior": p,
            "non_inferior": None if p is None else p <= settings.alpha,
        }
    return row

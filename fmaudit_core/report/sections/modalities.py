"""What each modality adds, as the page shows it: a small table per outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from fmaudit_core.common import formatting
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.report.index.score_set_index import Row, ScoreSetIndex
from fmaudit_core.report.text.titles import variant_title

_MODELS: Final = {
    ("logistic", "ct"): "CT",
    ("logistic", "ehr"): "Record",
    ("gbm", "ehr"): "Record, boosted trees",
    ("logistic", "ct+ehr"): "CT and record, early fusion",
    ("late_fusion", "ct+ehr"): "CT and record, late fusion",
}


@dataclass(frozen=True)
class ModalityLine:
    """AUROC of a model of some modality as text, and what it has over CT and over the record alone."""

    model: str
    auroc: Estimate
    over_ct: Estimate
    p_over_ct: str
    over_ehr: Estimate
    p_over_ehr: str


@dataclass(frozen=True)
class ModalityView:
    """The models of a task, by the title of their encoder."""

    task: str
    outcome: str
    encoders: Sequence[tuple[str, Sequence[ModalityLine]]]


def modality_views(index: ScoreSetIndex, comparisons: pl.DataFrame) -> list[ModalityView]:
    """Return the table of every outcome, models in one order under each encoder; outcomes with too few studies have none."""
    rows = comparisons.drop_nulls("value").to_dicts()
    order, encoders = list(_MODELS), [one["name"] for one in index.encoders]
    views = []
    for task in index.tasks:
        of_task = [row for row in rows if row["task"] == task and row["encoder"] in encoders]
        of_task.sort(
            key=lambda row: (encoders.index(row["encoder"]), _place(order, row), row["probe"], row["modality"])
        )
        if of_task:
            by_encoder = [
                (index.named(name), [_line(row) for row in of_task if row["encoder"] == name]) for name in encoders
            ]
            views.append(
                ModalityView(
                    task, formatting.task_title(task, index.task_titles), [one for one in by_encoder if one[1]]
                )
            )
    return views


def _place(order: list[tuple[str, str]], row: Row) -> int:
    kind = (row["probe"], row["modality"])
    return order.index(kind) if kind in order else len(order)


def _line(row: Row) -> ModalityLine:
    variant = {name: row[name] for name in ("probe", "modality", "pooling")} | {"strategy": "none"}
    over_ct, over_ehr = (
        formatting.difference_estimate("auroc", row[name], row[f"{name}_low"], row[f"{name}_high"])
        for name in ("over_ct", "over_ehr")
    )
    return ModalityLine(
        model=_MODELS.get((row["probe"], row["modality"])) or variant_title(variant),
        auroc=formatting.estimate("auroc", row),
        over_ct=over_ct,
        p_over_ct=formatting.p_number(row["p_over_ct"]),
        over_ehr=over_ehr,
        p_over_ehr=formatting.p_number(row["p_over_ehr"]),
    )

"""What each modality adds, as the page shows it: a small table per outcome."""

from __future__ import annotations

from typing import Final

import polars as pl

from fmaudit_core.report.index.score_set_index import Row, ScoreSetIndex
from fmaudit_core.report.text import formatting

_MODELS: Final = {
    ("logistic", "ct"): "CT",
    ("logistic", "ehr"): "Record",
    ("gbm", "ehr"): "Record, boosted trees",
    ("logistic", "ct+ehr"): "CT and record, early fusion",
    ("late_fusion", "ct+ehr"): "CT and record, late fusion",
}


def modality_views(index: ScoreSetIndex, comparisons: pl.DataFrame) -> list[Row]:
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
            views.append(
                {
                    "task": task,
                    "outcome": formatting.task_title(task, index.task_titles),
                    "encoders": [
                        (index.named(name), [_line(row) for row in rows])
                        for name in encoders
                        if (rows := [row for row in of_task if row["encoder"] == name])
                    ],
                }
            )
    return views


def _place(order: list[tuple[str, str]], row: Row) -> int:
    kind = (row["probe"], row["modality"])
    return order.index(kind) if kind in order else len(order)


def _line(row: Row) -> Row:
    variant = {name: row[name] for name in ("probe", "modality", "pooling")} | {"strategy": "none"}
    line = {
        "model": _MODELS.get((row["probe"], row["modality"])) or formatting.variant_title(variant),
        "value": formatting.level("auroc", row["value"]),
        "interval": formatting.interval("auroc", row["ci_low"], row["ci_high"]),
    }
    for name in ("ct", "ehr"):
        line[f"over_{name}"] = formatting.difference("auroc", row[f"over_{name}"])
        line[f"over_{name}_interval"] = formatting.difference_interval(
            "auroc", row[f"over_{name}_low"], row[f"over_{name}_high"]
        )
        line[f"p_over_{name}"] = formatting.p_number(row[f"p_over_{name}"])
    return line

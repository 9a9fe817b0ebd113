"""Rows of predictions that contradict each other: a study has one patient, split and level, and one label per task."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.normal_form import ROW, rows_of


def refuse_contradictions(frame: pl.DataFrame, attributes: Sequence[str]) -> None:
    """Refuse rows that give one study different patients, splits, levels or (per task) labels.

    A gap of the second model would otherwise be computed with the subgroups of the first.

    Raises
    ------
    FairnessError
        Names the columns and the rows.
    """
    if not frame.get_column("study_id").is_duplicated().any():
        return
    found = _differing(frame, ["study_id"], ["patient_id", "split", *attributes])
    found += _differing(frame, ["study_id", "task"], ["y_true"])
    if found:
        raise FairnessError(
            f"rows of one study contradict each other: {'; '.join(found)}.",
            fix="Each study has one patient, one split and one level of each attribute, and one label per task. Check how "
            "the rows of the models were joined.",
        )


def _differing(frame: pl.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> list[str]:
    by_key = frame.lazy().group_by(keys).agg((pl.col(name).min() != pl.col(name).max()).alias(name) for name in columns)
    wrong = by_key.filter(pl.any_horizontal(columns)).collect()
    said = []
    for name in columns:
        studies = wrong.filter(name).select(keys)
        if studies.height:
            rows = frame.select(*keys, ROW).join(studies, on=list(keys), how="semi")
            count = "one study" if studies.height == 1 else f"{studies.height:,} studies"
            said.append(f"{name} differs for {count} ({rows_of(rows)})")
    return said

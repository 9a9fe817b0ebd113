"""The cohort: the rules it is made by, its subgroups, and how baselines were joined to it. Outcomes: `outcomes.py`."""

from __future__ import annotations

from typing import Any

from fmaudit_core.cohort.outcomes import OUTCOME_KNOWN
from fmaudit_core.common import vocabulary
from fmaudit_core.report.index.score_set_index import Row, ScoreSetIndex
from fmaudit_core.report.input.report_input import OVERALL
from fmaudit_core.report.text import formatting


def cohort_table(index: ScoreSetIndex, rows: list[Row]) -> list[Row]:
    """Return studies per attribute and subgroup, splits across."""
    splits = ("train", "val", "test")
    groups: dict[str, dict[str, Row]] = {}
    for row in rows:
        groups.setdefault(row["attribute"], {}).setdefault(row["subgroup"], {})[row["split"]] = row
    configured = list(index.audit.attributes)
    order = sorted(groups, key=lambda name: (configured.index(name) if name in configured else len(configured), name))
    return [
        {
            "attribute": formatting.attribute_title(attribute),
            "rows": [
                {
                    "title": vocabulary.subgroup_title(subgroup),
                    "cells": [_count_cell(of.get(split)) for split in splits],
                }
                for subgroup, of in sorted(groups[attribute].items(), key=lambda item: (item[0] == "unknown", item[0]))
            ],
        }
        for attribute in order
        if attribute != OVERALL
    ]


def _count_cell(row: Row | None) -> str:
    if row is None:
        return formatting.NONE
    return formatting.count(row["n_studies"], row["counts"])


def flow_step(index: ScoreSetIndex, row: dict[str, Any]) -> dict[str, Any]:
    """Return a step of the cohort flow; known outcomes are counted independently, none after another."""
    head, _, task = row["step"].partition(": ")
    outcome = formatting.task_title(task, index.task_titles) if head == OUTCOME_KNOWN else ""
    return {**row, "step": formatting.step_title(row["step"], index.task_titles), "outcome": outcome}


def baseline_row(index: ScoreSetIndex, row: dict[str, Any], least: int) -> dict[str, Any]:
    """Return how a baseline's predictions were joined, with small counts of studies withheld."""
    return {
        **{name: _few(one, least) if name.startswith("n_") else one for name, one in row.items()},
        "apart": f"{_few(row['n_labels_apart'], least)} of {_few(row['n_labels'], least)}" if row["n_labels"] else "none given",
        "title": index.encoder_title(row["encoder"]), "outcome": formatting.task_title(row["task"], index.task_titles),
    }  # fmt: skip


def _few(n: int, least: int) -> str:
    return f"fewer than {least}" if 0 < n < least else formatting.count(n)

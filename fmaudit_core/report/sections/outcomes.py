"""Known and censored outcomes by subgroup, and notes on the files, as the page shows them."""

from __future__ import annotations

from typing import Any

from fmaudit_core.common import vocabulary
from fmaudit_core.report.index.score_set_index import ScoreSetIndex
from fmaudit_core.report.input.report_input import OVERALL
from fmaudit_core.report.text import formatting

Row = dict[str, Any]


def label_flow_view(index: ScoreSetIndex, rows: list[Row]) -> list[Row]:
    """Return a table of the page per task: all studies, then subgroups, with the share that is censored."""
    out = []
    for task in index.tasks:
        of_task = [row for row in rows if row["task"] == task]
        groups = [
            {
                "attribute": formatting.attribute_title(name),
                "rows": [_line(row) for row in _by_name(of_task) if row["attribute"] == name],
            }
            for name in index.audit.attributes
        ]
        whole = next((row for row in of_task if row["attribute"] == OVERALL), None)
        if whole is not None:
            shown = [group for group in groups if group["rows"]]
            out.append({"task": formatting.task_title(task, index.task_titles), "whole": _line(whole), "groups": shown})
    return out


def _by_name(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["subgroup"] == "unknown", row["subgroup"]))


def _line(row: Row) -> Row:
    withheld, rounded = row["counts"] == "withheld", row["counts"] == "rounded"
    share = None if withheld or not row["n_studies"] else row["n_censored"] / row["n_studies"]
    return {
        "title": "All studies" if row["attribute"] == OVERALL else vocabulary.subgroup_title(row["subgroup"]),
        "withheld": withheld,
        "known": formatting.count(row["n_known"], row["counts"]),
        "censored": formatting.count(row["n_censored"], row["counts"]),
        "share": formatting.percent(share, 0 if rounded else 1),
    }


def notes_view(rows: list[Row], least: int) -> list[Row]:
    """Return notes as the page shows them."""
    return [
        {
            "note": row["note"][:1].upper() + row["note"][1:],
            "n": f"fewer than {least}" if row["few"] else formatting.count(row["n"]),
            "unit": row["unit"],
            "detail": row["detail"],
        }
        for row in rows
    ]

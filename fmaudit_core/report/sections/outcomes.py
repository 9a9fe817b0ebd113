"""Known and censored outcomes by subgroup, and notes on the files, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fmaudit_core.common import formatting
from fmaudit_core.common.vocabulary import OVERALL
from fmaudit_core.report.index.score_set_index import ScoreSetIndex

Row = dict[str, Any]


@dataclass(frozen=True)
class OutcomeLine:
    """Known and censored outcomes of all studies or of a subgroup, as text; without a number if `withheld`."""

    title: str
    withheld: bool
    known: str
    censored: str
    share: str


@dataclass(frozen=True)
class OutcomesView:
    """The outcomes of a task: of all studies, and of the subgroups of each attribute by its title."""

    task: str
    whole: OutcomeLine
    groups: Sequence[tuple[str, Sequence[OutcomeLine]]]


@dataclass(frozen=True)
class NoteView:
    """A note on the files as text."""

    note: str
    n: str
    unit: str
    detail: str


def label_flow_views(index: ScoreSetIndex, rows: list[Row]) -> list[OutcomesView]:
    """Return a table of the page per task: all studies, then subgroups, with the share that is censored."""
    out = []
    for task in index.tasks:
        of_task = [row for row in rows if row["task"] == task]
        groups = [
            (
                formatting.attribute_title(name),
                [_line(row) for row in _by_name(of_task) if row["attribute"] == name],
            )
            for name in index.audit.attributes
        ]
        whole = next((row for row in of_task if row["attribute"] == OVERALL), None)
        if whole is not None:
            shown = [group for group in groups if group[1]]
            out.append(OutcomesView(formatting.task_title(task, index.task_titles), _line(whole), shown))
    return out


def _by_name(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["subgroup"] == "unknown", row["subgroup"]))


def _line(row: Row) -> OutcomeLine:
    withheld, rounded = row["counts"] == "withheld", row["counts"] == "rounded"
    share = None if withheld or not row["n_studies"] else row["n_censored"] / row["n_studies"]
    return OutcomeLine(
        title=formatting.group_title(row["attribute"], row["subgroup"]),
        withheld=withheld,
        known=formatting.count(row["n_known"], row["counts"]),
        censored=formatting.count(row["n_censored"], row["counts"]),
        share=formatting.percent(share, 0 if rounded else 1),
    )


def note_views(rows: list[Row], least: int) -> list[NoteView]:
    """Return notes as the page shows them."""
    return [
        NoteView(
            note=row["note"][:1].upper() + row["note"][1:],
            n=f"fewer than {least}" if row["few"] else formatting.count(row["n"]),
            unit=row["unit"],
            detail=row["detail"],
        )
        for row in rows
    ]

"""The cohort: the rules it is made by, its subgroups, and how baselines were joined to it. Outcomes: `outcomes.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fmaudit_core.cohort.outcomes import OUTCOME_KNOWN
from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.common.vocabulary import OVERALL
from fmaudit_core.report.index.score_set_index import Row, ScoreSetIndex
from fmaudit_core.report.text.titles import step_title


@dataclass(frozen=True)
class CohortGroup:
    """Studies of an attribute: the title of each subgroup with a count per split."""

    attribute: str
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class FlowStep:
    """A step of the cohort flow; `outcome` is the task if the step counts known outcomes, and no rule."""

    step: str
    outcome: str
    n_studies: int
    n_patients: int


@dataclass(frozen=True)
class BaselineView:
    """How the predictions of a baseline were joined, as text; small counts are withheld."""

    title: str
    outcome: str
    joined_by: str
    threshold: str
    n_rows: str
    n_scored: str
    n_missed: str
    n_unscored: str
    apart: str


def cohort_groups(index: ScoreSetIndex, rows: list[Row]) -> list[CohortGroup]:
    """Return studies per attribute and subgroup, splits across."""
    groups: dict[str, dict[str, Row]] = {}
    for row in rows:
        groups.setdefault(row["attribute"], {}).setdefault(row["subgroup"], {})[row["split"]] = row
    configured = list(index.audit.attributes)
    order = sorted(groups, key=lambda name: (configured.index(name) if name in configured else len(configured), name))
    return [
        CohortGroup(
            formatting.attribute_title(attribute),
            [
                (vocabulary.subgroup_title(subgroup), [_count_cell(of.get(split)) for split in vocabulary.SPLITS])
                for subgroup, of in sorted(groups[attribute].items(), key=lambda item: (item[0] == "unknown", item[0]))
            ],
        )
        for attribute in order
        if attribute != OVERALL
    ]


def _count_cell(row: Row | None) -> str:
    if row is None:
        return formatting.NONE
    return formatting.count(row["n_studies"], row["counts"])


def flow_step(index: ScoreSetIndex, row: Row) -> FlowStep:
    """Return a step of the cohort flow; known outcomes are counted independently, none after another."""
    head, _, task = row["step"].partition(": ")
    outcome = formatting.task_title(task, index.task_titles) if head == OUTCOME_KNOWN else ""
    return FlowStep(step_title(row["step"], index.task_titles), outcome, row["n_studies"], row["n_patients"])


def baseline_view(index: ScoreSetIndex, row: Row, least: int) -> BaselineView:
    """Return how a baseline's predictions were joined, with small counts of studies withheld."""
    apart = f"{_few(row['n_labels_apart'], least)} of {_few(row['n_labels'], least)}"
    return BaselineView(
        title=index.encoder_title(row["encoder"]),
        outcome=formatting.task_title(row["task"], index.task_titles),
        joined_by=row["joined_by"],
        threshold=row["threshold"],
        n_rows=_few(row["n_rows"], least),
        n_scored=_few(row["n_scored"], least),
        n_missed=_few(row["n_missed"], least),
        n_unscored=_few(row["n_unscored"], least),
        apart=apart if row["n_labels"] else "none given",
    )


def _few(n: int, least: int) -> str:
    return f"fewer than {least}" if 0 < n < least else formatting.count(n)

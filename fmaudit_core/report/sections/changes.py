"""An encoder against itself in the audit before, as the page shows it: which subgroup got worse, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fmaudit_core.common import formatting
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.common.vocabulary import OVERALL
from fmaudit_core.report.index.score_set_index import Key, Row, ScoreSetIndex

#: changes of a model that the page shows besides all worsenings; the CSV has them all
_MOST: Final = 12


@dataclass(frozen=True)
class ChangeLine:
    """A metric of a group in the previous audit and in this one, as text, and whether the group got worse."""

    group: str
    metric: str
    n: str
    before: str
    now: str
    change: Estimate
    p: str
    q: str
    worse: bool


@dataclass(frozen=True)
class ModelChanges:
    """Changes of a model: every worsening and some of the other comparisons, `more` of which are in the CSV alone."""

    encoder: str
    outcome: str
    n_worse: int
    sentence: str
    rows: Sequence[ChangeLine]
    more: int


def changes_views(index: ScoreSetIndex) -> list[ModelChanges]:
    """Return the changes of every model that was audited before."""
    return [_model(index, key, rows) for key, rows in index.changes()]


def _model(index: ScoreSetIndex, key: Key, rows: list[Row]) -> ModelChanges:
    worse = [row for row in rows if row["worse"]]
    others = [row for row in rows if not row["worse"] and row["p_value"] is not None]
    others.sort(key=lambda row: (row["attribute"] != OVERALL, row["p_value"]))
    shown = sorted(worse, key=lambda row: -abs(row["change"])) + others[:_MOST]
    return ModelChanges(
        encoder=index.encoder_title(key.encoder),
        outcome=index.outcome(key),
        n_worse=len(worse),
        sentence=_sentence(worse, len(others)),
        rows=[_line(row) for row in shown],
        more=len(others) - len(others[:_MOST]),
    )


def _sentence(worse: list[Row], n_others: int) -> str:
    if not worse:
        return f"No group got worse beyond the margin, of {n_others} comparisons."
    named = list(dict.fromkeys(formatting.group_label(row["attribute"], row["subgroup"]) for row in worse))
    return f"Worse beyond the margin, and by more than chance explains: {'; '.join(named)}."


def _line(row: Row) -> ChangeLine:
    metric, rounded = row["metric"], row["counts"] == "rounded"
    return ChangeLine(
        group=formatting.group_label(row["attribute"], row["subgroup"]),
        metric=formatting.metric_title(metric),
        n=formatting.count(row["n"], row["counts"]),
        before=formatting.level(metric, row["previous_value"], rounded=rounded),
        now=formatting.level(metric, row["value"], rounded=rounded),
        change=formatting.difference_estimate(metric, row["change"], row["ci_low"], row["ci_high"], rounded=rounded),
        p=formatting.p_number(row["p_value"]),
        q=formatting.p_number(row["q_worse"]),
        worse=bool(row["worse"]),
    )

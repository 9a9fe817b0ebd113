"""Whether gaps go with the numbers of training studies: refits with equal counts in words, with their learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from fmaudit_core.common import formatting
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.common.vocabulary import subgroup_title
from fmaudit_core.report.index.score_set_index import Key, Row, ScoreSetIndex, by_key

_UDR: Final = "udr"


@dataclass(frozen=True)
class CountsLine:
    """A subgroup as text: its training studies with the outcome, its gap under each refit, and its learning curve."""

    attribute: str
    subgroup: str
    n_train: str
    each: str
    gap_all: str
    gap_random: str
    gap_equal: str
    contrast: Estimate
    p: str
    change: Estimate
    rest_change: Estimate
    curve: str
    note: str


@dataclass(frozen=True)
class CountsView:
    """The refits of one encoder and task: sentences on the subgroups that are missed most, and every row."""

    encoder: str
    outcome: str
    sentences: Sequence[str]
    lines: Sequence[CountsLine]


def training_count_views(index: ScoreSetIndex, counts: pl.DataFrame, curves: pl.DataFrame) -> list[CountsView]:
    """Return a view per encoder and task with refits."""
    of_key = by_key(counts)
    values: dict[tuple[Key, str, str], list[float]] = {}
    for row in curves.sort("step").iter_rows(named=True):
        values.setdefault((Key.of(row), row["attribute"], row["subgroup"]), []).append(row["value"])
    return [_view(index, key, of_key[key], values) for key in index.keys if key in of_key]


def _view(
    index: ScoreSetIndex, key: Key, rows: Sequence[Row], curves: Mapping[tuple[Key, str, str], list[float]]
) -> CountsView:
    sentences = [
        counts_sentence(row)
        for row in rows
        if (index.finding(key, row["attribute"], _UDR) or {}).get("worst_subgroup") == row["subgroup"]
    ]
    lines = [_line(row, curves.get((key, row["attribute"], row["subgroup"]), [])) for row in rows]
    outcome = index.outcome(key)
    return CountsView(index.named(key.encoder), outcome, sentences, lines)


def counts_sentence(row: Row) -> str:
    """Return what becomes of a gap with equal training counts; no cause is claimed.

    Parameters
    ----------
    row : a row of `training_counts`
    """
    whom = f"{formatting.attribute_title(row['attribute'])}, {subgroup_title(row['subgroup'])}"
    if row["status"] != "tested":
        return f"{whom}: some subgroup has too few training studies to refit the probe with equal counts."
    random, equal = (formatting.difference(_UDR, row[name], rounded=True) for name in ("gap_random", "gap_equal"))
    contrast = _difference(row, "gap_contrast")
    text = (
        f"{whom}: with the probe refitted on equally many training studies of every subgroup, share missed (UDR) differs from "
        f"the other subgroups by {equal}; refitted on as many studies drawn at random, by {random}. So {contrast} of the gap "
        f"goes with the mix of training studies ({formatting.exploratory_p_text(row['gap_contrast_p'])})."
    )
    own, rest = row["subgroup_change"], row["rest_change"]
    if row["gap_random"] > 0 and row["gap_contrast"] > 0 and rest > max(-own, 0.0):
        text += (
            f" The gap narrows mostly because the others get worse: they are missed {formatting.points(rest, 0)} more often, and "
            f"this subgroup {_changed(own)}."
        )
    elif row["gap_random"] > 0 and row["gap_contrast"] > 0:
        text += f" This subgroup is missed {_changed(own)}, the others {_changed(rest)}."
    return text


def _changed(value: float) -> str:
    if not round(100 * value):
        return "as often as before"
    return f"{formatting.points(abs(value), 0)} {'more' if value > 0 else 'less'} often"


def _line(row: Row, curve: Sequence[float]) -> CountsLine:
    gaps = (formatting.difference(_UDR, row[name], rounded=True) for name in ("gap_all", "gap_random", "gap_equal"))
    gap_all, gap_random, gap_equal = gaps
    return CountsLine(
        attribute=formatting.attribute_title(row["attribute"]),
        subgroup=subgroup_title(row["subgroup"]),
        n_train=formatting.count(row["n_pos"], "rounded"),
        each=formatting.count(row["n_pos_each"], "rounded"),
        gap_all=gap_all,
        gap_random=gap_random,
        gap_equal=gap_equal,
        contrast=_difference(row, "gap_contrast"),
        p=formatting.p_number(row["gap_contrast_p"]),
        change=_difference(row, "subgroup_change"),
        rest_change=_difference(row, "rest_change"),
        curve=", ".join(formatting.percent(one, 0) for one in curve) or formatting.NONE,
        note="" if row["status"] == "tested" else "Too few training studies",
    )


def _difference(row: Row, name: str) -> Estimate:
    ends = (row[name], row[f"{name}_low"], row[f"{name}_high"])
    return formatting.difference_estimate(_UDR, *ends, rounded=True)

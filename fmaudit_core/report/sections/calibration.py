"""Is it the ranking, or are scores shifted: calibration of each subgroup and AUROC across subgroups, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.common.vocabulary import OVERALL
from fmaudit_core.report.figures import base as figures
from fmaudit_core.report.figures import calibration as calibration_figures
from fmaudit_core.report.index.score_set_index import Key, Row, ScoreSetIndex


def calibration_view(index: ScoreSetIndex, key: Key) -> CalibrationSection | None:
    """Return calibration of a score set; None if the table has nothing."""
    rows = index.calibration(key)
    if not rows:
        return None
    groups: dict[str, list[CalibrationView]] = {}
    for row in rows:
        groups.setdefault(row["attribute"], []).append(_calibrated(row))
    overall = next(iter(groups.pop(OVERALL, [])), None)
    shown = [CalibrationGroup(formatting.attribute_title(name), of) for name, of in groups.items()]
    return CalibrationSection(_probabilities(rows), overall, shown)


def gives_probabilities(index: ScoreSetIndex, key: Key) -> bool:
    """Return whether the scores of a score set lie between 0 and 1: as its calibration was judged, else by its thresholds."""
    rows = index.calibration(key)
    if rows:
        return _probabilities(rows)
    thresholds = [row["threshold"] for attribute in index.attributes(key) for row in index.curves(key, attribute)]
    # the last threshold calls nobody positive, so it lies just above the highest score
    return all(-1e-6 <= one <= 1 + 1e-6 for one in thresholds)


def _probabilities(rows: list[Row]) -> bool:
    return not any(row["status"] == "not_probability" for row in rows)


@dataclass(frozen=True)
class CalibrationView:
    """Calibration of all studies or of a subgroup as text; without a number if `withheld`.

    Parameters
    ----------
    slope, intercept : 1 and 0 are right
    ece, by_chance : the calibration error, and that of a perfectly calibrated model in as many studies
    """

    title: str
    withheld: bool
    n: str
    slope: Estimate
    intercept: Estimate
    ece: str
    by_chance: str
    note: str


@dataclass(frozen=True)
class CalibrationGroup:
    """The subgroups of an attribute."""

    attribute: str
    rows: Sequence[CalibrationView]


@dataclass(frozen=True)
class CalibrationSection:
    """Calibration of a score set; `probabilities` is false if its scores are none."""

    probabilities: bool
    overall: CalibrationView | None
    groups: Sequence[CalibrationGroup]


def _calibrated(row: Row) -> CalibrationView:
    rounded = row["counts"] == "rounded"
    decimals = 2 if rounded else 3
    separated = row["counts"] != "withheld" and row["ece"] is not None and row["slope"] is None
    return CalibrationView(
        title=formatting.group_title(row["attribute"], row["subgroup"]),
        withheld=row["counts"] == "withheld",
        n=formatting.count(row["n"], row["counts"]),
        slope=formatting.signed_estimate(row["slope"], row["slope_low"], row["slope_high"], 2),
        intercept=Estimate(
            formatting.signed(row["intercept"], 2),
            formatting.between(row["intercept_low"], row["intercept_high"], 2),
        ),
        ece=formatting.signed(row["ece"], decimals, plus=False),
        by_chance=formatting.signed(row["ece_by_chance"], decimals, plus=False),
        note="scores separate the classes" if separated else _note(row["status"]),
    )


def _note(status: str) -> str:
    return "interval only" if status == "interval_only" else ""


def calibration_figure(index: ScoreSetIndex, key: Key) -> figures.Spec | None:
    """Return slope and calibration in the large of each subgroup; None if scores are no probabilities or nothing is shown."""
    rows = index.calibration(key)
    shown = [row for row in rows if row["ece"] is not None]
    if not shown or not _probabilities(rows):
        return None
    return calibration_figures.calibration([_dot(row) for row in rows if row["counts"] != "withheld"])


def _dot(row: Row) -> dict[str, Any]:
    shown = _calibrated(row)
    hover = (
        f"<b>{figures.plain(shown.title)}</b><br>slope {shown.slope}<br>"
        f"in the large {shown.intercept}<br>error {shown.ece}, of a perfectly calibrated "
        f"model {shown.by_chance}<br>{shown.n} studies"
    )
    attribute = "" if row["attribute"] == OVERALL else formatting.attribute_title(row["attribute"])
    measures = {
        name: {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"], "hover": hover}
        for name in ("slope", "intercept")
    }
    return {
        **measures,
        "attribute": attribute and figures.tick_label(attribute),
        "of": attribute,
        "label": figures.tick_label(shown.title),
        "tested": row["status"] == "tested",
        "aside": f"{shown.ece} · {shown.by_chance}",
    }


@dataclass(frozen=True)
class CrossCell:
    """Cross-group AUROC of a pair of subgroups: the darker its `shade` the higher, `hatched` if too few to test."""

    text: str
    interval: str
    shade: int
    hatched: bool
    tip: str


@dataclass(frozen=True)
class CrossView:
    """A matrix: positives of the subgroup of each row, by its title, against negatives of the level of each column."""

    attribute: str
    levels: Sequence[str]
    rows: Sequence[tuple[str, Sequence[CrossCell]]]


def cross_views(index: ScoreSetIndex, key: Key) -> list[CrossView]:
    """Return a matrix per attribute: positives of the row's subgroup against negatives of the column's."""
    views = []
    for attribute in index.attributes(key):
        pairs = index.cross(key, attribute)
        order = [row["subgroup"] for row in index.subgroups(key, "auroc", attribute)]
        known = {name for pair in pairs for name in pair}
        levels = [name for name in order if name in known]
        if len(levels) > 1:
            titles = [vocabulary.subgroup_title(name) for name in levels]
            cells = [[_pair(pairs.get((first, second))) for second in levels] for first in levels]
            views.append(
                CrossView(formatting.attribute_title(attribute), titles, list(zip(titles, cells, strict=True)))
            )
    return views


def _pair(row: Row | None) -> CrossCell:
    if row is None or row["value"] is None:
        return CrossCell(text=formatting.NONE, interval="", shade=0, hatched=False, tip="not computed")
    rounded = row["counts"] == "rounded"
    counts = (formatting.count(row[name], row["counts"]) for name in ("n_pos", "n_neg"))
    return CrossCell(
        *formatting.estimate("xauc", row, rounded=rounded),
        shade=formatting.auroc_shade(row["value"]),
        hatched=row["status"] != "tested",
        tip="{} with, {} without the outcome{}".format(*counts, "" if row["status"] == "tested" else "; interval only"),
    )

"""Is it the ranking, or are scores shifted: calibration of each subgroup and AUROC across subgroups, as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fmaudit_core.common import vocabulary
from fmaudit_core.report.figures import base as figures
from fmaudit_core.report.figures import calibration as calibration_figures
from fmaudit_core.report.index.score_set_index import Key, Row, ScoreSetIndex
from fmaudit_core.report.input.report_input import OVERALL
from fmaudit_core.report.text import formatting


def calibration_view(index: ScoreSetIndex, key: Key) -> Row | None:
    """Return calibration of a score set: None if the table has nothing, `probabilities` false where scores are none."""
    rows = index.calibration(key)
    if not rows:
        return None
    groups: dict[str, list[CalibrationView]] = {}
    for row in rows:
        groups.setdefault(row["attribute"], []).append(_calibrated(row))
    return {
        "probabilities": _probabilities(rows),
        "overall": next(iter(groups.pop(OVERALL, [])), None),
        "groups": [{"attribute": formatting.attribute_title(name), "rows": of} for name, of in groups.items()],
    }


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
    slope, intercept : 1 and 0 are right, with their intervals
    ece, by_chance : the calibration error, and that of a perfectly calibrated model in as many studies
    """

    title: str
    withheld: bool
    n: str
    slope: str
    slope_interval: str
    intercept: str
    intercept_interval: str
    ece: str
    by_chance: str
    note: str


def _calibrated(row: Row) -> CalibrationView:
    rounded = row["counts"] == "rounded"
    decimals = 2 if rounded else 3
    separated = row["counts"] != "withheld" and row["ece"] is not None and row["slope"] is None
    return CalibrationView(
        title="All studies" if row["attribute"] == OVERALL else vocabulary.subgroup_title(row["subgroup"]),
        withheld=row["counts"] == "withheld",
        n=formatting.count(row["n"], row["counts"]),
        slope=formatting.signed(row["slope"], 2, plus=False),
        slope_interval=formatting.between(row["slope_low"], row["slope_high"], 2),
        intercept=formatting.signed(row["intercept"], 2),
        intercept_interval=formatting.between(row["intercept_low"], row["intercept_high"], 2),
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
        f"<b>{figures.plain(shown.title)}</b><br>slope {shown.slope} ({shown.slope_interval})<br>"
        f"in the large {shown.intercept} ({shown.intercept_interval})<br>error {shown.ece}, of a perfectly calibrated "
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


def cross_views(index: ScoreSetIndex, key: Key) -> list[Row]:
    """Return a matrix per attribute: positives of the row's subgroup against negatives of the column's."""
    views = []
    for attribute in index.attributes(key):
        pairs = index.cross(key, attribute)
        order = [row["subgroup"] for row in index.subgroups(key, "auroc", attribute)]
        known = {name for pair in pairs for name in pair}
        levels = [name for name in order if name in known]
        if len(levels) > 1:
            views.append(
                {
                    "attribute": formatting.attribute_title(attribute),
                    "levels": [vocabulary.subgroup_title(name) for name in levels],
                    "rows": [
                        {
                            "title": vocabulary.subgroup_title(first),
                            "cells": [_pair(pairs.get((first, second))) for second in levels],
                        }
                        for first in levels
                    ],
                }
            )
    return views


def _pair(row: Row | None) -> Row:
    if row is None or row["value"] is None:
        return {"text": formatting.NONE, "interval": "", "shade": 0, "hatched": False, "tip": "not computed"}
    rounded = row["counts"] == "rounded"
    counts = (formatting.count(row[name], row["counts"]) for name in ("n_pos", "n_neg"))
    return {
        "text": formatting.level("xauc", row["value"], rounded=rounded),
        "interval": formatting.interval("xauc", row["ci_low"], row["ci_high"], rounded=rounded),
        "shade": min(4, max(0, int((row["value"] - 0.5) * 10))),
        "hatched": row["status"] != "tested",
        "tip": "{} with, {} without the outcome{}".format(
            *counts, "" if row["status"] == "tested" else "; interval only"
        ),
    }

"""Dots with intervals next to a line of reference: calibration of subgroups, two models. Other figures: `base.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fmaudit_core.common.formatting import MINUS, metric_title
from fmaudit_core.report.figures.base import ROW_PX, Spec, Stack, aside, line, marks

#: intervals of small subgroups reach far: the axis ends here, the table says where they end
_SLOPES: Final = (-0.5, 3.0)
_INTERCEPTS: Final = (-2.5, 2.5)


def calibration(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Return slope and calibration in the large of subgroups below one another, each before the line of a right model.

    Parameters
    ----------
    rows : sequence of mappings
        In the order of display: `attribute` (title, empty for all studies), `of` (the page filters by it), `label`, `slope` and
        `intercept` (each a mapping of `value`, `low`, `high`, `hover`), `tested`, `aside`.
    """
    stack, data = Stack.of(rows), []
    for measure, axis in (("slope", "x"), ("intercept", "x2")):
        for tested, symbol in ((True, "circle"), (False, "circle-open")):
            chosen = [
                (place, row[measure])
                for place, row in stack.rows
                if row["tested"] is tested and row[measure]["value"] is not None
            ]
            if chosen:
                data.append({**marks(chosen, 1.0, "@accent", symbol, measure), "xaxis": axis, "cliponaxis": True})
    slopes, intercepts = ([row[name] for row in rows] for name in ("slope", "intercept"))
    return {
        "data": data,
        "layout": {
            "meta": stack.parts,
            "height": 84 + ROW_PX * stack.height,
            "margin": {"l": 142, "r": 138, "t": 30, "b": 46},
            "xaxis": {
                "title": {"text": "Slope"}, "domain": [0.0, 0.47], "nticks": 5, "range": _range(slopes, 1.0, _SLOPES),
            },
            "xaxis2": {
                "title": {"text": "In the large"}, "domain": [0.53, 1.0], "nticks": 5,
                "range": _range(intercepts, 0.0, _INTERCEPTS),
            },
            "yaxis": stack.axis,
            "annotations": [*stack.asides, aside(-0.55, "<i>error · if perfect</i>", "bottom")],
            "shapes": [line(1.0), {**line(0.0), "xref": "x2"}],
            "showlegend": False,
            "hovermode": "closest",
        },
    }  # fmt: skip


def _range(rows: Sequence[Mapping[str, Any]], right: float, ends: tuple[float, float]) -> list[float]:
    """From the lowest interval to the highest and the right value between, within the ends."""
    lows = [row["low"] for row in rows if row["low"] is not None]
    highs = [row["high"] for row in rows if row["high"] is not None]
    low, high = max(ends[0], min([right, *lows])), min(ends[1], max([right, *highs]))
    pad = 0.05 * max(high - low, 0.2)
    return [round(low - pad, 3), round(high + pad, 3)]


def differences(rows: Sequence[Mapping[str, Any]], margin: float, title: str | None = None) -> Spec:
    """Return the difference in AUROC of two models each, before the band in which the first is worse by less than the margin.

    Parameters
    ----------
    rows : sequence of mappings
        `label`, `value`, `low`, `high`, `apart` (whether the difference is more than chance explains), `hover`, `aside`.
    margin : float
        The margin of non-inferiority in AUROC.
    title : str, optional
        Of the axis; the first model minus the second where not given.
    """
    drawn = []
    for apart, colour, symbol in ((True, "@accent", "circle"), (False, "@muted", "circle-open")):
        chosen = [(at, row) for at, row in enumerate(rows) if row["apart"] is apart and row["value"] is not None]
        if chosen:
            drawn.append(marks(chosen, 1.0, colour, symbol, ""))
    lows = [row["low"] for row in rows if row["low"] is not None]
    highs = [row["high"] for row in rows if row["high"] is not None]
    low, high = min([-2 * margin, *lows]), max([2 * margin, *highs])
    pad = 0.04 * (high - low)
    band = {
        "type": "rect", "x0": -margin, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "fillcolor": "@band",
        "line": {"width": 0}, "layer": "below",
    }  # fmt: skip
    return {
        "data": drawn,
        "layout": {
            "height": 96 + 38 * max(1, len(rows)),
            "margin": {"l": 142, "r": 176, "t": 24, "b": 46},
            "xaxis": {
                "title": {"text": title or f"{metric_title('auroc')}: first {MINUS} second"},
                "range": [round(low - pad, 4), round(high + pad, 4)],
            },
            "yaxis": {
                "range": [len(rows) - 0.4, -0.6], "tickvals": list(range(len(rows))),
                "ticktext": [row["label"] for row in rows], "showgrid": False, "ticklabelstandoff": 6,
            },
            "annotations": [aside(at, row["aside"]) for at, row in enumerate(rows)],
            "shapes": [band, line(0.0)],
            "showlegend": False,
            "hovermode": "closest",
        },
    }  # fmt: skip

"""Figures as plotly specifications (plain mappings of `data` and `layout`); the page draws them, tables say the same.

Colours are names like ``@ink`` which the page's script replaces by the theme's: light, dark or print. Rates are drawn in
percent. Every mark hovers its whole story.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from fmaudit_core.common.formatting import NONE, RATES, metric_title
from fmaudit_core.common.vocabulary import TIMES

Spec = dict[str, Any]

ROW_PX: Final = 27
_GAP_ROW_PX: Final = 30
_LEGEND_ROW_PX: Final = 30
_SWEEP_PX: Final = 320
_LABEL_CHARS: Final = 19
_COLOURS: Final = 7
_DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash")


def parts(places: Sequence[tuple[str, int]], row_px: int, n_rows: int) -> Spec:
    """Return first row, last row and a row's height of each attribute, so that the page can show one alone."""
    found: dict[str, list[int]] = {}
    for name, at in places:
        first, last = found.get(name, [at, at])
        found[name] = [min(first, at), max(last, at)]
    return {"parts": found, "row_px": row_px, "n_rows": n_rows}


@dataclass(frozen=True)
class Stack:
    """Rows of a figure below one another, each attribute with a heading above its rows.

    Parameters
    ----------
    rows : (place, row) in the order of display
    ticks : (place, label) of headings and rows
    places : (what the page filters by, place) of headings and rows
    height : int, number of places
    """

    rows: list[tuple[int, Mapping[str, Any]]]
    ticks: list[tuple[int, str]]
    places: list[tuple[str, int]]
    height: int

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Stack:
        """Place rows with `attribute` (title; without one there is no heading), `of` and `label`."""
        placed, ticks, places, at, attribute = [], list[tuple[int, str]](), list[tuple[str, int]](), 0, None
        for row in rows:
            if row["attribute"] != attribute:
                attribute = row["attribute"]
                if attribute:
                    ticks.append((at, f"<b>{attribute}</b>"))
                    places.append((row["of"], at))
                    at += 1
            ticks.append((at, row["label"]))
            places.append((row["of"], at))
            placed.append((at, row))
            at += 1
        return cls(placed, ticks, places, at)

    @property
    def parts(self) -> Spec:
        """Return the rows of each attribute with its heading, so that the page can show one alone."""
        return parts(self.places, ROW_PX, self.height)

    @property
    def axis(self) -> Spec:
        """Return the vertical axis."""
        return {
            "range": [self.height - 0.4, -0.6],
            "tickvals": [place for place, _ in self.ticks],
            "ticktext": [text for _, text in self.ticks],
            "showgrid": False,
            "ticklabelstandoff": 6,
        }

    @property
    def asides(self) -> list[Spec]:
        """Return the text at the right of each row."""
        return [aside(at, row["aside"]) for at, row in self.rows]


def forest(rows: Sequence[Mapping[str, Any]], metric: str, overall: float | None, aside_title: str) -> Spec:
    """Draw subgroups below one another: value, interval, and the difference that would have gone unseen.

    Parameters
    ----------
    rows : sequence of mappings
        In the order of display: `attribute` (title), `of` (what the page filters by), `label`, `value`, `low`, `high`, `mde`,
        `status`, `alarm`, `hover`, `aside` (text at the right).
    metric : str
    overall : float, optional
        Value of all studies together: drawn as a line, with each row's detectable difference around it.
    aside_title : str
    """
    scale = 100.0 if metric in RATES else 1.0
    stack = Stack.of(rows)
    by_look: dict[str, list[tuple[int, Mapping[str, Any]]]] = {"tested": [], "interval": [], "alarm": []}
    unseen_x: list[float | None] = []
    unseen_y: list[float | None] = []
    for at, row in stack.rows:
        if row["value"] is not None:
            kind = "alarm" if row["alarm"] else "tested" if row["status"] == "tested" else "interval"
            by_look[kind].append((at, row))
            if overall is not None and row["mde"] is not None:
                unseen_x += [scale * max(0.0, overall - row["mde"]), scale * min(1.0, overall + row["mde"]), None]
                unseen_y += [at, at, None]
    data = [_unseen(unseen_x, unseen_y)] if unseen_x else []
    looks = {
        "tested": ("@accent", "circle", "tested"),
        "interval": ("@accent", "circle-open", "interval only: too few to test"),
        "alarm": ("@alarm", "diamond", "fares worst where a disparity was found"),
    }
    data += [marks(by_look[kind], scale, *look) for kind, look in looks.items() if by_look[kind]]
    shapes = [] if overall is None else [line(scale * overall)]
    unit = " (%)" if metric in RATES else ""
    return {
        "data": data,
        "layout": {
            "height": 84 + ROW_PX * stack.height,
            "margin": {"l": 142, "r": 138, "t": 30, "b": 46},
            "xaxis": {"title": {"text": metric_title(metric) + unit}, **_forest_range(rows, scale, metric)},
            "yaxis": stack.axis,
            "annotations": [*stack.asides, aside(-0.55, f"<i>{aside_title}</i>", "bottom")],
            "shapes": shapes,
            "showlegend": False,
            "hovermode": "closest",
            "meta": stack.parts,
        },
    }


def _forest_range(rows: Sequence[Mapping[str, Any]], scale: float, metric: str) -> Spec:
    """Whole percent of rates from 0; AUROC from a half unless an interval goes below."""
    lows = [row["low"] for row in rows if row["low"] is not None]
    highs = [row["high"] for row in rows if row["high"] is not None]
    if metric in RATES:
        top = min(1.0, max([0.2, *highs]) + 0.03)
        return {"range": [0, scale * top]}
    return {"range": [min([0.5, *lows]) - 0.02, 1.0]}


def _unseen(x: Sequence[float | None], y: Sequence[float | None]) -> Spec:
    return {
        "type": "scatter", "mode": "lines", "x": short(x), "y": list(y), "hoverinfo": "skip",
        "line": {"color": "@band", "width": 13},
    }  # fmt: skip


def marks(rows: Sequence[tuple[int, Mapping[str, Any]]], scale: float, colour: str, symbol: str, name: str) -> Spec:
    """Return values with intervals: rows with their places, each with `value`, `low`, `high` and `hover`."""
    values = [scale * row["value"] for _, row in rows]
    low = [scale * (row["value"] - (row["low"] if row["low"] is not None else row["value"])) for _, row in rows]
    high = [scale * ((row["high"] if row["high"] is not None else row["value"]) - row["value"]) for _, row in rows]
    return {
        "type": "scatter", "mode": "markers", "cliponaxis": False, "name": name, "x": short(values), "y": [at for at, _ in rows],
        "error_x": {
            "type": "data", "symmetric": False, "array": short(high), "arrayminus": short(low), "color": colour,
            "thickness": 1.6, "width": 0,
        },
        "marker": {"color": colour, "symbol": symbol, "size": 9, "line": {"width": 2, "color": colour}},
        "hovertext": [row["hover"] for _, row in rows], "hoverinfo": "text",
    }  # fmt: skip


def aside(y: float, text: str, yanchor: str = "middle") -> Spec:
    """Return text at the right of a row; left out where there is no room."""
    return {
        "name": "aside", "text": text, "xref": "paper", "x": 1.02, "xanchor": "left", "y": y, "yanchor": yanchor,
        "showarrow": False, "font": {"size": 11, "color": "@muted"}, "align": "left",
    }  # fmt: skip


def line(x: float, dash: str = "dot") -> Spec:
    """Return a vertical line through the figure."""
    return {
        "type": "line", "x0": round(x, 4), "x1": round(x, 4), "yref": "paper", "y0": 0, "y1": 1,
        "line": {"color": "@muted", "width": 1, "dash": dash}, "layer": "below",
    }  # fmt: skip


def gaps(rows: Sequence[Mapping[str, Any]], margin: float | None) -> Spec:
    """Draw each gap (mark) on that of equal subgroups: its mean (tick) and 95th percentile (end of the bar).

    Parameters
    ----------
    rows : sequence of mappings
        `label`, `of` (what the page filters by), `gap`, `null`, `null_p95` (may be None), `verdict`, `hover`, `aside`.
    margin : float, optional
        The margin on the gap, drawn as a line.
    """
    ticks = [row["label"] for row in rows]
    drawn = [(at, row) for at, row in enumerate(rows) if row["gap"] is not None]
    bars = [(at, row) for at, row in drawn if row["null"] is not None]
    ends = [100 * (row["null_p95"] if row["null_p95"] is not None else row["null"]) for _, row in bars]
    data: list[Spec] = [
        {
            "type": "bar", "orientation": "h", "x": short(ends), "y": [at for at, _ in bars], "width": 0.46,
            "marker": {"color": "@band"}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "markers", "cliponaxis": False, "x": short([100 * row["null"] for _, row in bars]),
            "y": [at for at, _ in bars], "hoverinfo": "skip",
            "marker": {"symbol": "line-ns", "size": 15, "line": {"width": 2, "color": "@muted"}},
        },
    ]  # fmt: skip
    looks = {
        "disparity": ("@alarm", "diamond"),
        "no_disparity_beyond_margin": ("@good", "square"),
        "within_margin_of_tested": ("@good", "square-open"),
        "insufficient_evidence": ("@muted", "circle-open"),
        None: ("@accent", "circle"),
    }
    for verdict, (colour, symbol) in looks.items():
        chosen = [(at, row) for at, row in drawn if row["verdict"] == verdict]
        if chosen:
            data.append(
                {
                    "type": "scatter", "mode": "markers", "cliponaxis": False,
                    "x": short([100 * row["gap"] for _, row in chosen]), "y": [at for at, _ in chosen],
                    "hovertext": [row["hover"] for _, row in chosen], "hoverinfo": "text",
                    "marker": {"color": colour, "symbol": symbol, "size": 11, "line": {"width": 2, "color": colour}},
                }
            )  # fmt: skip
    return {
        "data": data,
        "layout": {
            "meta": parts([(row["of"], at) for at, row in enumerate(rows)], _GAP_ROW_PX, len(rows)),
            "height": 96 + _GAP_ROW_PX * max(1, len(rows)),
            "margin": {"l": 142, "r": 84, "t": 24, "b": 46},
            "xaxis": {"title": {"text": f"Gap (points; AUROC {TIMES} 100)"}, "rangemode": "tozero"},
            "yaxis": {
                "range": [len(rows) - 0.4, -0.6], "tickvals": list(range(len(rows))), "ticktext": ticks,
                "showgrid": False, "ticklabelstandoff": 6,
            },
            "annotations": [aside(at, row["aside"]) for at, row in enumerate(rows)],
            "shapes": [] if margin is None else [{**line(100 * margin, "dash"), "layer": "above"}],
            "showlegend": False,
            "hovermode": "closest",
        },
    }  # fmt: skip


def sweep(curves: Sequence[Mapping[str, Any]], chosen: float | None, most_curves: int, *, probabilities: bool) -> Spec:
    """Return share missed and false alarms of each subgroup at every threshold, with the band and the threshold chosen.

    Parameters
    ----------
    curves : sequence of mappings
        `label`, `banded` (whether the band is drawn), and as lists `threshold`, `udr`, `fpr`, `low`, `high` (the band is the
        UDR's), all 0 to 1.
    chosen : float, optional
        The operating threshold.
    most_curves : int
        Curves of the fullest figure next to this one: all leave as much room for their legend.
    probabilities : bool
        Whether scores lie between 0 and 1; other scores have the range of the curves.
    """
    data: list[Spec] = []
    below_px = 68 + _LEGEND_ROW_PX * math.ceil(most_curves / 2)
    for nth, curve in enumerate(curves):
        colour, dash = f"@c{nth % _COLOURS}", _DASHES[(nth + nth // _COLOURS) % len(_DASHES)]
        common = {"type": "scatter", "mode": "lines", "x": curve["threshold"], "legendgroup": str(nth)}
        if curve["banded"]:
            edge = {**common, "line": {"width": 0, "color": colour}, "hoverinfo": "skip", "showlegend": False}
            data += [
                {**edge, "y": _percent(curve["low"])},
                {**edge, "y": _percent(curve["high"]), "fill": "tonexty", "fillcolor": f"{colour}/0.14"},
            ]
        drawn = {"width": 2, "color": colour, "dash": dash}
        wording = "%{y:.0f}%<extra></extra>"
        data += [
            {**common, "y": _percent(curve["udr"]), "line": drawn, "name": curve["label"],
             "hovertemplate": f"{curve['label']}: missed {wording}"},
            {**common, "y": _percent(curve["fpr"]), "line": drawn, "yaxis": "y2", "showlegend": False,
             "hovertemplate": f"{curve['label']}: false alarms {wording}"},
        ]  # fmt: skip
    low, high = (0.0, 1.0) if probabilities else _reach([one for curve in curves for one in curve["threshold"]])
    pad = 0.02 * (high - low)
    shapes, notes = [], []
    if chosen is not None:
        shapes = [line(chosen, "solid")]
        notes = [
            {
                "text": f"operating point {chosen:.3f}", "x": chosen,
                "xanchor": "left" if chosen < (low + high) / 2 else "right", "yref": "paper", "y": 1.0,
                "yanchor": "bottom", "showarrow": False, "font": {"size": 11, "color": "@muted"},
            }
        ]  # fmt: skip
    return {
        "data": data,
        "layout": {
            "height": 30 + _SWEEP_PX + below_px,
            "margin": {"l": 52, "r": 14, "t": 30, "b": below_px, "autoexpand": False},
            "xaxis": {
                "title": {"text": "Threshold on the score"},
                "anchor": "y2",
                "range": [round(low - pad, 4), round(high + pad, 4)],
            },
            "yaxis": {"title": {"text": "Missed (%)"}, "domain": [0.55, 1.0], "range": [-2, 102]},
            "yaxis2": {"title": {"text": "False alarms (%)"}, "domain": [0.0, 0.45], "range": [-2, 102]},
            "shapes": shapes,
            "annotations": notes,
            "showlegend": True,
            "legend": {"orientation": "h", "y": -60 / _SWEEP_PX, "yanchor": "top", "x": 0, "xanchor": "left"},
            "hovermode": "x",
        },
    }


def _reach(thresholds: Sequence[float]) -> tuple[float, float]:
    low, high = min(thresholds), max(thresholds)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def against_control(rows: Sequence[Mapping[str, Any]], control: Mapping[str, Any] | None) -> Spec:
    """Return AUROC of each encoder on one task, before the control's interval.

    Parameters
    ----------
    rows : sequence of mappings
        `label`, `value`, `low`, `high`, `beats` (bool), `hover`, `aside`; encoders without the control.
    control : mapping, optional
        The same of the control.
    """
    shown = [*rows, *([control] if control else [])]
    drawn = []
    for beats, colour, symbol in (
        (True, "@good", "square"),
        (False, "@muted", "circle-open"),
        (None, "@ink", "x-thin"),
    ):
        chosen = [(at, row) for at, row in enumerate(shown) if row["beats"] is beats and row["value"] is not None]
        if chosen:
            drawn.append(marks(chosen, 1.0, colour, symbol, ""))
    shapes = []
    if control and control["low"] is not None and control["high"] is not None:
        shapes = [
            {
                "type": "rect", "x0": control["low"], "x1": control["high"], "yref": "paper", "y0": 0, "y1": 1,
                "fillcolor": "@band", "line": {"width": 0}, "layer": "below",
            }
        ]  # fmt: skip
    return {
        "data": drawn,
        "layout": {
            "height": 96 + 38 * max(1, len(shown)),
            "margin": {"l": 142, "r": 140, "t": 24, "b": 46},
            "xaxis": {"title": {"text": metric_title("auroc")}, **_forest_range(shown, 1.0, "auroc")},
            "yaxis": {
                "range": [len(shown) - 0.4, -0.6], "tickvals": list(range(len(shown))),
                "ticktext": [row["label"] for row in shown], "showgrid": False, "ticklabelstandoff": 6,
            },
            "annotations": [aside(at, row["aside"]) for at, row in enumerate(shown) if row["aside"] != NONE],
            "shapes": shapes,
            "showlegend": False,
            "hovermode": "closest",
        },
    }  # fmt: skip


def plain(text: str) -> str:
    """Return text that plotly, which reads some HTML, draws as it is."""
    return escape(text, quote=False)


def tick_label(text: str) -> str:
    """Return a name next to an axis, on two short lines where it is long."""
    lines = textwrap.wrap(text, _LABEL_CHARS) or [""]
    shown = lines if len(lines) < 3 else [lines[0], f"{lines[1]}\N{HORIZONTAL ELLIPSIS}"]
    return "<br>".join(plain(line) for line in shown)


def tick_line(text: str) -> str:
    """Return a name on one line next to an axis."""
    shown = text if len(text) <= _LABEL_CHARS else f"{text[: _LABEL_CHARS - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"
    return plain(shown)


def short(values: Sequence[float | None]) -> list[float | None]:
    """Four decimals: a page of figures stays small, and no digit betrays a denominator."""
    return [None if value is None else round(value, 4) for value in values]


def _percent(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(100 * value, 1) for value in values]

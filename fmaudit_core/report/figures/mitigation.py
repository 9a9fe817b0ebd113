"""Figures of mitigation: gaps by strategy, subgroups before and after, price, what probes still read. Others: `base.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fmaudit_core.common.formatting import metric_title
from fmaudit_core.report.figures.base import ROW_PX, Spec, Stack, aside, line, marks, short


def strategies(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Draw the gap under each strategy with its interval, next to the gap before it (a vertical stroke).

    Parameters
    ----------
    rows : sequence of mappings
        In the order of display: `attribute` (title), `of` (what the page filters by), `label`,
        `before`, `value`, `low`, `high` (0 to 1, may be None), `look`
        (narrowed, shown, levelled, widened or uninterpretable), `hover`, `aside`.
    """
    stack = Stack.of(rows)
    drawn = [(at, row) for at, row in stack.rows if row["value"] is not None]
    data: list[Spec] = [
        {
            "type": "scatter", "mode": "markers", "cliponaxis": False, "hoverinfo": "skip", "name": "before",
            "x": short([100 * row["before"] for _, row in drawn]), "y": [at for at, _ in drawn],
            "marker": {"symbol": "line-ns", "size": 17, "line": {"width": 2, "color": "@muted"}},
        }
    ]  # fmt: skip
    looks = {
        "narrowed": ("@good", "square", "narrower than before, beyond chance"),
        "levelled": ("@alarm", "triangle-down", "levels down"),
        "widened": ("@alarm", "diamond", "wider than before, beyond chance"),
        "shown": ("@accent", "circle", "no more than chance"),
        "uninterpretable": ("@muted", "x-thin", "not interpretable"),
    }
    for look, (colour, symbol, name) in looks.items():
        chosen = [(at, row) for at, row in drawn if row["look"] == look]
        if chosen:
            data.append(marks(chosen, 100.0, colour, symbol, name))
    return {
        "data": data,
        "layout": {
            "meta": stack.parts,
            "height": 90 + ROW_PX * stack.height,
            "margin": {"l": 142, "r": 150, "t": 30, "b": 46},
            "xaxis": {"title": {"text": "Gap in missed (points)"}, "rangemode": "tozero"},
            "yaxis": stack.axis,
            "annotations": [
                *stack.asides, aside(-0.55, "<i>change · adjusted p</i>", "bottom"),
            ],
            "showlegend": False,
            "hovermode": "closest",
        },
    }  # fmt: skip


def arrows(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Draw each subgroup's share missed: a line from before (hollow) to after (arrow head).

    Parameters
    ----------
    rows : sequence of mappings
        In the order of display: `attribute` (title), `of` (what the page filters by), `label`,
        `before`, `after` (0 to 1, may be None), `look` (harmed, helped or
        unclear), `hover`, `aside`.
    """
    stack = Stack.of(rows)
    drawn = [(at, row) for at, row in stack.rows if row["before"] is not None]
    data: list[Spec] = []
    looks = {"harmed": "@alarm", "helped": "@good", "unclear": "@muted"}
    for look, colour in looks.items():
        chosen = [(at, row) for at, row in drawn if row["look"] == look]
        if not chosen:
            continue
        xs = [value for _, row in chosen for value in (100 * row["before"], 100 * row["after"], None)]
        ys = [value for at, _ in chosen for value in (at, at, None)]
        hover = {"hovertext": [row["hover"] for _, row in chosen], "hoverinfo": "text"}
        heads = [
            "triangle-right"
            if row["after"] > row["before"]
            else "triangle-left"
            if row["after"] < row["before"]
            else "circle"
            for _, row in chosen
        ]
        at = [place for place, _ in chosen]
        common = {"type": "scatter", "mode": "markers", "cliponaxis": False, "y": at, **hover}
        data += [
            {"type": "scatter", "mode": "lines", "x": short(xs), "y": ys, "hoverinfo": "skip",
             "line": {"color": colour, "width": 2}},
            {**common, "x": short([100 * row["before"] for _, row in chosen]), "name": "before",
             "marker": {"symbol": "circle-open", "size": 8, "color": colour, "line": {"width": 2, "color": colour}}},
            {**common, "x": short([100 * row["after"] for _, row in chosen]), "name": "after",
             "marker": {"symbol": heads, "size": 11, "color": colour}},
        ]  # fmt: skip
    top = max([0.2, *(max(row["before"], row["after"]) for _, row in drawn)])
    return {
        "data": data,
        "layout": {
            "meta": stack.parts,
            "height": 84 + ROW_PX * stack.height,
            "margin": {"l": 142, "r": 138, "t": 30, "b": 46},
            "xaxis": {
                "title": {"text": f"{metric_title('udr')} (%)"},
                "range": [-1, round(100 * min(1.0, top) + 3, 1)],
            },
            "yaxis": stack.axis,
            "annotations": [*stack.asides, aside(-0.55, "<i>change</i>", "bottom")],
            "showlegend": False,
            "hovermode": "closest",
        },
    }


def price(
    before: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], path: Sequence[Mapping[str, Any]],
    seeds: Sequence[Mapping[str, Any]], margin: float,
) -> Spec:  # fmt: skip
    """Return AUROC against the gap that is left: each strategy, the adversary's path over its alpha, and single seeds.

    Parameters
    ----------
    before : mapping
        `gap`, `auroc`, `hover` of the probe as it was.
    runs, path, seeds : sequences of mappings
        `gap`, `auroc`, `hover`; runs with `strategy`, the path with `label`.
    margin : float
        By so much AUROC may fall: below the dashed line a gap is not interpreted.
    """
    dot = {"type": "scatter", "cliponaxis": False, "hoverinfo": "text"}
    star = {"symbol": "star", "size": 14, "color": "@ink"}
    data: list[Spec] = []
    if seeds:
        faint = {"symbol": "circle", "size": 4, "color": "@muted", "opacity": 0.6}
        data.append({**dot, **_at(seeds), "mode": "markers", "name": "single seeds", "marker": faint})
    if path:
        named = {"text": [one["label"] for one in path], "textfont": {"size": 10, "color": "@muted"}}
        drawn = {
            "line": {"color": "@c1", "width": 1.5, "dash": "dot"},
            "marker": {"symbol": "diamond", "size": 8, "color": "@c1"},
        }
        along = {"mode": "lines+markers+text", "textposition": "top center", "name": "adversarial, by alpha"}
        data.append({**dot, **_at(path), **named, **drawn, **along})
    for one in runs:
        symbol, colour = _LOOKS.get(one["strategy"], _OTHER)
        look = {"symbol": symbol, "size": 11, "color": colour, "line": {"width": 2, "color": colour}}
        data.append({**dot, **_at([one]), "mode": "markers", "name": one["strategy"], "marker": look})
    data.append({**dot, **_at([before]), "mode": "markers", "name": "as it was", "marker": star})
    floor = {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": round(before["auroc"] - margin, 4),
        "y1": round(before["auroc"] - margin, 4), "line": {"color": "@muted", "width": 1, "dash": "dash"}, "layer": "below",
    }  # fmt: skip
    return {
        "data": data,
        "layout": {
            "height": 300,
            "margin": {"l": 60, "r": 20, "t": 24, "b": 46},
            "xaxis": {"title": {"text": "Gap left in missed (points)"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": metric_title("auroc")}},
            "shapes": [floor],
            "showlegend": False,
            "hovermode": "closest",
        },
    }


#: symbol and colour of each strategy; the page's key has the same
_LOOKS = {
    "reweighting": ("circle", "@c0"),
    "resampling": ("square", "@c2"),
    "leace": ("triangle-up", "@c3"),
    "dfr": ("triangle-down", "@c4"),
    "group_dro": ("circle-open", "@c5"),
    "group_thresholds": ("square-open", "@c6"),
}
#: of a strategy without a mark of its own
_OTHER = ("hexagon", "@muted")


def _at(rows: Sequence[Mapping[str, Any]]) -> Spec:
    return {
        "x": short([100 * row["gap"] for row in rows]), "y": short([row["auroc"] for row in rows]),
        "hovertext": [row["hover"] for row in rows],
    }  # fmt: skip


def probing(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Draw how well fresh probes read an attribute before (hollow) and after (filled), and permuted labels (a stroke).

    Parameters
    ----------
    rows : sequence of mappings
        In the order of display: `attribute` (title), `of` (what the page filters by), `label`,
        `before`, `value`, `low`, `high`, `control` (may be None), `hover`,
        `aside`.
    """
    stack = Stack.of(rows)
    after = [(at, row) for at, row in stack.rows if row["value"] is not None]
    earlier = [(at, row) for at, row in stack.rows if row["before"] is not None]
    controls = [(at, row) for at, row in stack.rows if row["control"] is not None]
    both = [(at, row) for at, row in after if row["before"] is not None]
    data: list[Spec] = [
        {
            "type": "scatter", "mode": "lines", "hoverinfo": "skip", "line": {"color": "@muted", "width": 1, "dash": "dot"},
            "x": short([one for _, row in both for one in (row["before"], row["value"], None)]),
            "y": [one for at, _ in both for one in (at, at, None)],
        },
        {
            "type": "scatter", "mode": "markers", "cliponaxis": False, "hoverinfo": "skip", "name": "permuted labels",
            "x": short([row["control"] for _, row in controls]), "y": [at for at, _ in controls],
            "marker": {"symbol": "line-ns", "size": 15, "line": {"width": 2, "color": "@muted"}},
        },
        {
            "type": "scatter", "mode": "markers", "cliponaxis": False, "name": "before", "hoverinfo": "text",
            "x": short([row["before"] for _, row in earlier]), "y": [at for at, _ in earlier],
            "hovertext": [row["hover"] for _, row in earlier],
            "marker": {"symbol": "circle-open", "size": 9, "color": "@accent", "line": {"width": 2, "color": "@accent"}},
        },
        marks(after, 1.0, "@accent", "circle", "after"),
    ]  # fmt: skip
    lows = [row["low"] for _, row in after if row["low"] is not None]
    return {
        "data": data,
        "layout": {
            "meta": stack.parts,
            "height": 90 + ROW_PX * stack.height,
            "margin": {"l": 142, "r": 120, "t": 30, "b": 46},
            "xaxis": {"title": {"text": "Balanced AUROC of the attribute"}, "range": [round(min([0.45, *lows]) - 0.02, 3), 1.02]},
            "yaxis": stack.axis,
            "annotations": [*stack.asides, aside(-0.55, "<i>before · after</i>", "bottom")],
            "shapes": [line(0.5)],
            "showlegend": False,
            "hovermode": "closest",
        },
    }  # fmt: skip

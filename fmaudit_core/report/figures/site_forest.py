"""Forest plot of one attribute over sites, as places in a drawing that the template writes as SVG: no script, no request."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fmaudit_core.common.formatting import RATES, metric_title, signed

WIDTH: Final = 900
_LEFT: Final = 190
_RIGHT: Final = 650
_ROW: Final = 22
_TOP: Final = 12
#: the axis reaches this far at least, in the metric
_LEAST: Final = 0.05
_STEPS: Final = (0.02, 0.05, 0.1, 0.2, 0.5)
_TICKS: Final = 6


def site_forest(title: str, metric: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the places of a forest plot.

    Parameters
    ----------
    rows : sequence of mappings
        `kind` (``heading``, ``site`` or ``pooled``) and `label`; sites and pooled rows with `value`, `low`, `high`, `text`; sites
        with `weight`, pooled rows with `predicted`, an interval.
    """
    ends = [abs(one) for row in rows if row["kind"] != "heading" for one in (row["low"], row["high"])]
    half: float = min(1.0, max(_LEAST, *ends) * 1.05)

    def x(value: float) -> float:
        at: float = (_LEFT + _RIGHT) / 2 + max(-half, min(half, value)) / half * (_RIGHT - _LEFT) / 2
        return round(at, 1)

    placed = [_placed(row, _TOP + _ROW * (at + 0.5), x) for at, row in enumerate(rows)]
    bottom = _TOP + _ROW * len(rows)
    step = next((one for one in _STEPS if half / one <= _TICKS / 2), _STEPS[-1])
    scale, unit = (100, ", percentage points") if metric in RATES else (1, "")
    ticks = [one * step for one in range(-math.floor(half / step), math.floor(half / step) + 1)]
    return {
        "title": f"{title}: {metric_title(metric)} less that of the other subgroups{unit}",
        "width": WIDTH,
        "height": bottom + 40,
        "bottom": bottom,
        "zero": x(0.0),
        "text_at": _RIGHT + 16,
        "rows": placed,
        "ticks": [(x(one), signed(scale * one, 0 if metric in RATES else 2, plus=False)) for one in ticks],
    }


def _placed(row: Mapping[str, Any], y: float, x: Any) -> dict[str, Any]:
    found = {"kind": row["kind"], "label": row["label"], "y": y, "text": row.get("text", "")}
    if row["kind"] == "heading":
        return found
    found |= {name: x(row[name]) for name in ("value", "low", "high")}
    if row["kind"] == "site":
        return found | {"side": round(4 + 8 * math.sqrt(row["weight"]), 1)}
    return found | {"predicted_low": x(row["predicted"][0]), "predicted_high": x(row["predicted"][1])}

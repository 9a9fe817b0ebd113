"""An assessment as one HTML document, for a notebook's reader. The full report: `standalone/assess_file.py`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

import plotly.graph_objects as go
import polars as pl
from plotly.offline import get_plotlyjs

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a2230}"
    "table{border-collapse:collapse;font-size:.9rem}td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:left}"
    "div.table{overflow-x:auto}"
)


def document(
    title: str,
    *,
    sentences: Iterable[str],
    warnings: Sequence[str],
    figures: Iterable[go.Figure],
    verdicts: pl.DataFrame,
    notes: Sequence[str],
) -> str:
    """Return the HTML document of an assessment, with plotly's script inside."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(one)}</p>" for one in sentences),
        _listed("To check first", warnings),
        *(one.to_html(full_html=False, include_plotlyjs=False) for one in figures),
        "<h2>Verdicts</h2>",
        f"<div class='table'>{_table(verdicts)}</div>",
        _listed("Notes", notes),
        "</body></html>",
    ]
    return "\n".join(one for one in parts if one)


def _listed(title: str, sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(one)}</li>" for one in sentences)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


def _table(frame: pl.DataFrame) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in frame.columns)
    rows = ("".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) for row in frame.iter_rows())
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

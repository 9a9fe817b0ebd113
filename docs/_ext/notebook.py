"""A notebook as a page: its cells are executed in order, and each result is shown below its cell, as Jupyter would show it."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import plotly.graph_objects as go

#: where the site keeps plotly's script, seen from a page one folder down
PLOTLY: Final = "_static/plotly.min.js"
_FENCE: Final = "`" * 6


@dataclass(frozen=True)
class Executed:
    """A cell after it was executed: its source, what it printed, and the value of its last expression."""

    kind: str
    source: str
    printed: str = ""
    value: Any = None


def executed(path: Path) -> Iterator[Executed]:
    """Execute the cells of a notebook in an empty folder, and yield each."""
    cells, names = json.loads(path.read_text(encoding="utf-8"))["cells"], {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for cell in cells:
            source = "".join(cell["source"])
            yield _run(source, names) if cell["cell_type"] == "code" else Executed(cell["cell_type"], source)


def _run(source: str, names: dict[str, Any]) -> Executed:
    parsed, last = ast.parse(source), None
    if parsed.body and isinstance(parsed.body[-1], ast.Expr):
        last = ast.Expression(parsed.body.pop().value)  # type: ignore[attr-defined]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(parsed, "cell", "exec"), names)
        value = None if last is None else eval(compile(last, "cell", "eval"), names)
    return Executed("code", source, printed.getvalue(), value)


def rendered(path: Path) -> str:
    """Return the Markdown of a notebook with its results."""
    return "\n\n".join([_raw(f'<script src="../{PLOTLY}"></script>'), *map(_markdown, executed(path))])


def _markdown(cell: Executed) -> str:
    if cell.kind != "code":
        return cell.source
    parts = [_fenced("python", cell.source)]
    if cell.printed:
        parts.append(_fenced("text", cell.printed.rstrip()))
    if isinstance(cell.value, go.Figure):
        parts.append(_raw(cell.value.to_html(full_html=False, include_plotlyjs=False)))
    elif hasattr(cell.value, "_repr_html_"):
        parts.append(_raw(cell.value._repr_html_()))
    elif cell.value is not None:
        parts.append(_fenced("text", repr(cell.value)))
    return "\n\n".join(parts)


def _fenced(language: str, text: str) -> str:
    return f"{_FENCE}{language}\n{text}\n{_FENCE}"


def _raw(html: str) -> str:
    return _fenced("{raw} html", f'<div style="overflow-x:auto">{html}</div>')

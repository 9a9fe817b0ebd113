"""The one Jinja environment of the page, the cards and the checklists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from fmaudit_core.common import formatting

#: functions that templates use by their name
_OF_TEXT: Final[Sequence[Callable[..., str]]] = (
    formatting.attribute_title,
    formatting.margin_text,
    formatting.metric_title,
    formatting.percent,
    formatting.task_title,
    formatting.tied,
)


def environment() -> Environment:
    """Return the environment: `templates/` and the section templates in `sections/`, HTML escaped, Markdown as it is."""
    found = Environment(
        loader=PackageLoader("fmaudit_core.report", "."),
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        **{one.__name__: one for one in _OF_TEXT},
        "cell": _markdown_cell,
        "aligned": _aligned,
    }
    return found


def _markdown_cell(text: object) -> str:
    """Return text as it stands in a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def _aligned(titles: Iterable[str], kind: str) -> list[tuple[str, str]]:
    """Return heads of columns of one kind, as the layout's `table` takes them: ``r`` right, ``c`` centred."""
    return [(title, kind) for title in titles]

"""Reference of the warehouse's tables, from their declarations in `fmaudit_core/tables`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl

from fmaudit_core.tables.columns import Column
from fmaudit_core.tables.schemas import TABLES
from fmaudit_core.tables.table import Table

_HEAD: Final = ("| column | type | meaning |", "|---|---|---|")


def reference() -> str:
    """Markdown of every table under a heading of its own."""
    return "\n\n".join("\n".join(_section(table)) for table in TABLES.values())


def _section(table: Table) -> Iterator[str]:
    per = f" One file per {table.per}." if table.per else ""
    key = f" Key: {', '.join(f'`{name}`' for name in table.key)}." if table.key else ""
    yield from (f"(table-{table.name})=", f"## `{table.name}`", "", f"{table.row}{per}{key}", "", *_HEAD)
    for name, column in table.columns.items():
        yield _line(name, column)
    if table.further:
        yield _line(table.further.shown, table.further.column)


def _line(name: str, column: Column) -> str:
    return f"| `{name}` | {_kind(column.dtype)} | {column.meaning} |"


def _kind(dtype: pl.DataType | None) -> str:
    if dtype is None:
        return "any"
    if isinstance(dtype, pl.List):
        return f"list of {_kind(dtype.inner)}"
    if dtype.is_integer():
        return "integer"
    if dtype.is_float():
        return "number"
    return {pl.Boolean: "boolean", pl.Datetime: "time"}.get(type(dtype), "text")

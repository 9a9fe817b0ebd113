"""How rows are printed: as a table where it fits the terminal, else one column a line."""

from __future__ import annotations

import shutil
from typing import Final

import polars as pl

#: rows printed as a table, and as records
_MOST: Final = 200
_MOST_RECORDS: Final = 20
#: longer text is cut in a table
_LONGEST: Final = 80
#: columns of a terminal that does not tell
_WIDTH: Final = 200
#: a table of this width breaks no cell
_UNBROKEN: Final = 65_000


def printed(rows: pl.DataFrame) -> tuple[str, int]:
    """Rows as text, and how many of them it shows.

    A table that is wider than the terminal would break every cell over many lines, so its rows stand below one another.
    """
    width = shutil.get_terminal_size((_WIDTH, 50)).columns
    with pl.Config(
        tbl_rows=_MOST, tbl_cols=-1, tbl_width_chars=_UNBROKEN, fmt_str_lengths=_LONGEST, tbl_hide_dataframe_shape=True
    ):
        table = str(rows)
    # without rows there is nothing to stand below one another: the columns' names are what it tells
    if rows.is_empty() or table.index("\n") <= width:
        return table, min(rows.height, _MOST)
    return _records(rows.head(_MOST_RECORDS)), min(rows.height, _MOST_RECORDS)


def _records(rows: pl.DataFrame) -> str:
    longest = max(len(name) for name in rows.columns)
    return "\n\n".join(
        "\n".join(f"{name:<{longest}}  {_text(value)}" for name, value in row.items())
        for row in rows.iter_rows(named=True)
    )


def _text(value: object) -> str:
    return "null" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

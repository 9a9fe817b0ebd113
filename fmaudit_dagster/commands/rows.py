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


def printed(rows: pl.DataFrame) -> tuple[str, int]:
    """Rows as text, and how many of them it shows.

    A table that is wider than the terminal would break every cell over many lines, so its rows stand below one another.
    """
    width = shutil.get_terminal_size((_WIDTH, 50)).columns
    if _width(rows.head(_MOST)) > width:
        return _records(rows.head(_MOST_RECORDS)), min(rows.height, _MOST_RECORDS)
    with pl.Config(
        tbl_rows=_MOST, tbl_cols=-1, tbl_width_chars=width, fmt_str_lengths=_LONGEST, tbl_hide_dataframe_shape=True
    ):
        return str(rows), min(rows.height, _MOST)


def _width(rows: pl.DataFrame) -> int:
    """Columns of the terminal that a table of these rows takes."""
    cells = [
        min(max(len(column.name), len(str(column.dtype)), *(len(_text(value)) for value in column)), _LONGEST)
        if rows.height
        else len(column.name)
        for column in rows.iter_columns()
    ]
    return sum(cells) + 3 * len(cells) + 1


def _records(rows: pl.DataFrame) -> str:
    longest = max(len(name) for name in rows.columns)
    return "\n\n".join(
        "\n".join(f"{name:<{longest}}  {_text(value)}" for name, value in row.items())
        for row in rows.iter_rows(named=True)
    )


def _text(value: object) -> str:
    return "null" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

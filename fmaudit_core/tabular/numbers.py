"""Numbers in text cells: with a point, or with a comma in files whose separator is no comma."""

from __future__ import annotations

from typing import Final

import polars as pl

from fmaudit_core.tabular.words import is_missing

_COMMA: Final = r"^[+-]?\d*,\d+(?:[eE][+-]?\d+)?$"


def read_numbers(column: pl.Series, *, comma: bool = False) -> tuple[pl.Series, pl.Series]:
    """Return a column as Float64 (null if blank or unreadable), and which cells are unreadable.

    Parameters
    ----------
    column : pl.Series
        Numbers, or text such as ``0.5``, ``1e-3``, ``nan``, ``inf``.
    comma : bool
        Read ``0,5`` as 0.5.
    """
    if column.dtype != pl.String:
        numbers = column.cast(pl.Float64, strict=False)
        return numbers, numbers.is_null() & column.is_not_null()
    text = column.fill_null("").str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    if not numbers.null_count():
        return numbers, pl.Series(column.name, [False]).new_from_index(0, len(column))
    if comma:
        pointed = pl.when(text.str.contains(_COMMA)).then(text.str.replace(",", ".", literal=True)).otherwise(text)
        numbers = pl.select(pointed).to_series().cast(pl.Float64, strict=False).alias(column.name)
    blank = [word for word in text.filter(numbers.is_null()).unique() if is_missing(word)]
    return numbers, numbers.is_null() & ~text.is_in(blank)


def why_unreadable(cells: pl.Series) -> str:
    """Return what unreadable cells look like, without showing one: ``they end in a percent sign``."""
    text, one = cells.cast(pl.String), len(cells) == 1
    if text.str.contains("%", literal=True).all():
        return "it ends in a percent sign" if one else "they end in a percent sign"
    if text.str.contains(_COMMA).all():
        return "it has a decimal comma" if one else "they have a decimal comma"
    return "it is text" if one else "they are text"

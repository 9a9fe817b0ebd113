"""The one reader of a user's own table, CSV or Parquet: text as text, each row with its number.

`cohort/table.py` and `fairness/normal_form.py` interpret the cells. `batches.py` reads text files,
`kept_columns.py` holds what was read. `scan.py` is for the tables of releases.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.tabular.batches import read_batches
from fmaudit_core.tabular.delimited import clean_header, find_layout, refuse_repeated_names
from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.kept_columns import AS_TEXT, Forms, kept
from fmaudit_core.tabular.words import ENDS

_PARQUET: Final = (".parquet", ".pq")
_DELIMITED: Final = (".csv", ".tsv", ".txt")
#: of the files that are read
SUFFIXES: Final = (*_DELIMITED, *_PARQUET)
SAVE_AS: Final = "Save it as .csv (Excel: `CSV UTF-8`) or .parquet; decompress it first if it is compressed."
#: whole numbers from here on are not all different as floats
_INEXACT: Final = float(1 << 53)


def column_names(table: Path, expected: Collection[str] = ()) -> list[str]:
    """Return the trimmed names of a table's columns in order, without columns that have no name.

    Parameters
    ----------
    expected : collection of str
        Names that the caller needs; they tell a header from a first row of data.

    Raises
    ------
    CohortError
        The file cannot be read, or its header cannot be used.
    """
    if _kind(table) in _PARQUET:
        return list(_parquet_columns(table))
    try:
        return [name for name in find_layout(table, expected).header if name]
    except OSError as error:
        raise _unreadable(table, error) from error


def has_decimal_comma(table: Path, expected: Collection[str] = ()) -> bool:
    """Return whether 0,5 may mean 0.5 in a table: it is text whose separator is not a comma."""
    return _kind(table) in _DELIMITED and find_layout(table, expected).decimal_comma


def read_cells(
    table: Path, *, only: Collection[str] | None = None, forms: Forms = AS_TEXT, expected: Collection[str] = ()
) -> tuple[pl.DataFrame, pl.Series]:
    """Read cells as trimmed text, so that ids like ``007``, ``7E5`` or ``123.0`` stay as written; missing cells are empty.

    Rows without content and columns without a name, which spreadsheets leave behind, are ignored, and so are nested columns of
    Parquet. A CSV is read in batches of rows: beyond the frame that is returned, the memory in use does not grow with the file.

    Parameters
    ----------
    only : collection of str, optional
        Columns to read; all if not given.
    forms : Forms, optional
        Columns that are kept as numbers or codes; the values stay the same.
    expected : collection of str
        Names that the caller needs; see `column_names`.

    Returns
    -------
    The cells, and the row number of each as shown to the user: in a CSV the header is row 1, in a Parquet file the first study
    is.

    Raises
    ------
    CohortError
        The file cannot be read, is not UTF-8 text, holds no row, names a column twice, or a row's number of cells differs from
        the header's.
    """
    try:
        if _kind(table) in _PARQUET:
            frame, rows = kept(lambda _: iter([_read_parquet(table, only, forms.numbers)]), forms)
        else:
            layout = find_layout(table, expected)
            frame, rows = kept(partial(read_batches, table, layout, only), forms, comma=layout.decimal_comma)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(table, error) from error
    if frame.is_empty():
        raise CohortError("has no studies.", where=table.name)
    return frame, rows


def text_of(column: pl.Series, *, where: str | None = None) -> pl.Series:
    """Return a column as text, exactly: NaN is null, and white space at the ends is removed.

    Raises
    ------
    CohortError
        The column is nested, or holds floats so large that different whole numbers are equal.
    """
    if column.dtype.is_nested():
        raise CohortError(f"column {column.name} holds lists or records, not text or numbers.", where=where)
    if column.dtype.is_float():
        column = column.fill_nan(None)
        if (column.abs() >= _INEXACT).any():
            raise CohortError(
                f"column {column.name} holds ids as decimal numbers ({column.dtype}) that are too large to be exact.",
                where=where,
                fix="Write the column as text.",
            )
    try:
        return column.cast(pl.String).str.strip_chars(ENDS)
    except pl.exceptions.PolarsError as error:
        raise CohortError(f"column {column.name} ({column.dtype}) is not text.", where=where) from error


def _kind(table: Path) -> str:
    suffix = table.suffix.lower()
    if suffix not in SUFFIXES:
        raise CohortError("is neither CSV nor Parquet.", where=table.name, fix=SAVE_AS)
    return suffix


def _parquet_columns(table: Path) -> dict[str, str]:
    """Return the columns of a Parquet file: trimmed name -> name in the file."""
    try:
        theirs = list(pl.read_parquet_schema(table))
    except pl.exceptions.DuplicateError as error:
        raise CohortError("a column appears twice.", where=table.name, fix="Rename or remove one of them.") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(table, error) from error
    ours = clean_header(theirs)
    refuse_repeated_names(ours, table)
    return {name: own for name, own in zip(ours, theirs, strict=True) if name}


def _read_parquet(
    table: Path, only: Collection[str] | None, numbers: Collection[str]
) -> tuple[pl.DataFrame, pl.Series]:
    names = {name: own for name, own in _parquet_columns(table).items() if only is None or name in only}
    frame = pl.read_parquet(table, columns=list(names.values()), hive_partitioning=False)
    columns = []
    for name, own in names.items():
        column = frame.get_column(own).alias(name)
        if only is None and (column.dtype.is_nested() or not _is_text(column)):
            continue
        kept = name in numbers and (column.dtype.is_numeric() or column.dtype == pl.Boolean)
        columns.append(column if kept else text_of(column, where=table.name))
    return pl.DataFrame(columns), pl.int_range(1, frame.height + 1, dtype=pl.Int64, eager=True)


def _is_text(column: pl.Series) -> bool:
    """Return whether bytes are text, as some programs write it; other columns always are."""
    try:
        return column.dtype != pl.Binary or bool(column.cast(pl.String).is_not_null().any())
    except pl.exceptions.PolarsError:
        return False


def _unreadable(table: Path, error: Exception) -> CohortError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return CohortError(
        f"cannot be read as {'Parquet' if table.suffix.lower() in _PARQUET else 'CSV'} ({reason}).",
        where=table.name,
        fix=None
        if isinstance(error, OSError)
        else "It may be truncated, or have the suffix of another format: export or download it again.",
    )

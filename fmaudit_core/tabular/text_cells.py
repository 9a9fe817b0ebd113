"""A user's file as text cells, each with its row number. The cells are interpreted in `cohort/table.py`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fmaudit_core.tabular.errors import CohortError, starting_with_rows

_SEPARATORS = ",;\t"


def read_cells(table: Path) -> tuple[pl.DataFrame, pl.Series]:
    """Read every cell as trimmed text, so that ids like ``007`` or ``123.0`` stay as written; missing cells are empty.

    Rows without content and columns without a name, which spreadsheets leave behind, are ignored.

    Returns
    -------
    The cells, and the row number of each as shown to the user: in a CSV the header is row 1, in a Parquet file the first study
    is.

    Raises
    ------
    CohortError
        The file cannot be read, holds no row, names a column twice, or a row's number of cells differs from the header's.
    """
    suffix = table.suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            frame = pl.read_parquet(table).select(pl.all().cast(pl.String))
            header, rows = _header(frame.columns, table), pl.Series(range(1, frame.height + 1), dtype=pl.Int64)
            frame = frame.rename(dict(zip(frame.columns, header, strict=True)))
        elif suffix in (".csv", ".tsv", ".txt"):
            frame, rows = _read_csv(table)
        else:
            raise CohortError("is neither CSV nor Parquet.", where=table.name, fix="Save it as .csv or .parquet.")
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise CohortError(f"cannot be read ({reason}).", where=table.name) from error
    trimmed = frame.select(pl.all().fill_null("").str.strip_chars())
    filled = trimmed.select(any=pl.any_horizontal(pl.all() != "")).get_column("any")
    if not filled.any():
        raise CohortError("has no studies.", where=table.name)
    return trimmed.filter(filled), rows.filter(filled)


def _read_csv(table: Path) -> tuple[pl.DataFrame, pl.Series]:
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CohortError(
            "is not UTF-8 text.", where=table.name, fix="Save it as UTF-8; Excel calls this format `CSV UTF-8`."
        ) from error
    first = text.split("\n", 1)[0].strip()
    declared = re.fullmatch(r"sep=(.)", first, re.IGNORECASE)  # first line written by Excel
    separator = declared[1] if declared else max(_SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        numbered = list(enumerate(reader, start=1))[1 if declared else 0 :]
    except csv.Error as error:
        raise CohortError(
            f"cannot be read as CSV at or before line {reader.line_num} ({error}).",
            where=table.name,
            fix='A quotation mark that is opened must be closed; inside quotes it is doubled: "".',
        ) from error
    if not numbered:
        raise CohortError("is empty.", where=table.name)
    header = _header(numbered[0][1], table)
    body = [(row, _without_blank_end(cells, len(header))) for row, cells in numbered[1:] if any(map(str.strip, cells))]
    ragged = [row for row, cells in body if len(cells) != len(header)]
    if ragged:
        raise CohortError(
            f"{starting_with_rows(ragged)}: fewer or more cells than the header's {len(header)}.",
            where=table.name,
            fix="A blank cell still needs its separator; text that holds the separator needs quotes.",
        )
    columns = {name: [cells[i] for _, cells in body] for i, name in enumerate(header) if name}
    return pl.DataFrame(columns, dict.fromkeys(columns, pl.String)), pl.Series([row for row, _ in body], dtype=pl.Int64)


def _without_blank_end(cells: list[str], width: int) -> list[str]:
    """Return the cells of a row without blank ones beyond the header's width."""
    return cells[:width] if not any(map(str.strip, cells[width:])) else cells


def _header(names: Sequence[str], table: Path) -> list[str]:
    header = [name.strip().strip("\ufeff").strip() for name in names]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise CohortError(
            f"column {', '.join(twice)} appears twice.", where=table.name, fix="Rename or remove one of them."
        )
    return header

"""Columns of third-party tables: found in any case, under the names known from releases, and scanned lazily.

The strict reader for a user's own table is `text_cells.py`; tables here are large, come from a release, and are not modified.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO, cast

import polars as pl

from fmaudit_core.tabular.errors import CohortError, columns_named
from fmaudit_core.tabular.words import trimmed

DELIMITED: Final = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
PARQUET: Final = (".parquet", ".pq")
#: the first row of a delimited file below its header
FIRST_ROW: Final = 2
_TIME_FORMATS: Final = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")


@dataclass(frozen=True)
class Column:
    """A requested column.

    Parameters
    ----------
    name : str
        Name in fmaudit.
    theirs : tuple of str
        Names in the file, in order of preference; case does not matter.
    needed : bool
        If True, a file without it is refused; otherwise the column is empty.
    """

    name: str
    theirs: tuple[str, ...]
    needed: bool = True


def is_table(path: Path) -> bool:
    """Return whether a file name has the suffix of a delimited or Parquet table."""
    return path.name.lower().endswith((*DELIMITED, *PARQUET))


def scan_table(path: Path, columns: Sequence[Column], *, rows: bool = False) -> pl.LazyFrame:
    """Return a lazy scan of some columns under fmaudit's names; only the header is read.

    Parameters
    ----------
    rows : bool
        Add `row`, the row number as shown to a user.

    Returns
    -------
    Columns in the requested order: trimmed text for delimited files (an empty cell is NULL), the file's own types for Parquet; an
    optional column that is missing is NULL.

    Raises
    ------
    CohortError
        The file cannot be read, or lacks a required column; the message gives the column, its aliases, and the existing columns.
    """
    frame = _scan(path)
    found = header_of(frame, path)
    by_lower = {trimmed(name).lower(): name for name in reversed(found)}
    chosen: list[pl.Expr] = []
    for column in columns:
        match = next((by_lower[name.lower()] for name in column.theirs if name.lower() in by_lower), None)
        if match is None and column.needed:
            wanted, aliases = column.theirs[0], ", ".join(column.theirs[1:])
            raise CohortError(
                f"column {wanted} is missing{f' (also known as {aliases})' if aliases else ''}; the columns are "
                f"{columns_named(found)}.",
                where=path.name,
                fix="This may be another release or another file; rename the column if it has another name.",
            )
        chosen.append((pl.lit(None, dtype=pl.String) if match is None else _cell(path, match)).alias(column.name))
    if rows:
        frame = frame.with_row_index("row", FIRST_ROW if _is_delimited(path) else 1)
        chosen.insert(0, pl.col("row").cast(pl.Int64))
    return frame.select(chosen)


def header_of(frame: pl.LazyFrame, path: Path) -> list[str]:
    """Return the names of a scanned file's columns, as spelled in the file."""
    try:
        return frame.collect_schema().names()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(path.name, error) from error


def scan_header(path: Path) -> list[str]:
    """Return the names of a file's columns, as spelled in the file."""
    return header_of(_scan(path), path)


def collected(frame: pl.LazyFrame, *, where: str) -> pl.DataFrame:
    """Compute the rows of a scan with the streaming engine.

    Raises
    ------
    CohortError
        A file is damaged. The library's message is left out, since it may quote a cell.
    """
    try:
        return frame.collect(engine="streaming")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(where, error) from error


def whole_number(column: str) -> pl.Expr:
    """Return an expression: an id, number or text, as Int64, also for ``92629710.0``; NULL if it is not a number."""
    return id_text(column).cast(pl.Int64, strict=False)


def id_text(column: str) -> pl.Expr:
    """Return an expression: an id as trimmed text, without the ``.0`` that spreadsheets or float columns add; NULL if blank."""
    text = pl.col(column).cast(pl.String).str.strip_chars().str.replace(r"^(-?\d+)\.0*$", "${1}")
    return pl.when(text != "").then(text)


def moment(column: str) -> pl.Expr:
    """Return an expression: ISO text with ``T`` or a space, with or without time, fraction and zone, as datetime (us); else NULL.

    The result is the local clock time: a zone or an offset from UTC is ignored, not added, so that 23:10+09:00 stays 23:10.
    """
    text = pl.col(column).str.strip_chars().str.replace(r"^(\d{4}-\d{2}-\d{2})T", "${1} ")
    text = text.str.replace(r"\s*(Z|UTC)$", "").str.replace(
        r"(:[0-9]{2}(?:\.[0-9]+)?)\s*[+-][0-9]{2}(?::?[0-9]{2})?$", "${1}"
    )
    # the parser takes 05-02-20 for the year 5
    text = pl.when(text.str.contains(r"^\d{4}-")).then(text)
    return pl.coalesce(text.str.to_datetime(form, time_unit="us", strict=False) for form in _TIME_FORMATS)


def clock(column: str, schema: pl.Schema, *, where: str) -> pl.Expr:
    """Return an expression: dates, times or text as local clock time in microseconds; NULL if text is not a time.

    Raises
    ------
    CohortError
        The column has another type: 20200205 or seconds since 1970 would be read as another day.
    """
    dtype = schema[column]
    if dtype == pl.String:
        return moment(column)
    if isinstance(dtype, pl.Datetime):
        return pl.col(column).dt.replace_time_zone(None).cast(pl.Datetime("us"))
    if dtype in (pl.Date, pl.Null):
        return pl.col(column).cast(pl.Datetime("us"))
    raise CohortError(
        f"column {column} holds {dtype}, which is neither a date nor a time.",
        where=where,
        fix="Write it as a Parquet date or timestamp, or as text: 2020-02-05 or 2020-02-05 14:30.",
    )


def decimal_comma(path: Path) -> bool:
    """Return whether a file writes 7,5 for 7.5, as tables with semicolons between cells do."""
    return _is_delimited(path) and _separator(path) == ";"


def rows_of_other_width(path: Path, *, longer: bool = False) -> list[int]:
    """Return the numbers of the rows of a delimited file with fewer or more cells than its header; blank rows are ignored.

    With `longer`, only rows with more cells, other than blank ones at their end.

    The lazy scan reads missing cells at a row's end as blank, which is what a file truncated in the middle of a row contains.

    Raises
    ------
    CohortError
        The file cannot be read.
    """
    if not _is_delimited(path):
        return []
    try:
        with _opened_text(path) as file:
            rows = csv.reader(file, delimiter=_separator(path))
            width = len(next(rows, []))
            if longer:
                return [row for row, cells in enumerate(rows, FIRST_ROW) if any(cells[width:])]
            return [row for row, cells in enumerate(rows, FIRST_ROW) if cells and len(cells) != width]
    except (OSError, EOFError, csv.Error) as error:
        raise _unreadable(path.name, error) from error


def ends_early(path: Path) -> bool:
    """Return whether the last line of a delimited file has fewer cells than the header and no line end.

    A truncated file ends so, and its last code or value would be a wrong one.
    """
    if not _is_delimited(path):
        return False
    cells: list[str] = []
    with _opened_text(path) as file:
        lines = _Lines(file)
        rows = csv.reader(lines, delimiter=_separator(path))
        width = len(next(rows, []))
        for row in rows:
            cells = row
    return 0 < len(cells) < width and not lines.last.endswith(("\n", "\r"))


class _Lines:
    """The lines of a file, with the last one kept."""

    def __init__(self, file: TextIO) -> None:
        self._file, self.last = file, ""

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.last = line
            yield line


def newest(found: Sequence[Path]) -> Path:
    """Return the file with the latest date stamp in its name."""
    return max(found, key=lambda path: path.name.lower())


def _opened_text(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return cast("TextIO", gzip.open(path, "rt", encoding="utf-8", errors="replace", newline=""))
    return path.open(encoding="utf-8", errors="replace", newline="")


def _scan(path: Path) -> pl.LazyFrame:
    if not _is_delimited(path):
        return pl.scan_parquet(path, hive_partitioning=False)
    return pl.scan_csv(path, separator=_separator(path), infer_schema=False, encoding="utf8-lossy")


def _cell(path: Path, name: str) -> pl.Expr:
    cell = pl.col(name)
    if not _is_delimited(path):
        return cell
    stripped = cell.str.strip_chars()
    return pl.when(stripped != "").then(stripped)


def _is_delimited(path: Path) -> bool:
    return path.name.lower().endswith(DELIMITED)


def _separator(path: Path) -> str:
    """Return the most frequent of tab, comma, semicolon and | in the header: some TSVs of a release are CSVs."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            head = file.readline(1 << 16)
    except (OSError, EOFError) as error:
        raise _unreadable(path.name, error) from error
    return max(("\t", ",", ";", "|"), key=lambda one: head.count(one.encode()))


def _unreadable(where: str, error: Exception) -> CohortError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return CohortError(
        f"cannot be read as a table ({reason}).", where=where, fix="It may be truncated: download it again."
    )

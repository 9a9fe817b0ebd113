"""Delimited text as columns of text: by polars if the file is regular, else cell by cell with the reason for a refusal."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import how_many
from fmaudit_core.tabular.errors import CohortError, starting_with_rows
from fmaudit_core.tabular.file_bytes import FileBytes, count_byte, ends_with, inspect_bytes, refuse_other_formats
from fmaudit_core.tabular.words import ENDS, trimmed

#: in order of preference
SEPARATORS: Final = ",;\t|"
_SEPARATOR_NAMES: Final = "comma, semicolon, tab or |"
_BATCH: Final = 50_000
_SHOWN_RAGGED: Final = 1_000
#: rows below the header in which its cells are searched for
_LOOKED_AT: Final = 200


@dataclass(frozen=True)
class Layout:
    """How a delimited file is written.

    Parameters
    ----------
    separator : str
    header_row : int
        Row of the column names: 2 after Excel's line ``sep=;``, else 1.
    header : tuple of str
        Trimmed; a column without a name is the empty text.
    """

    separator: str
    header_row: int
    header: tuple[str, ...]

    @property
    def decimal_comma(self) -> bool:
        """Return whether 0,5 may mean 0.5 in this file."""
        return self.separator != ","


def find_layout(table: Path, expected: Collection[str] = ()) -> Layout:
    """Find the separator and the header of a file.

    Parameters
    ----------
    expected : collection of str
        Column names that the caller needs; they tell a header from a first row of data.

    Raises
    ------
    CohortError
        The file is empty, has no header, names a column twice, or has another separator.
    """
    inspect_head(table)
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = re.split(r"\r\n|\n|\r", file.read(1 << 20), maxsplit=2)
    if not lines or not any(map(str.strip, lines)):
        raise CohortError("is empty.", where=table.name)
    declared = re.fullmatch(r'"?sep=(.)"?', lines[0].strip(), re.IGNORECASE)  # first line written by Excel
    first = lines[1] if declared and len(lines) > 1 else lines[0]
    separator = declared[1] if declared else max(SEPARATORS, key=first.count)
    rows = _rows(table, separator)
    try:
        cells = next(itertools.islice(rows, 1 if declared else 0, None))[1]
    except StopIteration:
        raise CohortError("is empty.", where=table.name) from None
    layout = Layout(separator, 2 if declared else 1, tuple(clean_header(cells)))
    _check_header(layout, expected, table, [cells for _, cells in itertools.islice(rows, _LOOKED_AT)])
    return layout


def inspect_head(table: Path) -> None:
    """Refuse a file whose beginning is not UTF-8 text."""
    with table.open("rb") as file:
        head = file.read(1 << 12)
    refuse_other_formats(head, table)
    if b"\0" in head or not head.isascii():  # a byte order mark is not ASCII
        inspect_bytes(table, ",")


def clean_header(names: Sequence[str]) -> list[str]:
    """Return column names in Unicode NFC, without white space and invisible characters at their ends."""
    return [trimmed(name) for name in names]


def refuse_repeated_names(header: Sequence[str], table: Path) -> None:
    """Refuse a header that names a column twice."""
    twice = sorted(name for name, n in Counter(header).items() if name and n > 1)
    if twice:
        raise CohortError(
            f"column {', '.join(twice)} appears twice.", where=table.name, fix="Rename or remove one of them."
        )


def is_regular(table: Path, layout: Layout) -> bool:
    """Return whether every line has, as far as totals tell, as many cells as the header, and no cell is quoted."""
    lines = count_byte(table, "\n") + (not ends_with(table, "\n"))
    return not count_byte(table, '"') and count_byte(table, layout.separator) == lines * (len(layout.header) - 1)


def read_delimited(table: Path, layout: Layout, only: Collection[str] | None = None) -> tuple[pl.DataFrame, pl.Series]:
    """Return columns as trimmed text (blank cells are null) and the row number of each row; blank rows are included.

    Raises
    ------
    CohortError
        The file is not UTF-8 text, a row is shorter or longer than the header, or a quotation mark is not closed.
    """
    found = inspect_bytes(table, layout.separator)
    at = [i for i, name in enumerate(layout.header) if name and (only is None or name in only)]
    read = _read_regular(table, layout, at, found)
    frame, rows = read if read is not None else _read_irregular(table, layout, at)
    if found.blanks or found.quotes:
        frame = frame.select(pl.all().str.strip_chars(ENDS))
    return frame, rows


def _read_regular(
    table: Path, layout: Layout, at: Sequence[int], found: FileBytes
) -> tuple[pl.DataFrame, pl.Series] | None:
    """Return the columns of a file without quotation marks whose rows all have the header's width; None for another file."""
    if found.quotes or found.lone_returns or len(layout.header) < 2:
        return None
    names = [str(i) for i in range(len(layout.header))]
    last = names[-1]
    try:
        frame = pl.read_csv(
            table,
            has_header=False,
            skip_lines=layout.header_row,
            schema=dict.fromkeys(names, pl.String),
            columns=sorted({*at, len(names) - 1}),
            separator=layout.separator,
            quote_char=None,
        )
    except pl.exceptions.PolarsError:
        return None
    if frame.get_column(last).null_count():  # blank cells, or rows that end early
        of_header = 1 + (layout.header_row == 2)  # the line `sep=;` has one separator, if it is not a comma
        expected = (frame.height + 1) * (len(names) - 1) + of_header - 1
        if count_byte(table, layout.separator) != expected:
            return None
    frame = frame.select(pl.col(names[i]).alias(layout.header[i]) for i in at)
    first = layout.header_row + 1
    return frame, pl.int_range(first, first + frame.height, dtype=pl.Int64, eager=True)


def _read_irregular(table: Path, layout: Layout, at: Sequence[int]) -> tuple[pl.DataFrame, pl.Series]:
    width, parts, numbers = len(layout.header), list[pl.DataFrame](), list[pl.Series]()
    ragged: dict[int, int] = {}  # row -> number of its cells
    schema = {layout.header[i]: pl.String for i in at}
    body = ((row, cells) for row, cells in _rows(table, layout.separator) if row > layout.header_row)
    while batch := list(itertools.islice(body, _BATCH)):
        filled = [(row, _without_blank_end(cells, width)) for row, cells in batch if any(map(str.strip, cells))]
        ragged |= {row: len(cells) for row, cells in filled if len(cells) != width}
        if not ragged:
            columns = {layout.header[i]: [cells[i] for _, cells in filled] for i in at}
            parts.append(pl.DataFrame(columns, schema))
            numbers.append(pl.Series([row for row, _ in filled], dtype=pl.Int64))
        elif len(ragged) > _SHOWN_RAGGED:
            break
    if ragged:
        raise CohortError(
            f"{starting_with_rows(list(ragged))}: {_how_ragged(set(ragged.values()))} the header's {width}.",
            where=table.name,
            fix="A blank cell still needs its separator; text that holds the separator needs quotes; comments and totals "
            "do not belong in the file.",
        )
    frame = pl.concat([pl.DataFrame(schema=schema), *parts])
    return frame.with_columns(pl.all().replace("", None)), pl.concat([pl.Series(dtype=pl.Int64), *numbers])


def _how_ragged(widths: set[int]) -> str:
    if len(widths) == 1:
        return f"{how_many(min(widths), 'cell')} instead of"
    return "fewer or more cells than"


def _rows(table: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a file with their numbers, from 1; a blank line is a row without cells."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
        try:
            yield from enumerate(reader, start=1)
        except csv.Error as error:
            raise CohortError(
                f"cannot be read as CSV at or before line {reader.line_num} ({error}).",
                where=table.name,
                fix='A quotation mark that is opened must be closed; inside quotes it is doubled: "".',
            ) from error
        except UnicodeDecodeError:
            inspect_bytes(table, separator)
            raise


def _without_blank_end(cells: list[str], width: int) -> list[str]:
    """Return the cells of a row without blank ones beyond the header's width."""
    return cells[:width] if not any(map(str.strip, cells[width:])) else cells


def _check_header(layout: Layout, expected: Collection[str], table: Path, below: Sequence[Sequence[str]]) -> None:
    header, line, second = layout.header, layout.header_row, below[0] if below else ()
    wanted = {name.lower() for name in expected}
    known = wanted & {name.lower() for name in header}
    example = f", such as {', '.join(sorted(expected)[:3])}" if expected else ""
    fix = f"Begin the file with a line of column names{example}."
    if not any(header):
        raise CohortError(f"line {line} is blank, not a header.", where=table.name, fix=fix)
    if header and header[0].startswith("#") and not known:
        raise CohortError(f"line {line} is a comment, not a header.", where=table.name, fix=fix)
    filled = sum(map(bool, header))
    if filled == 1 and len([cell for cell in second if cell.strip()]) > 1:
        raise CohortError(
            f"line {line} has one cell and the next line {len(second)}, so line {line} is not a header.",
            where=table.name,
            fix=fix,
        )
    numbers = [cell for cell in header if re.fullmatch(r"[+-]?\d*[.,]?\d+%?", cell)]
    if numbers and not known and (expected or any(set(".,") & set(cell) for cell in numbers)):
        raise CohortError(
            f"has no header: line {line} holds numbers where column names are needed.", where=table.name, fix=fix
        )
    if not known and _recurring(header, below) > 1:
        raise CohortError(f"has no header: the cells of line {line} recur below it.", where=table.name, fix=fix)
    refuse_repeated_names(header, table)
    if filled == 1 and len(expected) > 1:
        found = [one for one, _ in Counter(re.findall(r"[^\w\s]|\s+", header[0])).most_common(1)]
        text = f"; it has {found[0]!r} between words" if found else ""
        raise CohortError(
            f"line {line} has one column only: no {_SEPARATOR_NAMES} separates its cells{text}.",
            where=table.name,
            fix="Save the file with one of these separators.",
        )


def _recurring(header: Sequence[str], below: Sequence[Sequence[str]]) -> int:
    """Return in how many columns the cell of the header is also a cell below it, as in a first row of data."""
    return sum(
        any(len(cells) > at and trimmed(cells[at]) == name for cells in below) for at, name in enumerate(header) if name
    )

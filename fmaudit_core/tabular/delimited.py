"""Layout of a delimited file: its separator and its header, or the reason why it has none. `batches.py` reads the rows."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.file_bytes import count_byte, ends_with, inspect_bytes, refuse_other_formats
from fmaudit_core.tabular.words import trimmed

#: in order of preference
SEPARATORS: Final = ",;\t|"
_SEPARATOR_NAMES: Final = "comma, semicolon, tab or |"
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
    rows = csv_rows(table, separator)
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


def csv_rows(table: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
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

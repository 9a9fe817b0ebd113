"""Rows of a delimited file in batches, so that what is held at once does not grow with the file.

Blocks of whole lines are parsed by polars as long as every line has the header's number of cells; other blocks, and files with
quotation marks, are read cell by cell, which gives the reason for a refusal.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

import numpy as np
import polars as pl

from fmaudit_core.common.vocabulary import how_many
from fmaudit_core.tabular.delimited import Layout, csv_rows
from fmaudit_core.tabular.errors import CohortError, starting_with_rows
from fmaudit_core.tabular.file_bytes import inspect_bytes
from fmaudit_core.tabular.words import ENDS

#: bytes per block
_BLOCK: Final = 16 << 20
#: blocks that are parsed at the same time, each on one core
_AT_ONCE: Final = 2
_ROWS: Final = 50_000
_SHOWN_RAGGED: Final = 1_000

#: cells (blank ones are null) and the number of each row
Batch: TypeAlias = tuple[pl.DataFrame, pl.Series]
#: name of a column -> type in which its cells may come
TypeOf: TypeAlias = Callable[[str], pl.DataType]


def read_batches(
    table: Path, layout: Layout, only: Collection[str] | None = None, type_of: TypeOf = lambda _: pl.String()
) -> Iterator[Batch]:
    """Yield columns as trimmed text or another type, and the number of each row, in batches; blank rows are included.

    Parameters
    ----------
    only : collection of str, optional
        Columns to read; all if not given.
    type_of : callable, optional
        Type in which a column may come: String, Float64, or Categorical. A batch that does not fit is text.

    Raises
    ------
    CohortError
        The file is not UTF-8 text, a row is shorter or longer than the header, or a quotation mark is not closed.
    """
    found = inspect_bytes(table, layout.separator)
    at = [i for i, name in enumerate(layout.header) if name and (only is None or name in only)]
    if found.quotes or found.lone_returns or len(layout.header) < 2:
        batches = _by_cells(table, layout, at)
    else:
        types = {i: type_of(layout.header[i]) for i in at}
        if found.blanks:  # cells are trimmed before they get a code
            types = {i: pl.String() if isinstance(dtype, pl.Categorical) else dtype for i, dtype in types.items()}
        batches = _by_blocks(table, layout, types)
    for frame, rows in batches:
        yield (frame.select(_trimmed(column) for column in frame) if found.blanks or found.quotes else frame), rows


def _trimmed(column: pl.Series) -> pl.Expr:
    of = pl.col(column.name)
    return of.str.strip_chars(ENDS) if column.dtype == pl.String else of


def _by_blocks(table: Path, layout: Layout, types: Mapping[int, pl.DataType]) -> Iterator[Batch]:
    """Yield the rows of a file without quotation marks, in which each line is a row."""
    ragged = _RaggedRows(table, layout)
    row = layout.header_row + 1
    for block, frame in _parsed_blocks(table, layout.header_row, _BlockParser(layout, types)):
        if frame is None:
            lines = io.StringIO(block.decode(), newline="")
            cells = csv.reader(lines, delimiter=layout.separator, skipinitialspace=True)
            yield from _frames(enumerate(cells, row), layout, list(types), ragged)
        elif not ragged.found:
            yield frame, pl.int_range(row, row + frame.height, dtype=pl.Int64, eager=True)
        row += _n_lines(block) if frame is None else frame.height
        if ragged.enough:
            break
    ragged.refuse()


def _parsed_blocks(
    table: Path, header_row: int, parse: Callable[[bytes], pl.DataFrame | None]
) -> Iterator[tuple[bytes, pl.DataFrame | None]]:
    """Yield the blocks below the header with their rows, in order."""
    waiting = deque[tuple[bytes, Future[pl.DataFrame | None]]]()
    with table.open("rb") as file, ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in range(header_row):
            file.readline()
        for block in _blocks(file):
            waiting.append((block, pool.submit(parse, block)))
            if len(waiting) > _AT_ONCE:
                done, frame = waiting.popleft()
                yield done, frame.result()
        for done, frame in waiting:
            yield done, frame.result()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield whole lines from the position of a file on."""
    start, end = file.tell(), file.seek(0, os.SEEK_END)
    while start < end:
        file.seek(min(start + _BLOCK, end))
        file.readline()
        size = file.tell() - start
        file.seek(start)
        yield file.read(size)  # at once, since a second piece would be copied
        start += size


def _n_lines(block: bytes) -> int:
    return _count(block, "\n") + (not block.endswith(b"\n"))


def _count(block: bytes, char: str) -> int:
    """Return how often an ASCII character occurs; `bytes.count` is slow for frequent ones."""
    return int(np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == ord(char)))


class _BlockParser:
    """Parse blocks of lines without quotation marks."""

    def __init__(self, layout: Layout, types: Mapping[int, pl.DataType]) -> None:
        self._separator, self._width = layout.separator, len(layout.header)
        self._names = {i: layout.header[i] for i in types}
        self._types = dict(types)

    def __call__(self, block: bytes) -> pl.DataFrame | None:
        """Return the columns of a block; None if not every line has the header's number of cells."""
        frame = self._parsed(block)
        if frame is None and self._types:
            self._types = {}  # a cell that is no plain number, or too many levels: the rest of the file is parsed as text
            frame = self._parsed(block)
        if frame is None or not self._is_regular(frame, block):
            return None
        return frame.select(pl.col(str(i)).alias(name) for i, name in self._names.items())

    def _is_regular(self, frame: pl.DataFrame, block: bytes) -> bool:
        """Return whether no line ended early: polars fills its last cells with null, and has refused lines that are too long."""
        if not frame.get_column(str(self._width - 1)).null_count():
            return True
        n_lines = _n_lines(block)
        return frame.height == n_lines and _count(block, self._separator) == n_lines * (self._width - 1)

    def _parsed(self, block: bytes) -> pl.DataFrame | None:
        last = self._width - 1  # without it, polars would not see cells beyond the header's width
        try:
            return pl.read_csv(
                block,
                has_header=False,
                schema={str(i): self._types.get(i, pl.String()) for i in range(self._width)},
                columns=sorted({*self._names, last}),
                separator=self._separator,
                quote_char=None,
            )
        except pl.exceptions.PolarsError:
            return None


class _RaggedRows:
    """Rows whose number of cells differs from the header's, in one error."""

    def __init__(self, table: Path, layout: Layout) -> None:
        self._where, self._width = table.name, len(layout.header)
        self._widths: dict[int, int] = {}

    @property
    def found(self) -> bool:
        return bool(self._widths)

    @property
    def enough(self) -> bool:
        return len(self._widths) > _SHOWN_RAGGED

    def add(self, rows: Iterable[tuple[int, list[str]]]) -> None:
        self._widths |= {row: len(cells) for row, cells in rows if len(cells) != self._width}

    def refuse(self) -> None:
        """Raise the error if there is such a row."""
        if not self._widths:
            return
        widths = set(self._widths.values())
        how = f"{how_many(min(widths), 'cell')} instead of" if len(widths) == 1 else "fewer or more cells than"
        raise CohortError(
            f"{starting_with_rows(list(self._widths))}: {how} the header's {self._width}.",
            where=self._where,
            fix="A blank cell still needs its separator; text that holds the separator needs quotes; comments and totals "
            "do not belong in the file.",
        )


def _by_cells(table: Path, layout: Layout, at: Sequence[int]) -> Iterator[Batch]:
    """Yield the rows of any file."""
    ragged = _RaggedRows(table, layout)
    body = ((row, cells) for row, cells in csv_rows(table, layout.separator) if row > layout.header_row)
    yield from _frames(body, layout, at, ragged)
    ragged.refuse()


def _frames(
    body: Iterable[tuple[int, list[str]]], layout: Layout, at: Sequence[int], ragged: _RaggedRows
) -> Iterator[Batch]:
    """Yield rows of cells as frames, without blank rows; none from the first ragged row on."""
    width, rows = len(layout.header), iter(body)
    schema = {layout.header[i]: pl.String for i in at}
    while batch := list(itertools.islice(rows, _ROWS)):
        filled = [(row, _without_blank_end(cells, width)) for row, cells in batch if any(map(str.strip, cells))]
        ragged.add(filled)
        if not ragged.found:
            columns = {layout.header[i]: [cells[i] for _, cells in filled] for i in at}
            numbers = pl.Series([row for row, _ in filled], dtype=pl.Int64)
            yield pl.DataFrame(columns, schema).with_columns(pl.all().replace("", None)), numbers
        elif ragged.enough:
            break


def _without_blank_end(cells: list[str], width: int) -> list[str]:
    """Return the cells of a row without blank ones beyond the header's width."""
    return cells[:width] if not any(map(str.strip, cells[width:])) else cells

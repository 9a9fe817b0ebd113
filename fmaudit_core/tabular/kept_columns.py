"""Columns of a table that is read in batches: ids are kept as text, numbers as Float64, other columns as codes of levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import polars as pl

from fmaudit_core.tabular.batches import Batch, TypeOf
from fmaudit_core.tabular.numbers import read_numbers

#: types of codes, tried in order; a column with more levels than the last one has holds ids or free text
_CODES: Final = (pl.UInt8, pl.UInt16)


@dataclass(frozen=True)
class Forms:
    """The form in which each column is kept; by default, text is kept as text.

    Parameters
    ----------
    numbers : collection of str
        Columns that keep a numeric or Boolean type of Parquet.
    scores : collection of str
        Those of them that become Float64 if they are text and every cell is a number or not recorded.
    levels : bool
        Keep other columns than `text` as an Enum of their levels, unless a column has more than 65,535.
    text : collection of str
        Columns that hold ids.
    """

    numbers: Collection[str] = ()
    scores: Collection[str] = ()
    levels: bool = False
    text: Collection[str] = ()


AS_TEXT: Final = Forms()


def kept(
    read: Callable[[TypeOf], Iterator[Batch]], forms: Forms, *, comma: bool = False
) -> tuple[pl.DataFrame, pl.Series]:
    """Return the rows of all batches, without blank ones, and their numbers; blank text is the empty text.

    The batches are read again if a column cannot be kept in its form; it gets wider codes, or is text.

    Parameters
    ----------
    read : callable
        Takes the type in which a column may come.
    comma : bool
        Read ``0,5`` as 0.5.
    """
    tries: Counter[str] = Counter()
    while True:
        table, failed = _KeptTable(forms, tries, comma=comma), set[str]()
        for batch in read(table.type_of):
            failed = table.add(batch)
            if failed:
                break
        if not failed:
            return table.frame()
        tries.update(failed)


class _KeptTable:
    """The columns of a table, and the numbers of its rows."""

    def __init__(self, forms: Forms, tries: Mapping[str, int], *, comma: bool) -> None:
        self._forms, self._tries, self._comma = forms, dict(tries), comma
        self._levels: dict[str, _KeptLevels] = {}
        self._columns: dict[str, _KeptColumn] = {}
        self._rows = [pl.Series("row", dtype=pl.Int64)]

    def type_of(self, name: str) -> pl.DataType:
        """Return the type in which text of a column may come."""
        tries = self._tries.get(name, 0)
        if name in self._forms.scores:
            return pl.String() if tries else pl.Float64()
        if name in self._forms.text or not self._forms.levels or tries == len(_CODES):
            return pl.String()
        return self._levels.setdefault(name, _KeptLevels(name, _CODES[tries])).codes

    def add(self, batch: Batch) -> set[str]:
        """Add a batch; return the columns whose cells cannot be kept in their form."""
        cells, rows = _with_content(self._with_codes(batch[0]), batch[1])
        self._rows.append(rows)
        for column in cells:
            if column.name not in self._columns:
                self._columns[column.name] = self._form(column)
        return {column.name for column in cells if not self._columns[column.name].add(column)}

    def frame(self) -> tuple[pl.DataFrame, pl.Series]:
        """Return all rows."""
        return pl.DataFrame([one.column() for one in self._columns.values()]), pl.concat(self._rows, rechunk=False)

    def _with_codes(self, cells: pl.DataFrame) -> pl.DataFrame:
        """Return a batch with codes in place of text, all columns at the same time; text if a column has too many levels."""
        types = {column.name: self.type_of(column.name) for column in cells if column.dtype == pl.String}
        codes = {
            name: pl.when(pl.col(name) != "").then(pl.col(name)).cast(dtype)
            for name, dtype in types.items()
            if isinstance(dtype, pl.Categorical)
        }
        try:
            return cells.with_columns(**codes)
        except pl.exceptions.ComputeError:
            return cells.with_columns(**{name: one for name, one in codes.items() if _works(cells, one)})

    def _form(self, column: pl.Series) -> _KeptColumn:
        name, is_text = column.name, column.dtype == pl.String
        if name in self._forms.scores and not self._tries.get(name) and (is_text or column.dtype == pl.Float64):
            return _KeptNumbers(name, comma=self._comma)
        if name in self._levels and (is_text or column.dtype == self._levels[name].codes):
            return self._levels[name]
        return _KeptAsRead(name, column.dtype)


def _works(cells: pl.DataFrame, expression: pl.Expr) -> bool:
    try:
        cells.select(expression)
    except pl.exceptions.ComputeError:
        return False
    return True


class _KeptColumn(Protocol):
    """A column that grows by batches."""

    def add(self, cells: pl.Series) -> bool:
        """Add the cells of a batch; return False if they cannot be kept in this form."""
        ...

    def column(self) -> pl.Series:
        """Return all cells."""
        ...


class _KeptAsRead:
    """Cells as they were read, text or another type."""

    def __init__(self, name: str, dtype: pl.DataType) -> None:
        self._parts = [pl.Series(name, dtype=dtype)]

    def add(self, cells: pl.Series) -> bool:
        self._parts.append(cells)
        return True

    def column(self) -> pl.Series:
        return pl.concat(self._parts, rechunk=False)


class _KeptNumbers:
    """Numbers; a blank cell, or a word for it, is null."""

    def __init__(self, name: str, *, comma: bool) -> None:
        self._parts, self._comma = [pl.Series(name, dtype=pl.Float64)], comma

    def add(self, cells: pl.Series) -> bool:
        if cells.dtype == pl.Float64:
            self._parts.append(cells)
            return True
        numbers, unreadable = read_numbers(cells, comma=self._comma)
        self._parts.append(numbers)
        return not unreadable.any()

    def column(self) -> pl.Series:
        return pl.concat(self._parts, rechunk=False)


class _KeptLevels:
    """Codes of levels, one or two bytes per cell."""

    def __init__(self, name: str, physical: type[pl.DataType]) -> None:
        self.codes = pl.Categorical(pl.Categories.random(physical=physical))
        self._parts = [pl.Series(name, dtype=self.codes)]

    def add(self, cells: pl.Series) -> bool:
        if cells.dtype == pl.String:  # too many levels for the codes
            return False
        self._parts.append(cells)
        return True

    def column(self) -> pl.Series:
        """Return the cells as Enum of the levels in alphabetical order."""
        name = self._parts[0].name
        known = pl.concat([part.unique() for part in self._parts]).unique()
        words, codes = known.drop_nulls().cast(pl.String).to_list(), known.drop_nulls().to_physical().to_list()
        levels = sorted({*words, *([""] if known.null_count() else [])})
        place = {level: at for at, level in enumerate(levels)}
        places = np.zeros(max(codes, default=0) + 1, dtype=np.uint16)
        places[codes] = [place[word] for word in words]
        target = pl.Enum(levels)
        of_code = pl.Series(name, places).cast(pl.Series(dtype=target).to_physical().dtype)
        parts: list[pl.Series] = []
        while self._parts:  # each part is freed once it is converted
            at = of_code.gather(self._parts.pop(0).to_physical())
            parts.append(at.fill_null(place.get("", 0)).cat.to(target))
        return pl.concat(parts, rechunk=False)


def _with_content(cells: pl.DataFrame, rows: pl.Series) -> Batch:
    """Return the rows that are not blank, with blank text as the empty text."""
    cells = cells.with_columns(pl.col(pl.String).fill_null(""))
    if cells.width and all(_may_be_blank(column) for column in cells):
        filled = cells.select(any=pl.any_horizontal(_filled(column) for column in cells)).get_column("any")
        return cells.filter(filled), rows.filter(filled)
    return cells, rows


def _may_be_blank(column: pl.Series) -> bool:
    return bool((column == "").any()) if column.dtype == pl.String else column.null_count() > 0


def _filled(column: pl.Series) -> pl.Expr:
    of = pl.col(column.name)
    return (of != "") if column.dtype == pl.String else of.is_not_null()

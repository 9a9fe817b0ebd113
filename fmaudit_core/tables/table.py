"""Declaration of a published table, and what is checked when it is published. Columns: columns.py. Tables: schemas.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from fmaudit_core.common import vocabulary
from fmaudit_core.common.errors import FmauditError
from fmaudit_core.tables.columns import COLUMNS, Column

#: columns that several tables share, in this order
VARIANT: Final = " ".join(vocabulary.VARIANT)
SCORE_SET: Final = " ".join(vocabulary.SCORE_SET)
RUN: Final = "encoder task strategy target_attribute alpha seed"
COUNTS: Final = "n n_pos n_neg"
ESTIMATE: Final = "value ci_low ci_high"

ENCODER: Final = "encoder"
ENCODER_AND_TASK: Final = "encoder and task"


class TableError(FmauditError):
    """A frame is not what its table declares."""


@dataclass(frozen=True)
class Further:
    """Columns that the cohort or the settings add to a table.

    Parameters
    ----------
    shown : str
        Their name in the documentation.
    pattern : str
        Regular expression of their names.
    column : Column
        Their type, or None if it may be any, and their meaning.
    """

    shown: str
    pattern: str
    column: Column


@dataclass(frozen=True)
class Table:
    """A table of the warehouse.

    Parameters
    ----------
    name, row : str
        Its name, and what one row is.
    per : str
        `ENCODER` or `ENCODER_AND_TASK` where it has a file for each, else empty.
    key : sequence of str
        Columns that no two rows share, blanks counted as values; empty if there are none.
    columns : mapping of name to Column
        In the order in which they are published.
    optional : sequence of str
        Columns that may be absent.
    further : Further, optional
    """

    name: str
    row: str
    per: str
    key: Sequence[str]
    columns: Mapping[str, Column]
    optional: Sequence[str] = ()
    further: Further | None = None
    schema: pl.Schema = field(init=False)

    def __post_init__(self) -> None:
        needed = [(name, one.dtype) for name, one in self.columns.items() if name not in self.optional]
        object.__setattr__(self, "schema", pl.Schema((name, dtype) for name, dtype in needed if dtype is not None))

    def frame(self, rows: Sequence[Mapping[str, Any]] = ()) -> pl.DataFrame:
        """Return rows as a frame of this table; columns that a row lacks are null."""
        return pl.DataFrame(rows, schema=self.schema)

    def part(self, names: str) -> pl.Schema:
        """Return the schema of some columns, separated by blanks, in the order given."""
        return pl.Schema((name, self.schema[name]) for name in names.split())

    def column(self, name: str) -> Column | None:
        """Return the declaration of a column; None if the table has no such column."""
        if name in self.columns:
            return self.columns[name]
        return self.further.column if self.further and re.fullmatch(self.further.pattern, name) else None

    def check(self, frame: pl.DataFrame) -> None:
        """Refuse a frame with other columns, other types or a repeated key.

        Raises
        ------
        TableError
            Naming the table and each column; never a value.
        """
        problems = [f"column {name} is missing" for name in self.schema if name not in frame.columns]
        for name, dtype in frame.schema.items():
            declared = self.column(name)
            if declared is None:
                problems.append(f"column {name} is not declared")
            elif declared.dtype is not None and declared.dtype != dtype:
                problems.append(f"column {name} is {dtype}, not {declared.dtype}")
        if not problems and (repeated := self._repeated(frame)):
            problems.append(f"{repeated} rows repeat the key ({', '.join(self.key)})")
        if problems:
            raise TableError(
                f"table {self.name}: {'; '.join(problems)}.",
                fix="This is a defect of fmaudit: rows must agree with the table's declaration in fmaudit_core/tables.",
            )

    def _repeated(self, frame: pl.DataFrame) -> int:
        """Count rows whose key another row has; hashes first, which need a tenth of the memory in tables of millions of rows."""
        key = frame.select(name for name in self.key if name in frame.columns)
        if not key.width or key.hash_rows().n_unique() == key.height:
            return 0
        return key.height - key.n_unique()


def declare(
    name: str, row: str, *, per: str = "", key: str = "", rest: str = "", optional: str = "",
    special: Mapping[str, Column] | None = None, further: Further | None = None,
) -> Table:  # fmt: skip
    """Declare a table by the names of its columns, whose types and meanings are those of `COLUMNS`.

    Parameters
    ----------
    key, rest, optional : str
        Names separated by blanks. Columns of the key come first, unless `rest` places them elsewhere.
    special : mapping of name to Column
        Columns that mean something else here than in other tables.
    """
    placed = rest.split()
    names = [*(one for one in key.split() if one not in placed), *placed]
    columns = {one: (special or {}).get(one) or COLUMNS[one] for one in names}
    return Table(name, row, per, tuple(key.split()), columns, tuple(optional.split()), further)

"""OMOP tables of an export: CSV or Parquet, each one file or a folder of shards, with names in any case.

This module locates the tables and their columns. Rows are interpreted elsewhere: persons in
`cohort/inspect_release/demographics.py`, events by the readers of the medical record. All access is by lazy scans: the
measurements of INSPECT have 143 million rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.scan import Column, collected, is_table, scan_header, scan_table

#: table -> its content
OMOP_TABLES: Final[Mapping[str, str]] = {
    "person": "sex, race, ethnicity and birth",
    "visit_occurrence": "visits",
    "condition_occurrence": "diagnoses",
    "drug_exposure": "drugs",
    "procedure_occurrence": "procedures",
    "measurement": "laboratory values and vital signs",
    "observation": "observations",
    "death": "deaths",
    "concept": "the vocabulary",
}
#: tables without events: persons are requested separately, deaths are never read
_NO_RECORD: Final = ("person", "death")
#: exporters number their shards: person.csv, person_000.parquet, person-000000000001.csv.gz
_STEM: Final = re.compile(rf"({'|'.join(OMOP_TABLES)})(?:[-_.]?\d+)*", re.IGNORECASE)
_SEARCHED_DEPTH: Final = 3


@dataclass(frozen=True)
class OmopTables:
    """The OMOP tables of one folder.

    Parameters
    ----------
    folder : Path
    files : mapping of table name to its files, sorted
    """

    folder: Path
    files: Mapping[str, tuple[Path, ...]]

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns, as spelled in its first file."""
        return scan_header(self._files(table)[0])

    def lacking(self) -> list[str]:
        """Return the missing tables of the medical record, each with its content."""
        there = {*self.files, *_NO_RECORD}
        return [f"{name} ({holds})" for name, holds in OMOP_TABLES.items() if name not in there]

    def scan(self, table: str, columns: Sequence[Column]) -> pl.LazyFrame:
        """Return a lazy scan of some columns of a table under fmaudit's names, with all its files concatenated.

        Raises
        ------
        CohortError
            The table is missing, or a file lacks a required column.
        """
        return pl.concat([scan_table(path, columns) for path in self._files(table)], how="vertical_relaxed")

    def read(self, table: str, columns: Sequence[Column]) -> pl.DataFrame:
        """Read some columns of a table into memory; for tables with one row per person."""
        return collected(self.scan(table, columns), where=table)

    def _files(self, table: str) -> tuple[Path, ...]:
        if table not in self.files:
            raise CohortError(
                f"the OMOP table {table} is missing; it holds {OMOP_TABLES[table]}.",
                where=str(self.folder),
                fix=f"Put {table}.csv or {table}.parquet, or a folder {table}/ of shards, next to the other tables.",
            )
        return self.files[table]


def find_omop(root: Path, *, passing_over: Sequence[str] = ()) -> OmopTables | None:
    """Return the folder at or below a root with the most OMOP tables, preferably with `person`; None if there is none.

    Parameters
    ----------
    passing_over : sequence of str
        Names of folders that are not searched: tens of thousands of volumes are not tables.
    """
    found = [OmopTables(folder, _tables_in(folder)) for folder in folders_below(root, passing_over)]
    held = [one for one in found if one.files]
    return max(held, key=lambda one: ("person" in one.files, len(one.files)), default=None)


def time_columns(names: Sequence[str], *, end: bool = False) -> list[str]:
    """Return the columns with the start (or end) of an event, the most exact first.

    The order is `*_start_DATETIME`, `*_start_DATE`, `*_DATETIME`, `*_DATE`; for an end, `*_end_DATETIME`, `*_end_DATE`. In OMOP a
    time may be blank while the date is not.
    """
    edges = ("_end_datetime", "_end_date") if end else ("_start_datetime", "_start_date")
    plain = () if end else ("_datetime", "_date")
    others = ("_end_datetime", "_end_date", "_start_datetime", "_start_date", "valid_start_date", "valid_end_date")
    found = [name for suffix in edges for name in names if name.lower().endswith(suffix)]
    found += [
        name for suffix in plain for name in names
        if name.lower().endswith(suffix) and not name.lower().endswith(others)
    ]  # fmt: skip
    return found


def folders_below(root: Path, passing_over: Sequence[str]) -> Iterator[Path]:
    """Yield a root and its folders down to three levels, sorted by name, without hidden folders and those in `passing_over`."""
    pending = [(root, 0)]
    skipped = {name.lower() for name in passing_over}
    while pending:
        folder, depth = pending.pop(0)
        if not folder.is_dir():
            continue
        yield folder
        if depth < _SEARCHED_DEPTH:
            inner = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
            pending += [(one, depth + 1) for one in inner if one.name.lower() not in skipped]


def _tables_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.lower() in OMOP_TABLES:
            shards = sorted(one for one in path.rglob("*") if one.is_file() and is_table(one))
            if shards:
                found.setdefault(path.name.lower(), []).extend(shards)
        elif path.is_file() and is_table(path):
            match = _STEM.fullmatch(path.name.split(".", 1)[0])
            if match:
                found.setdefault(match[1].lower(), []).append(path)
    return {name: tuple(files) for name, files in found.items()}

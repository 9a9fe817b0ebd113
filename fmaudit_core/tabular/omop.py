"""OMOP tables as an export leaves them: CSV or Parquet, one file or a folder of shards each, in any case of letters.

Where they lie and how their columns read; what the rows mean is for those who ask: `cohort/inspect_release/demographics.py`
reads persons, the readers of the medical record read events. Everything is a scan: the measurements of INSPECT are 143
million rows.
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

#: what each table is for
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
#: tables that hold no events: persons are asked for by those who need them, deaths are never read
_NO_RECORD: Final = ("person", "death")
#: an exporter numbers its shards: person.csv, person_000.parquet, person-000000000001.csv.gz
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
        """Names of a table's columns, as its first file spells them."""
        return scan_header(self._files(table)[0])

    def lacking(self) -> list[str]:
        """Tables of the medical record that are not there, each with what it holds."""
        there = {*self.files, *_NO_RECORD}
        return [f"{name} ({holds})" for name, holds in OMOP_TABLES.items() if name not in there]

    def scan(self, table: str, columns: Sequence[Column]) -> pl.LazyFrame:
        """Some columns of a table under our names, all its files one below the other; nothing is read yet.

        Raises
        ------
        CohortError
            The table is not there, or a file lacks a column that is needed.
        """
        return pl.concat([scan_table(path, columns) for path in self._files(table)], how="vertical_relaxed")

    def read(self, table: str, columns: Sequence[Column]) -> pl.DataFrame:
        """The same, computed: for tables with a row per person."""
        return collected(self.scan(table, columns), where=table)

    def _files(self, table: str) -> tuple[Path, ...]:
        if table not in self.files:
            raise CohortError(
                f"the OMOP table {table} is missing; it holds {OMOP_TABLES[table]}.",
                where=str(self.folder),
                fix=f"Put {table}.csv or {table}.parquet, or a folder {table}/ of shards, beside the others.",
            )
        return self.files[table]


def find_omop(root: Path, *, passing_over: Sequence[str] = ()) -> OmopTables | None:
    """The folder at or below a root that holds most OMOP tables, `person` before all; None where there is none.

    Parameters
    ----------
    passing_over : sequence of str
        Names of folders not to look into: tens of thousands of volumes are no tables.
    """
    found = [OmopTables(folder, _tables_in(folder)) for folder in folders_below(root, passing_over)]
    held = [one for one in found if one.files]
    return max(held, key=lambda one: ("person" in one.files, len(one.files)), default=None)


def time_columns(names: Sequence[str], *, end: bool = False) -> list[str]:
    """Columns that say when an event began (or ended), the most exact first; OMOP lets the time be blank where the date is not.

    The order is `*_start_DATETIME`, `*_start_DATE`, `*_DATETIME`, `*_DATE`; of an end, `*_end_DATETIME`, `*_end_DATE`.
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
    """A root and its folders down to three levels, in order of name; hidden ones and those named are passed over."""
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

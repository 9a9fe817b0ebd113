"""Where tables live, and how they are published so that a reader never sees half of one.

One Parquet file per table and cell (`<table>/encoder=<e>/task=<t>/part.parquet`), one DuckDB file of embeddings
per encoder, and `fmaudit.duckdb` with a view over each table. The digest of a table's inputs is its *version*, written
into the file itself: a copied or partly deleted workspace still records correctly what it holds. In a bucket:
`bucket_warehouse.py`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.digests import stat_texts
from fmaudit_core.tables.schemas import declared

VIEWS_FILE = "fmaudit.duckdb"
#: the scores a cell had before its present ones, with their version
PREVIOUS = "previous_predictions"
_PART = "part.parquet"
_SCHEMA = "_schema.parquet"
_VERSION_KEY = "fmaudit.version"


class WarehouseError(FmauditError):
    """A table is missing, torn or of another shape than its readers expect."""


@dataclass(frozen=True, order=True)
class Cell:
    """One partition of a table: the whole table, one encoder, or one encoder on one task."""

    encoder: str = ""
    task: str = ""

    @property
    def folders(self) -> tuple[str, ...]:
        """Hive-style folders below the table."""
        pairs = (("encoder", self.encoder), ("task", self.task))
        return tuple(f"{key}={value}" for key, value in pairs if value)

    def __str__(self) -> str:
        return " x ".join(part for part in (self.encoder, self.task) if part) or "whole"


WHOLE = Cell()


@dataclass(frozen=True)
class Published:
    """What a publish left behind."""

    table: str
    path: Path | str
    n_rows: int
    version: str


@dataclass(frozen=True)
class Warehouse:
    """All tables of one workspace, in a folder.

    Parameters
    ----------
    root : Path
        The folder `warehouse/` of the workspace; made when first published to.
    """

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def path(self, table: str, cell: Cell = WHOLE) -> Path:
        """Return the path of a table's Parquet file for one cell."""
        return self.root.joinpath(table, *cell.folders, _PART)

    def embeddings_path(self, encoder: str) -> Path:
        """Return the path of the DuckDB file of one encoder's embeddings."""
        return self.root / "embeddings" / f"{encoder}.duckdb"

    def publish(self, table: str, frame: pl.DataFrame, *, version: str, cell: Cell = WHOLE) -> Published:
        """Write one cell of a declared table (`fmaudit_core.tables`), replacing the old one in a single rename.

        Parameters
        ----------
        version : str
            Digest of the rows' inputs (`fmaudit_core.storage.digests`); kept inside the file.

        Raises
        ------
        TableError
            The frame is not what the table declares; the old cell stays.
        """
        declared(table).check(frame)
        path = self.path(table, cell)
        with written_beside(path) as temporary:
            frame.write_parquet(temporary, metadata={_VERSION_KEY: version})
        self._keep_schema(table, frame)
        return Published(table=table, path=path, n_rows=frame.height, version=version)

    def keep(self, table: str, kept: str, cell: Cell, *, before: str) -> None:
        """Copy a published cell to another table, with its version, before it is replaced; one of the version to come stays.

        Parameters
        ----------
        kept : str
            The table that takes it, in one rename, for what it held.
        before : str
            Version about to be published: a cell of that version is no predecessor of it.
        """
        version, path = self.version(table, cell), self.path(table, cell)
        if version is None or version == before:
            return
        with written_beside(self.path(kept, cell)) as temporary:
            shutil.copyfile(path, temporary)
        self._keep_schema(kept, pl.DataFrame(schema=pl.read_parquet_schema(path)))

    def read(self, table: str, cell: Cell = WHOLE) -> pl.DataFrame:
        """One cell of a table.

        Raises
        ------
        WarehouseError
            The cell was never published, or its file cannot be read.
        """
        path = self.path(table, cell)
        try:
            with path.open("rb") as file:  # polars opens a path several times, between which the file may be replaced
                return pl.read_parquet(file)
        except FileNotFoundError:
            raise not_made(self, table, cell) from None
        except pl.exceptions.PolarsError as error:
            raise WarehouseError(
                f"is torn ({error}).", where=str(path), fix="Delete the file and run `fmaudit run` again."
            ) from error
        except OSError as error:
            raise unreadable(path, error) from error

    def read_cells(self, table: str, cells: Sequence[Cell]) -> pl.DataFrame:
        """Rows of several cells, one below the other, in the order given."""
        return stacked(self, table, [self.read(table, cell) for cell in cells])

    def version(self, table: str, cell: Cell = WHOLE) -> str | None:
        """Return the version of a published cell; None if it is missing or torn.

        Raises
        ------
        WarehouseError
            It is there and cannot be read: taken for missing, it would be made again, at the cost of hours.
        """
        path = self.path(table, cell)
        try:
            with path.open("rb") as file:
                return pl.read_parquet_metadata(file).get(_VERSION_KEY)
        except (FileNotFoundError, pl.exceptions.PolarsError):
            return None
        except OSError as error:
            raise unreadable(path, error) from error

    def versions(self) -> Callable[[str, Cell], str | None]:
        """Return a function that finds the version of a cell: `version`, as one file is read as fast as many."""
        return self.version

    def cells(self, table: str) -> list[Cell]:
        """Return the published cells of a table, sorted.

        Raises
        ------
        WarehouseError
            A folder of the table cannot be read.
        """
        top = self.root / table
        found = []
        for folder, _, files in os.walk(top, onerror=_refuse):
            if _PART in files:
                keys = dict(part.split("=", 1) for part in Path(folder).relative_to(top).parts)
                found.append(Cell(**keys))
        return sorted(found)

    def tables(self) -> list[str]:
        """Names of the tables published so far."""
        return sorted(path.parent.name for path in self.root.glob(f"*/{_SCHEMA}"))

    def refresh_views(self) -> Path:
        """Publish `fmaudit.duckdb`: one view over every table, with paths relative to the warehouse."""
        target = self.root / VIEWS_FILE
        with written_beside(target) as temporary, duckdb.connect(str(temporary)) as connection:
            self._create_views(connection)
        return target

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open views over all tables from any working directory, each encoder's embeddings attached by its name.

        Nothing is written to the workspace, which may be read-only.

        Raises
        ------
        WarehouseError
            Nothing has been published yet.
        """
        if not self.tables():
            raise nothing_published(self)
        with duckdb.connect(":memory:") as connection:
            self._create_views(connection)
            for path in sorted((self.root / "embeddings").glob("*.duckdb")):
                connection.execute(f'ATTACH {_quoted(str(path))} AS "{path.stem}" (READ_ONLY)')
            yield connection

    def seen(self) -> Iterator[str]:
        """Return path, size and time of change of every file of a table or of embeddings."""
        return stat_texts([*self.root.rglob("*.parquet"), *self.root.glob("embeddings/*.duckdb")])

    def _create_views(self, connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"SET file_search_path = {_quoted(str(self.root.absolute()))}")
        for table in self.tables():
            connection.execute(
                f"CREATE VIEW \"{table}\" AS SELECT * FROM read_parquet('{table}/**/*.parquet', "
                "union_by_name=true, hive_partitioning=false)"
            )

    def _keep_schema(self, table: str, frame: pl.DataFrame) -> None:
        """Keep a zero-row file per table: a view over a glob needs one file to exist."""
        path = self.root / table / _SCHEMA
        if path.exists() and pl.read_parquet_schema(path) == frame.schema:
            return
        with written_beside(path) as temporary:
            frame.clear().write_parquet(temporary)


def stacked(where: object, table: str, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the rows of cells, one below the other."""
    if not frames:
        raise WarehouseError(f"no cell of table {table} was asked for.", where=str(where))
    return pl.concat(frames, how="diagonal_relaxed")


def not_made(where: object, table: str, cell: Cell) -> WarehouseError:
    """Return the error of a cell that was never published."""
    return WarehouseError(
        f"table {table} ({cell}) has not been made yet.",
        where=str(where),
        fix="Run `fmaudit run`, or materialise it in the UI.",
    )


def nothing_published(where: object) -> WarehouseError:
    """Return the error of a query before anything was published."""
    return WarehouseError("holds no table yet.", where=str(where), fix="Run `fmaudit run` first.")


def unreadable(path: Path, error: OSError) -> WarehouseError:
    """Return the error of a file that is there and cannot be read, as when a mount is gone."""
    return WarehouseError(
        f"cannot be read: {(error.strerror or str(error)).lower()}.",
        where=str(path),
        fix="Check its permissions. Check its disk or mount. Then run again; nothing was recomputed.",
    )


def _refuse(error: OSError) -> None:
    """Raise what `os.walk` could not read; a folder that is missing holds nothing."""
    if not isinstance(error, FileNotFoundError):
        raise unreadable(Path(error.filename), error) from error


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

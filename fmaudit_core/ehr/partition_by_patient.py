"""Events of a cohort's patients, encoded as numbers and partitioned by patient on disk, in one streaming pass over the record.

A record may hold hundreds of millions of events in any order. After the pass, the events of a few hundred patients are in one
small folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.ehr.errors import EhrError

#: patients per partition; their events are in memory together
PATIENTS_TOGETHER: Final = 256
COLUMNS: Final = ("at", "time", "end", "code", "value", "table", "origin", "visit")
_NAMED: Final = ("code", "table", "origin")


@dataclass(frozen=True)
class EventPartitions:
    """Partitions of events on disk.

    Parameters
    ----------
    folder : Path
        One folder of Parquet files per `PATIENTS_TOGETHER` patients.
    names : column -> names, indexed by number
    """

    folder: Path
    names: dict[str, list[str]]

    def __len__(self) -> int:
        """Return the number of parts."""
        return sum(1 for _ in self.folder.glob("part=*"))

    def parts(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield the first patient of each part, and the events of the part with `at` relative to it."""
        found = sorted(self.folder.glob("part=*"), key=lambda path: int(path.name.partition("=")[2]))
        for path in found:
            first = int(path.name.partition("=")[2]) * PATIENTS_TOGETHER
            files = sorted(path.glob("*.parquet"))
            events = pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])
            yield first, events.with_columns((pl.col("at") - first).cast(pl.Int32))


def partition_by_patient(events: pl.LazyFrame, patients: pl.DataFrame, folder: Path) -> EventPartitions:
    """Write the events of some patients, partitioned by patient.

    Parameters
    ----------
    events : scan of `source.events_of`
    patients : frame of `patient`, the id in the record, and `at`, a number from 0

    Raises
    ------
    EhrError
        A file of the record is damaged. The library's message is omitted, because it may quote a cell.
    """
    # names are numbered while streaming; the numbering is not deterministic, so results must not depend on it
    known = {name: pl.Categories.random(name) for name in _NAMED}
    numbered = events.join(patients.lazy().select("patient", "at"), on="patient", how="inner").select(
        "at",
        "time",
        "end",
        *(pl.col(name).cast(pl.Categorical(of)).to_physical().alias(name) for name, of in known.items()),
        "value",
        "visit",
        part=pl.col("at") // PATIENTS_TOGETHER,
    )
    try:
        numbered.sink_parquet(
            pl.PartitionBy(folder, key="part", include_key=False), compression="lz4", mkdir=True, maintain_order=False
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise EhrError(
            f"the events cannot be read ({reason}).",
            fix="A file of the medical record may be truncated: download it again. If the disk is full, set "
            "FMAUDIT_HOME to a larger disk.",
        ) from error
    return EventPartitions(folder, {name: _names(of) for name, of in known.items()})


def _names(categories: pl.Categories) -> list[str]:
    names: Sequence[str | None] = categories.to_series().to_list()
    return [name or "" for name in names]

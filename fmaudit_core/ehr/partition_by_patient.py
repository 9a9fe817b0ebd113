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

#: patients per partition; their events are in memory together
PATIENTS_TOGETHER: Final = 256
COLUMNS: Final = ("at", "time", "end", "code", "value", "table", "origin", "visit", "unread")
#: left in a text by a program that could not read a character
REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
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
    polars.exceptions.PolarsError, OSError
        A file of the record is damaged, or the disk is full; `record_check.damage_named` names the file.
    """
    # names are numbered while streaming; the numbering is not deterministic, so results must not depend on it
    known = {name: pl.Categories.random(name) for name in _NAMED}
    # several codes may have become one damaged code, so it is none
    code = pl.when(~pl.col("code").str.contains(REPLACEMENT, literal=True)).then(pl.col("code"))
    numbered = (
        events.with_columns(code)
        .join(patients.lazy().select("patient", "at"), on="patient", how="inner")
        .select(
            "at",
            "time",
            "end",
            *(pl.col(name).cast(pl.Categorical(of)).to_physical().alias(name) for name, of in known.items()),
            "value",
            "visit",
            pl.col("written").is_not_null().alias("unread"),
            part=pl.col("at") // PATIENTS_TOGETHER,
        )
    )
    numbered.sink_parquet(
        pl.PartitionBy(folder, key="part", include_key=False), compression="lz4", mkdir=True, maintain_order=False
    )
    return EventPartitions(folder, {name: _names(of) for name, of in known.items()})


def _names(categories: pl.Categories) -> list[str]:
    names: Sequence[str | None] = categories.to_series().to_list()
    return [name or "" for name in names]

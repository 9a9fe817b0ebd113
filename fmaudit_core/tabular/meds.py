"""A MEDS dataset on disk: its shards and its vocabulary, extracted once if they come as an archive.

Events are interpreted elsewhere: persons in `cohort/inspect_release/demographics.py`, all others by the readers of the medical
record.

References
----------
Medical Event Data Standard, https://github.com/Medical-Event-Data-Standard/meds
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.storage.digests import digest
from fmaudit_core.tabular.archive import unpacked
from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.omop import folders_below
from fmaudit_core.tabular.scan import Column, clock, collected, scan_table, whole_number

BIRTH_CODES: Final = ("MEDS_BIRTH", "SNOMED/184099003", "SNOMED/3950001")
DEATH_CODES: Final = ("MEDS_DEATH", "SNOMED/419620001")
#: the splits of MEDS -> the splits of fmaudit
MEDS_SPLITS: Final = {"train": "train", "tuning": "val", "held_out": "test"}

_SUBJECT: Final = Column("subject_id", ("subject_id", "patient_id"))
_TIME: Final = Column("time", ("time", "start", "timestamp"))
_CODE: Final = Column("code", ("code",))
#: a reader-specific database, not the files of the standard
_OTHER_FORM: Final = "meds_reader"


@dataclass(frozen=True)
class MedsDataset:
    """The files of one MEDS dataset.

    Parameters
    ----------
    folder : Path
        Folder with `data/` and `metadata/`.
    shards : tuple of Path
        Parquet files of events, sorted; all events of a subject are in one of them.
    """

    folder: Path
    shards: tuple[Path, ...]

    def events(self, more: Sequence[Column] = ()) -> pl.LazyFrame:
        """Return the events of all shards: `subject_id` Int64, `time` (us; NULL if static), `code`, and requested columns.

        A requested column that the data lacks is NULL if it is not required.

        Raises
        ------
        CohortError
            A shard cannot be read, or does not hold events in this format.
        """
        columns = (_SUBJECT, _TIME, _CODE, *more)
        return pl.concat(
            [_events(scan_table(path, columns), path.name) for path in self.shards], how="vertical_relaxed"
        )

    def codes(self) -> pl.DataFrame:
        """Return the vocabulary: `code`, `description`, `parent_codes` (a list); empty if the release has none."""
        path = self.folder / "metadata" / "codes.parquet"
        schema: dict[str, pl.DataType] = {
            "code": pl.String(),
            "description": pl.String(),
            "parent_codes": pl.List(pl.String),
        }
        if not path.is_file():
            return pl.DataFrame(schema=schema)
        wanted = [Column("code", ("code",)), *(Column(name, (name,), needed=False) for name in list(schema)[1:])]
        found = collected(scan_table(path, wanted), where=path.name)
        typed = [
            (pl.col(name) if isinstance(found.schema[name], pl.List) == isinstance(dtype, pl.List) else pl.lit(None))
            .cast(dtype)
            .alias(name)
            for name, dtype in schema.items()
        ]
        return found.select(typed)

    def subject_splits(self) -> pl.DataFrame:
        """Return `subject_id` Int64 and `split` in fmaudit's names; empty if the release has none."""
        path = self.folder / "metadata" / "subject_splits.parquet"
        if not path.is_file():
            return pl.DataFrame(schema={"subject_id": pl.Int64, "split": pl.String})
        found = collected(scan_table(path, (_SUBJECT, Column("split", ("split",)))), where=path.name)
        split = pl.col("split").cast(pl.String).str.to_lowercase()
        return found.select(
            whole_number("subject_id"), split.replace_strict(MEDS_SPLITS, default=None, return_dtype=pl.String)
        )


def find_meds(root: Path, *, passing_over: Sequence[str] = ()) -> Path | None:
    """Return a MEDS dataset at or below a root: its folder, else its `.tar.gz`; None if there is none."""
    archives = []
    for folder in folders_below(root, passing_over):
        if folder.name.lower().startswith(_OTHER_FORM):
            continue
        if _shards(folder):
            return folder
        archives += [
            path
            for path in sorted(folder.iterdir())
            if path.name.lower().startswith("meds") and path.name.lower().endswith((".tar.gz", ".tgz"))
        ]
    return next((path for path in archives if not path.name.lower().startswith(_OTHER_FORM)), None)


def open_meds(found: Path, *, unpack_into: Path, progress: Progress = silent) -> MedsDataset:
    """Open the result of `find_meds`; an archive is extracted once, to a temporary folder that is then renamed.

    Parameters
    ----------
    unpack_into : Path
        Folder for extracted archives; an archive with another size or modification time gets another folder in it.

    Raises
    ------
    CohortError
        The archive is damaged or unsafe, or holds no MEDS data.
    """
    folder = found
    if found.is_file():
        status = found.stat()
        target = unpack_into / digest(found.name, status.st_size, status.st_mtime_ns)[:16]
        top = unpacked(found, target, suffixes=(".parquet",), progress=progress)
        folder = next((one for one in folders_below(top, ()) if _shards(one)), top)
    shards = _shards(folder)
    if not shards:
        raise CohortError(
            "holds no MEDS data: no data/*.parquet.", where=found.name, fix="Download meds_omop_inspect.tar.gz again."
        )
    return MedsDataset(folder, shards)


def _events(rows: pl.LazyFrame, where: str) -> pl.LazyFrame:
    """Return subject, time and code in fmaudit's types; numeric ids are not converted to text, since there are too many."""
    schema = rows.collect_schema()
    numbers = schema["subject_id"].is_integer()
    subject = pl.col("subject_id").cast(pl.Int64) if numbers else whole_number("subject_id")
    return rows.with_columns(subject, clock("time", schema, where=where).alias("time"), pl.col("code").cast(pl.String))


def _shards(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in (folder / "data").rglob("*.parquet") if path.is_file()))

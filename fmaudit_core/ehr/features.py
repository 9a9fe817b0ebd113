"""Features from events: per study, cutoff and code, the days with the code, the days since the last, and its last value.

Codes are selected on training patients only. Memory is bounded by the number of patients read together and the number of
features kept, not by the number of events.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.config import EhrSection
from fmaudit_core.ehr.count_kernel import DAY_US, walk
from fmaudit_core.ehr.cutoffs import cutoff_times
from fmaudit_core.ehr.effective_time import NO_NUMBER, Known, Words, known_events
from fmaudit_core.ehr.errors import EhrError
from fmaudit_core.ehr.partition_by_patient import PATIENTS_TOGETHER, EventPartitions, partition_by_patient
from fmaudit_core.ehr.record_check import check_events, check_files, damage_named
from fmaudit_core.ehr.record_look import NO_PATIENT, RecordLook
from fmaudit_core.ehr.source import Record, events_of, patients_of

#: column of all days before the cutoff, in addition to the columns of each window
ALL_DAYS: Final = "days"
RARE: Final = "of codes of too few training patients"
BEYOND: Final = "of codes beyond the most frequent"
AFTER: Final = "at or after the cutoff"
NOBODY: Final = "of whom the record holds no event"


@dataclass(frozen=True)
class EhrTables:
    """Features of a medical record.

    Parameters
    ----------
    features : frame of `row, code_id`, `days_<window>` for each window, `days`, `days_ago, last_value`
        A row per study, cutoff and kept code recorded before the cutoff; sorted. `days_ago` is the time from the last event
        to the cutoff.
    rows : frame of `row, study_id, split, cutoff, cutoff_time, last_event_time, n_events`
        Two rows for every study with a time. A row without events has no features, and its `last_event_time` is NULL.
    vocabulary : frame of `code_id, code, n_patients, n_with_value`
        Kept codes by frequency, with the number of training patients who have the code, and a value of it, before a cutoff.
    dropped : frame of `what, unit, n`
        Counts of excluded data, by reason.
    """

    features: pl.DataFrame
    rows: pl.DataFrame
    vocabulary: pl.DataFrame
    dropped: pl.DataFrame


@dataclass(frozen=True)
class Checked:
    """A record that passed its checks.

    Parameters
    ----------
    events : scan of `source.events_of`
    patients : frame of `source.patients_of`
    times : frame of `cutoffs.cutoff_times`
    look : RecordLook
    """

    events: pl.LazyFrame
    patients: pl.DataFrame
    times: pl.DataFrame
    look: RecordLook


def checked(
    record: Record, studies: pl.DataFrame, settings: EhrSection, *, cache: Path, progress: Progress = silent
) -> Checked:
    """Check the files and rows of a record; arguments and errors are those of `ehr_tables`."""
    times = cutoff_times(studies, settings.cutoff)
    if times.is_empty():
        raise EhrError(
            "no study has a time, so no event of the medical record can be dated before it.",
            where=str(record.path),
            fix="Give the cohort's table a column `time`, or leave the record out: `probes: modalities: [ct]`.",
        )
    patients = patients_of(studies, record)
    check_files(record)
    events = events_of(record, unpack_into=cache, demographics=settings.demographics, progress=progress)
    return Checked(events, patients, times, check_events(events, record, patients, studies, settings))


def ehr_tables(
    record: Record, studies: pl.DataFrame, settings: EhrSection, *, cache: Path, progress: Progress = silent
) -> EhrTables:
    """Compute the features of every study that has a time, before each of its cutoffs.

    Parameters
    ----------
    record : Record
    studies : frame of `study_id, patient_id, split, time`
    cache : Path
        Folder to unpack an archived record, and for temporary files, which are removed at the end.

    Raises
    ------
    EhrError
        No study has a time, too many rows of the record cannot be used, or no code is frequent enough.
    CohortError
        A file of the record is damaged or lacks a column.
    """
    cache.mkdir(parents=True, exist_ok=True)
    usable = checked(record, studies, settings, cache=cache, progress=progress)
    patients = usable.patients
    rows = usable.times.join(patients.select("patient_id", "at"), on="patient_id", how="left", maintain_order="left")
    rows = rows.with_row_index("row").with_columns(pl.col("row").cast(pl.UInt32))
    with tempfile.TemporaryDirectory(dir=cache, prefix="events-") as scratch:
        with damage_named(record):
            partitions = partition_by_patient(usable.events, patients, Path(scratch) / "events")
        return _counted(partitions, rows, Path(scratch) / "counted", settings, record, usable.look, progress)


def _counted(
    partitions: EventPartitions,
    rows: pl.DataFrame,
    folder: Path,
    settings: EhrSection,
    record: Record,
    look: RecordLook,
    progress: Progress,
) -> EhrTables:
    names_of = (partitions.names[name] for name in ("code", "table", "origin"))
    words = Words.of(*names_of, by_code=record.numbered)
    names = words.names()
    dropped: Counter[str] = Counter()
    seen = np.zeros(rows.height, dtype=np.int64)
    last = np.full(rows.height, np.iinfo(np.int64).min)
    patients_with = np.zeros((2, len(names)), dtype=np.int64)
    folder.mkdir()
    n_parts, after, held = len(partitions), 0, 0
    for done, (first, raw) in enumerate(partitions.parts(), start=1):
        known = known_events(
            raw, words, rule=settings.cutoff, demographics=settings.demographics, flowsheets=settings.flowsheets
        )
        dropped.update(known.dropped)
        here = rows.filter(pl.col("at").is_between(first, first + PATIENTS_TOGETHER - 1)).sort("at", "row")
        held += here.filter(pl.col("at").is_in((raw.get_column("at").unique() + first).implode()))["at"].n_unique()
        counts, n_before, last_before = _walked(known, here, first, settings.windows_days, len(names))
        at = here.get_column("row").to_numpy()
        seen[at], last[at] = n_before, np.where(n_before > 0, last_before, last[at])
        after += int(_events_each(known, here, first).sum() - n_before.sum())
        _add_patients(patients_with, counts, here)
        counts.write_parquet(folder / f"{first:09d}.parquet", compression="lz4")
        progress(done, n_parts)
    vocabulary, code_ids = _vocabulary(names, patients_with, settings)
    counted = pl.scan_parquet(sorted(folder.glob("*.parquet")))
    features = (
        counted.join(code_ids.lazy(), on="code", how="inner")
        .drop("code")
        .select("row", "code_id", pl.exclude("row", "code_id"))
        .collect(engine="streaming")
        .sort("row", "code_id")
    )
    left_out = _left_out(counted, code_ids, patients_with, settings)
    counts_left_out = [
        (reason, "values of events" if reason == NO_NUMBER else "events", n) for reason, n in dropped.items()
    ]
    counts_left_out.append((NO_PATIENT, "rows", look.lost.get(NO_PATIENT, 0)))
    counts_left_out += [(AFTER, "events, per study and cutoff", after), *left_out]
    # their features look like those of a patient who was never ill; a large number means that part of the record is missing
    counts_left_out.append((NOBODY, "patients with a time", rows.get_column("patient_id").n_unique() - held))
    out = rows.with_columns(
        n_events=pl.Series(seen),
        last_event_time=pl.Series(np.where(seen > 0, last, 0)).cast(pl.Datetime("us")),
    ).with_columns(last_event_time=pl.when(pl.col("n_events") > 0).then("last_event_time"))
    return EhrTables(
        features,
        out.select("row", "study_id", "split", "cutoff", "cutoff_time", "last_event_time", "n_events"),
        vocabulary,
        pl.DataFrame(counts_left_out, schema={"what": pl.String, "unit": pl.String, "n": pl.Int64}, orient="row"),
    )


def _walked(
    known: Known, rows: pl.DataFrame, first: int, windows_days: Sequence[int], n_codes: int
) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """Count every row and code of one part with the compiled pass `walk`."""
    begins = np.searchsorted(known.patient, np.arange(PATIENTS_TOGETHER + 1)).astype(np.int64)
    patient = (rows.get_column("at").to_numpy() - first).astype(np.int32)
    cutoff = rows.get_column("cutoff_time").cast(pl.Int64).to_numpy()
    capacity = int((begins[patient + 1] - begins[patient]).sum())
    windows = np.array(windows_days, dtype=np.int64) * DAY_US
    row, code, days, latest, last, n_before, last_before = walk(
        begins, known.effective, known.code, known.value, patient, cutoff, windows, n_codes, capacity
    )
    counts = pl.DataFrame(
        {
            "row": rows.get_column("row").to_numpy()[row],
            "code": code,
            **{name: days[:, w] for w, name in enumerate(day_columns(windows_days))},
            "days_ago": ((cutoff[row] - latest) / DAY_US).astype(np.float32),
            "last_value": pl.Series(last).fill_nan(None),
        },
        schema_overrides={"row": pl.UInt32},
    )
    return counts, n_before, last_before


def day_columns(windows_days: Sequence[int]) -> list[str]:
    """Return the names of the columns that count days: one per window, then one for all days before the cutoff."""
    return [*(f"{ALL_DAYS}_{days}" for days in windows_days), ALL_DAYS]


def _events_each(known: Known, rows: pl.DataFrame, first: int) -> np.ndarray:
    of_patient = np.bincount(known.patient, minlength=PATIENTS_TOGETHER)
    events: np.ndarray = of_patient[rows.get_column("at").to_numpy() - first]
    return events


def _add_patients(patients_with: np.ndarray, counts: pl.DataFrame, rows: pl.DataFrame) -> None:
    """Add the numbers of training patients with each code, and with a value of it, before a cutoff."""
    train = counts.join(rows.filter(split="train").select("row", "at"), on="row").select("at", "code", "last_value")
    for place, held in enumerate((train, train.drop_nulls("last_value"))):
        each = held.select("at", "code").unique().get_column("code").to_numpy()
        patients_with[place] += np.bincount(each, minlength=patients_with.shape[1])


def _vocabulary(
    names: Sequence[str], patients_with: np.ndarray, settings: EhrSection
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the kept codes, most frequent among training patients first, and the mapping from pass number to code id."""
    every = pl.DataFrame({"code": names, "n_patients": patients_with[0], "n_with_value": patients_with[1]})
    every = every.with_row_index("number").with_columns(pl.col("number").cast(pl.UInt32))
    kept = every.filter(pl.col("n_patients") >= settings.min_patients)
    kept = kept.sort("n_patients", "code", descending=[True, False]).head(settings.max_codes).with_row_index("code_id")
    if kept.is_empty():
        raise EhrError(
            f"no code occurs before the cutoff in at least {settings.min_patients} training patients.",
            fix="Lower `ehr: min_patients`, or leave the record out: `probes: modalities: [ct]`.",
        )
    return kept.drop("number"), kept.select(pl.col("number").alias("code"), "code_id")


def _left_out(
    counted: pl.LazyFrame, kept: pl.DataFrame, patients_with: np.ndarray, settings: EhrSection
) -> list[tuple[str, str, int]]:
    """Count the codes that are not in the vocabulary, and their features."""
    n = patients_with[0]
    entries = np.zeros(len(n), dtype=np.int64)
    by_code = counted.group_by("code").len().collect(engine="streaming")
    entries[by_code.get_column("code").to_numpy()] = by_code.get_column("len").to_numpy()
    is_kept = np.zeros(len(n), dtype=np.bool_)
    is_kept[kept.get_column("code").to_numpy()] = True
    groups = {RARE: (n < settings.min_patients) & (entries > 0), BEYOND: (n >= settings.min_patients) & ~is_kept}
    return [
        (reason, unit, int(value))
        for reason, group in groups.items()
        for unit, value in (("codes", group.sum()), ("study, cutoff and code", entries[group].sum()))
    ]

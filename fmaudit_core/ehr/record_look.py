"""Counts over the rows of a medical record before it is used: rows that cannot be used, and how events lie to the studies.

`record_check.py` decides which counts stop a read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from fmaudit_core.ehr.cutoffs import DAY, Rule, cutoff_times, is_ordinary
from fmaudit_core.ehr.effective_time import NO_CODE, NO_TIME, UNREAD_TIME
from fmaudit_core.ehr.partition_by_patient import REPLACEMENT
from fmaudit_core.ehr.source import Record
from fmaudit_core.ehr.time_forms import form_of_times

#: reasons why a row cannot be used, besides those of `effective_time.py`
NO_PATIENT: Final = "without a patient id"
REPLACED: Final = "with a code that an earlier conversion has damaged"
_IS: Final = "is_"


@dataclass(frozen=True)
class RecordLook:
    """Counts over the rows of a record.

    Parameters
    ----------
    n_rows : int
        Rows of the cohort's patients, and rows without a patient id.
    n_others : int
        Rows of other patients, which are ignored.
    n_patients, n_cohort : int
        The cohort's patients with a row, and all of them.
    lost : reason -> number of `n_rows`; a row counts under its first reason
    n_unread_ends : int
        Rows whose end has a form that is not read.
    n_before, n_same_day, n_later : int
        Timed events before the cutoff of their patient's last study, from it on but on the study's day, and later.
    """

    n_rows: int
    n_others: int
    n_patients: int
    n_cohort: int
    lost: dict[str, int]
    n_unread_ends: int
    n_before: int
    n_same_day: int
    n_later: int

    @property
    def n_lost(self) -> int:
        """Return the number of rows that cannot be used."""
        return sum(self.lost.values())


def look_at_record(
    events: pl.LazyFrame, record: Record, patients: pl.DataFrame, studies: pl.DataFrame, rule: Rule
) -> RecordLook:
    """Count the rows of a record in one streaming pass.

    Parameters
    ----------
    events : scan of `source.events_of`
    patients : frame of `source.patients_of`
    studies : frame of `study_id, patient_id, split, time`
    """
    joined = events.join(_last_studies(patients, studies, rule).lazy(), on="patient", how="left")
    reasons = _reasons(record)
    is_lost, lost = pl.lit(value=False), {}
    for name, broken in reasons.items():
        lost[name] = (_ours() & broken & ~is_lost).sum().alias(_IS + name)
        is_lost |= broken
    timed = pl.col("until").is_not_null() & pl.col("time").is_not_null()
    if record.form == "events":
        timed &= is_ordinary(pl.col("code"), pl.col("table"))
    before, same_day = pl.col("time") < pl.col("until"), pl.col("time").dt.date() == pl.col("day")
    counted = joined.select(
        pl.len().alias("n_all"),
        _ours().sum().alias("n_rows"),
        pl.col("at").n_unique().alias("n_at"),
        pl.col("at").is_null().any().alias("others"),
        *lost.values(),
        (_ours() & pl.col("written_end").is_not_null()).sum().alias("n_unread_ends"),
        (timed & before).sum().alias("n_before"),
        (timed & ~before & same_day).sum().alias("n_same_day"),
        (timed & ~before & ~same_day).sum().alias("n_later"),
    )
    n = counted.collect(engine="streaming").row(0, named=True)
    return RecordLook(
        n_rows=n["n_rows"],
        n_others=n["n_all"] - n["n_rows"],
        n_patients=n["n_at"] - int(n["others"] or False),
        n_cohort=patients.height,
        lost={name: n[_IS + name] for name in reasons if n[_IS + name]},
        **{name: n[name] for name in ("n_unread_ends", "n_before", "n_same_day", "n_later")},
    )


def forms_of_unread(events: pl.LazyFrame, patients: pl.DataFrame, column: str = "written") -> dict[str, int]:
    """Return the forms of the times that are not read -> number of rows of the cohort's patients."""
    unread = events.join(patients.lazy().select("patient", "at"), on="patient", how="left").filter(
        _ours() & pl.col(column).is_not_null()
    )
    counted = unread.group_by(form_of_times(pl.col(column)).alias("form")).len().collect(engine="streaming")
    return dict(counted.iter_rows())


def _last_studies(patients: pl.DataFrame, studies: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """Return the patients with the cutoff and the day of their last study, NULL if no study has a time."""
    cutoffs = cutoff_times(studies, rule).filter(cutoff=DAY)
    until = cutoffs.group_by("patient_id").agg(until=pl.col("cutoff_time").max())
    day = studies.group_by("patient_id").agg(day=pl.col("time").cast(pl.Datetime("us")).max().dt.date())
    return patients.join(until, on="patient_id", how="left").join(day, on="patient_id", how="left").drop("patient_id")


def _nobody() -> pl.Expr:
    return pl.col("patient").is_null() | (pl.col("patient").cast(pl.String) == "")


def _ours() -> pl.Expr:
    return pl.col("at").is_not_null() | _nobody()


def _reasons(record: Record) -> dict[str, pl.Expr]:
    """Return the reasons why a row cannot be used.

    In MEDS a missing time marks a static row, and in OMOP a concept of 0 is a valid row without a concept: both are counted
    later, as events that are dropped.
    """
    code, unread = pl.col("code"), pl.col("written").is_not_null()
    reasons = {NO_PATIENT: _nobody(), UNREAD_TIME: unread}
    if record.form == "events":
        ordinary = is_ordinary(code, pl.col("table"))
        no_code = code.is_null() | (code.str.strip_chars() == "")
        reasons |= {NO_CODE: no_code & ordinary, NO_TIME: pl.col("time").is_null() & ordinary}
    return reasons | {REPLACED: code.str.contains(REPLACEMENT, literal=True).fill_null(value=False)}

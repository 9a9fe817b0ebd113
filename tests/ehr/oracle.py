"""The features again, event by event with Python's own dates: slow, and written from the rules, not from the code under test."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl
import pytest

from fmaudit_core.config import EhrSection
from fmaudit_core.ehr.features import EhrTables, ehr_tables
from fmaudit_core.ehr.source import Record

DAY = timedelta(days=1)
EVENTS_SCHEMA = {
    "patient_id": pl.String, "time": pl.Datetime("us"), "code": pl.String, "value": pl.Float64, "end": pl.Datetime("us"),
    "table": pl.String, "clarity_table": pl.String, "visit_id": pl.Int64,
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    patient: str
    time: datetime | None
    code: str | None
    value: float | None = None
    end: datetime | None = None
    table: str | None = None
    clarity: str | None = None
    visit: int | None = None


def write_events(folder, events):
    """A file of events."""
    rows = [(e.patient, e.time, e.code, e.value, e.end, e.table, e.clarity, e.visit) for e in events]
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=EVENTS_SCHEMA, orient="row").write_parquet(folder / "events.parquet")
    return Record("events", folder / "events.parquet")


def tables_of(folder, events, studies, **settings) -> EhrTables:
    """Features of some events."""
    section = EhrSection.model_validate({"min_patients": 1, "partial": True} | settings)
    return ehr_tables(write_events(folder, events), studies, section, cache=folder / "cache")


def readable(tables: EhrTables, *, windows=(30, 365)):
    """(study, cutoff, code) -> (days in each window, days, days ago, last value)."""
    joined = tables.features.join(tables.rows, on="row").join(tables.vocabulary, on="code_id")
    names = [*(f"days_{one}" for one in windows), "days", "days_ago", "last_value"]
    return {
        (row["study_id"], row["cutoff"], row["code"]): tuple(row[name] for name in names)
        for row in joined.iter_rows(named=True)
    }


def end_of_date(time):
    """A time of day of 00:00 is none: known at the end of that day."""
    if time is not None and (time.hour, time.minute, time.second, time.microsecond) == (0, 0, 0, 0):
        return time + timedelta(hours=23, minutes=59, seconds=59)
    return time


def known(events):
    """Events with the time they were known, those that never count left out; visits have their stay as a second event."""
    out = []
    for event in events:
        code, table = (event.code or "").lower(), event.table or ""
        excluded = (
            "note/",
            "stanford_note",
            "meds_death",
            "meds_birth",
            "gender/",
            "race/",
            "ethnicity/",
            "stanford_obs/flow",
        )
        if (
            event.code is None
            or event.time is None
            or code.startswith(excluded)
            or table in ("note", "death", "person")
        ):
            continue
        is_visit = code.startswith("visit/") or table.startswith("visit")
        when = end_of_date(event.time)
        untold = table.startswith("condition") and not event.clarity
        of_bill = (event.clarity or "").endswith(("pat_enc_dx", "hsp_acct_dx_list", "arpb_transactions"))
        if (of_bill or untold) and not is_visit:
            ends = visits_of(event, events)
            if not ends or None in ends:
                continue
            when = max(when, *(end_of_date(end) for end in ends))
        out.append((event.patient, when, event.code, event.value))
        if is_visit and event.end is not None and event.end >= event.time:
            stay = max(end_of_date(event.end), when)
            out.append((event.patient, stay, f"{event.code}/stay", (event.end - event.time) / DAY))
    return out


def visits_of(billed, events):
    """Ends of the visits a billed row may belong to."""
    visits = [
        e
        for e in events
        if e.patient == billed.patient
        and e.time is not None
        and e.code is not None
        and e.time <= end_of_date(billed.time)
        and (e.code.lower().startswith("visit/") or (e.table or "").startswith("visit"))
    ]
    day = billed.time.date()
    if billed.visit is not None:
        return [e.end for e in visits if e.visit == billed.visit]
    same = [e.end for e in visits if e.time.date() == day]
    return same or [e.end for e in visits if e.time.date() < day and (e.end is None or e.end.date() >= day)]


def expected(events, studies, *, windows=(30, 365)):
    """The features of every study at both cutoffs, as `readable` gives them."""
    out = {}
    for row in studies.iter_rows(named=True):
        t = row["time"]
        if t is None:
            continue
        midnight = t.replace(hour=0, minute=0, second=0, microsecond=0)
        for name, cutoff in (("day", midnight), ("day_before", t - DAY)):
            by_code = defaultdict(list)
            for patient, when, code, value in known(events):
                if patient == row["patient_id"] and when < cutoff:
                    by_code[code].append((when, value))
            for code, seen in by_code.items():
                days = {when.date() for when, _ in seen}

                def within(width, days=days, cutoff=cutoff):
                    ends = [datetime(day.year, day.month, day.day) + DAY for day in days]
                    return sum(end > cutoff - width * DAY for end in ends)

                latest = max(when for when, _ in seen)
                valued = [(when, value) for when, value in seen if value is not None]
                out[row["study_id"], name, code] = (
                    *(within(width) for width in windows),
                    len(days),
                    (cutoff - latest) / DAY,
                    max(valued)[1] if valued else None,
                )
    return out


def close(found, want):
    """Both have the same studies and codes, and the same numbers up to single precision."""
    assert found.keys() == want.keys()
    for key, values in want.items():
        assert (found[key][-1] is None) == (values[-1] is None), key
        told, meant = ([float("nan") if one is None else one for one in each] for each in (found[key], values))
        assert told == pytest.approx(meant, rel=1e-5, abs=1e-4, nan_ok=True), key

"""Cutoffs of studies, and events that are never used. For the effective time of an event see `effective_time.py`.

An event precedes a study if its effective time is before the study's cutoff. Under the rule `strict`, the cutoff is midnight
before the day of the study, or 24 hours before the study for tasks decided by the scan itself. The rule `inspect` is that of the
INSPECT baseline: the cutoff is the time of the study (a day earlier for those tasks), and events have their recorded times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.ehr.errors import EhrError

Rule = Literal["strict", "inspect"]
#: the two cutoffs of a study: for outcomes, and for tasks decided by the scan itself
DAY: Final = "day"
DAY_BEFORE: Final = "day_before"
CUTOFFS: Final = (DAY, DAY_BEFORE)

#: classes of events; only `ORDINARY` events are used
ORDINARY, NOTE, DEATH, BIRTH, DEMOGRAPHIC, FLOWSHEET = range(6)
#: class of an event -> reason for exclusion
REASONS: Final = {
    NOTE: "note or report",
    DEATH: "death",
    BIRTH: "birth",
    DEMOGRAPHIC: "demographic",
    FLOWSHEET: "flowsheet",
}
_CODES: Final = (
    (("stanford_note/", "note/", "notes/"), NOTE),
    (("meds_death", "snomed/419620001", "death"), DEATH),
    (("meds_birth", "snomed/184099003", "snomed/3950001"), BIRTH),
    (("gender/", "race/", "ethnicity/"), DEMOGRAPHIC),
    (("stanford_obs/flowsheet",), FLOWSHEET),
)
_TABLES: Final = (("note", NOTE), ("death", DEATH), ("person", DEMOGRAPHIC))
#: source tables whose rows are dated at the start of a visit by billing, although they were known at its end
_BILLING: Final = ("pat_enc_dx", "hsp_acct_dx_list", "arpb_transactions")


def cutoff_of(task: str, day_before: Sequence[str]) -> str:
    """Return the cutoff of a task."""
    return DAY_BEFORE if task in day_before else DAY


def cutoff_times(studies: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """Compute both cutoffs of every study that has a time.

    Parameters
    ----------
    studies : frame with `study_id, patient_id, split, time`
        If `time_source` is ``note``, the time is that of a report, written after the scan and possibly on the next day. Under
        `strict`, the cutoffs of such a study are a day earlier.

    Returns
    -------
    frame of `study_id, patient_id, split, cutoff, cutoff_time`, two rows per study; only events before `cutoff_time` are used
    """
    t, day = pl.col("time").cast(pl.Datetime("us")), pl.duration(days=1)
    if rule == "strict":
        if "time_source" in studies.columns:
            t = pl.when(pl.col("time_source") == "note").then(t - day).otherwise(t)
        times = {DAY: t.dt.truncate("1d"), DAY_BEFORE: t - day}
    else:
        # inclusive: the next microsecond is the first that is excluded
        times = {DAY: t + pl.duration(microseconds=1), DAY_BEFORE: t - day + pl.duration(microseconds=1)}
    known = studies.filter(pl.col("time").is_not_null())
    rows = [
        known.select("study_id", "patient_id", "split", cutoff=pl.lit(name), cutoff_time=time)
        for name, time in times.items()
    ]
    return pl.concat(rows).sort("study_id", "cutoff")


def check_past(rows: pl.DataFrame, studies: pl.DataFrame, rule: Rule) -> None:
    """Refuse features whose last event is not before the cutoff of their study.

    Parameters
    ----------
    rows : frame of `features.EhrTables.rows`
    studies : frame with `study_id, patient_id, split, time`

    Raises
    ------
    EhrError
        The cutoff or split of a row differs from its study's, or an event at or after the cutoff was counted.
    """
    key = ["study_id", "cutoff"]
    want = cutoff_times(studies, rule).rename({"cutoff_time": "until", "split": "of_split"})
    joined = rows.join(want, on=key, how="full", coalesce=True)
    counts = {
        "a cutoff that differs from its study's": (pl.col("cutoff_time") != pl.col("until")).fill_null(value=True),
        "a split that differs from its study's": (pl.col("split") != pl.col("of_split")).fill_null(value=True),
        "an event at or after its cutoff": pl.col("last_event_time") >= pl.col("until"),
    }
    found = {what: joined.filter(broken).height for what, broken in counts.items()}
    problems = [f"{n} rows have {what}" for what, n in found.items() if n]
    if problems:
        raise EhrError(f"{'; '.join(problems)}.", where="ehr_rows", fix="Materialise ehr_features again.")


def classes_of_codes(codes: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the class of every code, (n,)."""
    out = np.zeros(len(codes), dtype=np.uint8)
    for i, code in enumerate(codes):
        lower = code.lower()
        out[i] = next((kind for starts, kind in _CODES if lower.startswith(starts)), ORDINARY)
    return out


def is_ordinary(code: pl.Expr, table: pl.Expr) -> pl.Expr:
    """Return whether rows are of class `ORDINARY` by their code and table; static rows, such as a birth, may lack a time."""
    starts = "|".join(re.escape(start) for group, _ in _CODES for start in group)
    tables = "|".join(start for start, _ in _TABLES)
    by_code = code.str.to_lowercase().str.contains(f"^({starts})").fill_null(value=False)
    by_table = table.str.to_lowercase().str.contains(f"^\\s*({tables})").fill_null(value=False)
    return ~by_code & ~by_table


def classes_of_tables(tables: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the class of the rows of every source table by its name, (n,)."""
    return np.array(
        [
            next((kind for start, kind in _TABLES if name.strip().lower().startswith(start)), ORDINARY)
            for name in tables
        ],
        dtype=np.uint8,
    )


def starting_with(names: Sequence[str], start: str) -> npt.NDArray[np.bool_]:
    """Return whether each name starts with `start`, ignoring case, (n,)."""
    return np.array([name.strip().lower().startswith(start) for name in names], dtype=np.bool_)


def are_billing(origins: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return whether rows of each origin are dated by billing, (n,)."""
    return np.array([name.strip().lower().endswith(_BILLING) for name in origins], dtype=np.bool_)


def are_blank(names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return whether each name is blank, (n,)."""
    return np.array([not name.strip() for name in names], dtype=np.bool_)

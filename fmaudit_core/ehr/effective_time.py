"""Effective time of each event (when it was known), or the reason for dropping it. For study cutoffs see `cutoffs.py`.

A date without a time of day is known at the end of that day. A diagnosis that billing dated at the start of its visit is known
when the visit ends. It is dropped if the visit has no end, or if there is no visit. A visit is known when it starts, its length
when it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.ehr.count_kernel import DAY_US, visit_ends
from fmaudit_core.ehr.cutoffs import (
    DEMOGRAPHIC,
    FLOWSHEET,
    ORDINARY,
    REASONS,
    Rule,
    are_billing,
    are_blank,
    classes_of_codes,
    classes_of_tables,
    starting_with,
)

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: missing time, end or number
NONE: Final = np.iinfo(np.int64).min
#: the end of a day, after its last minute and before the next day
_END_OF_DAY: Final = DAY_US - 1_000_000
#: suffix of the code for the length of a visit in days
STAY: Final = "/stay"
NO_CODE: Final = "without a code"
NO_TIME: Final = "without a time"
#: text that is not read as a time; blank cells are `NO_TIME`
UNREAD_TIME: Final = "with a time of another form"
#: the event is used, its value is not
NO_NUMBER: Final = "value that is no number"
UNENDED: Final = "billed in no visit that ended"


@dataclass(frozen=True)
class Words:
    """Properties of the names in a record, indexed by their number.

    Parameters
    ----------
    codes : names of the c codes
    code_class, table_class : (c,), (t + 1,), classes such as `cutoffs.ORDINARY`
    is_visit_code, is_visit_table : (c,), (t + 1,) bool
    is_diagnosis_code, is_diagnosis_table, is_nameless_table : (c,), (t + 1,), (t + 1,) bool; a row without a table is classified
        by its code
    is_billing, is_untold : (o + 1,) bool; a diagnosis without an origin may come from billing
    """

    codes: Sequence[str]
    code_class: npt.NDArray[np.uint8]
    table_class: npt.NDArray[np.uint8]
    is_visit_code: BoolArray
    is_visit_table: BoolArray
    is_diagnosis_code: BoolArray
    is_diagnosis_table: BoolArray
    is_nameless_table: BoolArray
    is_billing: BoolArray
    is_untold: BoolArray

    @classmethod
    def of(cls, codes: Sequence[str], tables: Sequence[str], origins: Sequence[str], *, by_code: bool) -> Words:
        """Look up the properties of the names in a record. The last entry of each property is for a missing name.

        Parameters
        ----------
        by_code : bool
            Whether a row without a table is classified as a diagnosis by its code, as in a release. Otherwise its time is used
            as recorded.
        """
        of_icd = starting_with(codes, "icd")
        return cls(
            codes=codes,
            code_class=classes_of_codes(codes),
            table_class=np.append(classes_of_tables(tables), np.uint8(ORDINARY)),
            is_visit_code=starting_with(codes, "visit/"),
            is_visit_table=np.append(starting_with(tables, "visit"), np.False_),
            is_diagnosis_code=of_icd if by_code else np.zeros_like(of_icd),
            is_diagnosis_table=np.append(starting_with(tables, "condition"), np.False_),
            is_nameless_table=np.append(are_blank(tables), np.True_),
            is_billing=np.append(are_billing(origins), np.False_),
            is_untold=np.append(are_blank(origins), np.True_),
        )

    def names(self) -> list[str]:
        """Return the names of all codes, followed by the codes for lengths of visits."""
        return [*self.codes, *(f"{code}{STAY}" for code in self.codes)]


@dataclass(frozen=True)
class Known:
    """Events of some patients, sorted by patient and effective time.

    Parameters
    ----------
    patient : (n,) int32;  effective : (n,) int64, microseconds;  code : (n,) uint32;  value : (n,) float32
    dropped : reason -> number of events; for `NO_NUMBER`, events that lost their value
    """

    patient: npt.NDArray[np.int32]
    effective: Int64Array
    code: npt.NDArray[np.uint32]
    value: npt.NDArray[np.float32]
    dropped: dict[str, int]


def known_events(raw: pl.DataFrame, words: Words, *, rule: Rule, demographics: bool, flowsheets: bool) -> Known:
    """Determine the effective time of events and drop those that are never used.

    Parameters
    ----------
    raw : frame of `partition_by_patient.COLUMNS`, all events of some patients
    rule : "inspect" keeps the recorded time of every event
    demographics, flowsheets : bool
        Whether to use these events.
    """
    columns = {name: raw.get_column(name) for name in raw.columns}
    missing = len(words.codes)
    code = columns["code"].fill_null(missing).to_numpy()
    table = columns["table"].fill_null(len(words.table_class) - 1).to_numpy()
    origin = columns["origin"].fill_null(len(words.is_billing) - 1).to_numpy()
    time, end, visit = (columns[name].cast(pl.Int64).fill_null(NONE).to_numpy() for name in ("time", "end", "visit"))
    patient, value = columns["at"].to_numpy(), columns["value"].fill_null(np.nan).to_numpy()
    finite = np.isfinite(value)
    no_number = columns["value"].is_not_null().to_numpy() & ~finite
    value = np.where(finite, value, np.float32(np.nan))

    coded = code < missing
    of_code = np.append(words.code_class, np.uint8(ORDINARY))[code]
    kind = np.where(of_code != ORDINARY, of_code, words.table_class[table])
    if demographics:
        time = np.where((kind == DEMOGRAPHIC) & (time == NONE), 0, time)  # static: known before any study
        kind[kind == DEMOGRAPHIC] = ORDINARY
    if flowsheets:
        kind[kind == FLOWSHEET] = ORDINARY
    dropped = {REASONS[one]: int(np.sum(kind == one)) for one in REASONS}
    keep = kind == ORDINARY
    dropped[NO_CODE] = int(np.sum(keep & ~coded))
    keep &= coded
    unread = columns["unread"].to_numpy()
    dropped[NO_TIME] = int(np.sum(keep & (time == NONE) & ~unread))
    dropped[UNREAD_TIME] = int(np.sum(keep & (time == NONE) & unread))
    keep &= time != NONE
    dropped[NO_NUMBER] = int(np.sum(keep & no_number))

    is_visit = np.append(words.is_visit_code, np.False_)[code] | words.is_visit_table[table]
    effective = time if rule == "inspect" else _end_of_dates(time)
    dropped[UNENDED] = 0
    if rule == "strict":
        ends = _end_of_dates(end)
        by_code = words.is_nameless_table[table] & np.append(words.is_diagnosis_code, np.False_)[code]
        untold = words.is_untold[origin] & (words.is_diagnosis_table[table] | by_code)
        billed = keep & (words.is_billing[origin] | untold) & ~is_visit
        if billed.any():
            known = _billed(billed, keep & is_visit, patient, effective, time, ends, visit)
            dropped[UNENDED] = int(np.sum(known == NONE))
            effective = effective.copy()
            # a visit of zero length ends when it begins
            effective[billed] = np.where(known == NONE, NONE, np.maximum(known, effective[billed]))
            keep &= effective != NONE
    else:
        ends = end
    stayed = keep & is_visit & (end != NONE) & (end >= time)
    days = ((end[stayed] - time[stayed]) / DAY_US).astype(np.float32)
    frame = pl.DataFrame(
        {
            "patient": np.concatenate([patient[keep], patient[stayed]]),
            "effective": np.concatenate([effective[keep], np.maximum(ends[stayed], effective[stayed])]),
            "code": np.concatenate([code[keep], code[stayed] + np.uint32(missing)]).astype(np.uint32),
            "value": np.concatenate([value[keep], days]),
        }
    ).sort("patient", "effective")
    placed = {name: frame.get_column(name).to_numpy() for name in frame.columns}
    return Known(**placed, dropped=dropped)


def _end_of_dates(time: Int64Array) -> Int64Array:
    """Move times at midnight to the end of their day, because they are dates."""
    midnight = (time != NONE) & (time % DAY_US == 0)
    moved: Int64Array = np.where(midnight, time + _END_OF_DAY, time)
    return moved


def _billed(
    billed: BoolArray,
    is_visit: BoolArray,
    patient: npt.NDArray[np.int32],
    effective: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    visit: Int64Array,
) -> Int64Array:
    """Return the effective end of the visit of each billed row, (billed rows,), NONE if there is none."""
    order = np.flatnonzero(is_visit)
    order = order[np.argsort(patient[order], kind="stable")]
    first = np.searchsorted(patient[order], np.arange(int(patient.max()) + 2))
    found: Int64Array = visit_ends(
        patient[billed], effective[billed], visit[billed], first, starts[order], ends[order], visit[order], NONE
    )
    return found

"""Compiled passes over the events of patients: counts of every code before a study's cutoff, and ends of billed visits.

Events are sorted by patient and effective time, so one pass up to a study's cutoff counts all of its codes. The state of each
code is kept in arrays over the vocabulary. They are never cleared; a stamp identifies the study to which an entry belongs.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]
UInt32Array = npt.NDArray[np.uint32]
BoolArray = npt.NDArray[np.bool_]

DAY_US: Final = 86_400_000_000
_NEVER: Final = -(2**62)


@numba.njit(nogil=True, cache=True)
def walk(
    first_event: Int64Array,
    effective: Int64Array,
    code: UInt32Array,
    value: Float32Array,
    patient: Int32Array,
    cutoff: Int64Array,
    windows_us: Int64Array,
    n_codes: int,
    capacity: int,
) -> tuple[UInt32Array, UInt32Array, UInt32Array, Int64Array, Float32Array, Int64Array, Int64Array]:
    """Count the events before the cutoff of every row, one record per row and code.

    Parameters
    ----------
    first_event : (p + 1,) int64, start of each patient's events
    effective : (n,) int64, microseconds, ascending within a patient
    code, value : (n,); NaN is a missing value
    patient, cutoff : (r,), patient of each row, and its cutoff; events at or after the cutoff are excluded
    windows_us : (w,) int64, widths in microseconds
    capacity : int, largest number of records

    Returns
    -------
    row, code : (m,)
    days : (m, w + 1) uint32, number of days with such an event: days that overlap each window, then all days
    latest : (m,) int64, effective time of the last event
    last : (m,) float32, the last value (the largest if times are equal), NaN if there is none
    n_before : (r,) int64, events before the row's cutoff
    last_before : (r,) int64, effective time of the last of them; -2^62 if there is none
    """
    n_windows = len(windows_us)
    out_row = np.empty(capacity, np.uint32)
    out_code = np.empty(capacity, np.uint32)
    days = np.zeros((capacity, n_windows + 1), np.uint32)
    latest = np.empty(capacity, np.int64)
    last = np.full(capacity, np.nan, np.float32)
    n_before = np.zeros(len(cutoff), np.int64)
    last_before = np.full(len(cutoff), _NEVER, np.int64)
    stamp = np.full(n_codes, -1, np.int64)
    place = np.zeros(n_codes, np.int64)
    day_of = np.zeros(n_codes, np.int64)
    valued_at = np.zeros(n_codes, np.int64)
    m = 0
    for row in range(len(cutoff)):
        end = cutoff[row]
        for i in range(first_event[patient[row]], first_event[patient[row] + 1]):
            when = effective[i]
            if when >= end:
                break
            c = code[i]
            day = when // DAY_US
            if stamp[c] != row:
                stamp[c], place[c], day_of[c], valued_at[c] = row, m, day - 1, _NEVER
                out_row[m], out_code[m] = row, c
                m += 1
            at = place[c]
            if day != day_of[c]:
                day_of[c] = day
                days[at, n_windows] += 1
                for w in range(n_windows):
                    if (day + 1) * DAY_US > end - windows_us[w]:
                        days[at, w] += 1
            latest[at] = when
            x = value[i]
            if not np.isnan(x) and (when > valued_at[c] or x > last[at]):
                last[at], valued_at[c] = x, when
            n_before[row] += 1
            last_before[row] = when
    return out_row[:m], out_code[:m], days[:m], latest[:m], last[:m], n_before, last_before


@numba.njit(nogil=True, cache=True)
def visit_ends(
    billed_by: Int32Array,
    billed_at: Int64Array,
    billed_visit: Int64Array,
    first_visit: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    numbers: Int64Array,
    none: int,
) -> Int64Array:
    """Return the end of the visit of every billed row.

    The visit is the one the row names. Otherwise the result is the latest end of the visits that began on its day, else of the
    visits that include its day. Visits that began after the row are ignored, so events after a study's cutoff cannot change its
    features.

    Parameters
    ----------
    billed_by, billed_at, billed_visit : (b,), patient, effective time and visit number of each billed row
    first_visit : (p + 1,) int64, start of each patient's visits
    starts, ends, numbers : (v,) int64, sorted by patient
    none : int
        Code for a missing end or number.

    Returns
    -------
    (b,) int64, `none` if no visit is found or if a candidate visit has no end
    """
    out = np.full(len(billed_by), none, np.int64)
    for i in range(len(billed_by)):
        day = billed_at[i] // DAY_US
        best, found = none, 0  # 3: by number, 2: begins that day, 1: includes that day
        for v in range(first_visit[billed_by[i]], first_visit[billed_by[i] + 1]):
            if starts[v] > billed_at[i]:
                continue
            if billed_visit[i] != none:
                fits = 3 if numbers[v] == billed_visit[i] else 0
            elif starts[v] // DAY_US == day:
                fits = 2
            else:
                around = starts[v] // DAY_US < day and (ends[v] == none or ends[v] // DAY_US >= day)
                fits = 1 if around else 0
            if fits == 0 or fits < found:
                continue
            if fits > found:
                best, found = ends[v], fits
            elif best == none or ends[v] == none:
                best = none
            else:
                best = max(best, ends[v])
        out[i] = best
    return out

"""Errors of a cohort's tables, and privacy-safe formatting of rows and cells in messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from typing import Final

import polars as pl

from fmaudit_core.common.errors import FmauditError

_SHOWN_ROWS: Final = 5
#: number of characters shown of an unexpected cell: it may be anything, even a note on a patient
_SHOWN_CHARACTERS: Final = 20
_SHOWN_WORDS: Final = 3
#: patient and study numbers have at least this many consecutive digits
_LIKE_A_NUMBER: Final = re.compile(r"\d{4}")


class CohortError(FmauditError):
    """The cohort's table, its rows or its image paths are invalid."""


def rows_named(rows: Sequence[int]) -> str:
    """Return row numbers as text: ``row 4``, ``rows 4 and 9``, ``rows 4, 9, 12, 13, 20 and 3 more``."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    shown, more = [str(row) for row in rows[:_SHOWN_ROWS]], len(rows) - _SHOWN_ROWS
    if more > 0:
        return f"rows {', '.join(shown)} and {more} more"
    return f"rows {', '.join(shown[:-1])} and {shown[-1]}"


def starting_with_rows(rows: Sequence[int]) -> str:
    """Return the sorted row numbers as the start of a sentence: ``Row 4``."""
    text = rows_named(sorted(rows))
    return text[0].upper() + text[1:]


def words_named(words: Iterable[str], ids: Set[str]) -> str:
    """Return unexpected cells as they may be shown in an error: ``'maybe', 'yes?'``.

    Parameters
    ----------
    ids : set of str
        The ids of the cohort's studies and patients in lower case. A cell that equals one of them, or contains a number that may
        be one, is not shown: a wrongly mapped column often holds ids.
    """
    distinct = sorted(set(words))
    tellable = [word for word in distinct if word.lower() not in ids and not _LIKE_A_NUMBER.search(word)]
    shown = ", ".join(repr(word[:_SHOWN_CHARACTERS]) for word in tellable[:_SHOWN_WORDS])
    if not tellable:
        return "a value that may identify a patient and is not shown"
    return shown if len(tellable) == len(distinct) else f"{shown} and values that may identify patients"


def ids_in_lower_case(frame: pl.DataFrame) -> set[str]:
    """Return the ids of studies and patients as `words_named` compares them."""
    ids = frame.select(pl.col("study_id", "patient_id").cast(pl.String).str.to_lowercase())
    return {*ids.get_column("study_id"), *ids.get_column("patient_id")} - {None}


def columns_named(names: Sequence[str]) -> str:
    """Return column names as they may be shown in an error, without those that may be a cell of a file without a header."""
    shown = [name for name in names if name and not _LIKE_A_NUMBER.search(name)]
    hidden = len(names) - len(shown)
    return ", ".join([*shown, *([f"{hidden} more"] if hidden else [])]) or "none"

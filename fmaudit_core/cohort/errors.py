"""What can be wrong with a cohort."""

from __future__ import annotations

from collections.abc import Sequence

from fmaudit_core.errors import FmauditError

_SHOWN_ROWS = 5


class CohortError(FmauditError):
    """The cohort's table, its rows or its image paths are wrong."""


def rows_named(rows: Sequence[int]) -> str:
    """Rows of a file as people say them: ``row 4``, ``rows 4 and 9``, ``rows 4, 9, 12, 13, 20 and 3 more``."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    shown, more = [str(row) for row in rows[:_SHOWN_ROWS]], len(rows) - _SHOWN_ROWS
    if more > 0:
        return f"rows {', '.join(shown)} and {more} more"
    return f"rows {', '.join(shown[:-1])} and {shown[-1]}"

"""What can be wrong with a cohort."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from typing import Final

from fmaudit_core.common.errors import FmauditError

_SHOWN_ROWS: Final = 5
#: of a cell that is none of the words that belong there so much is shown: it may be anything, a note on a patient too
_SHOWN_CHARACTERS: Final = 20
_SHOWN_WORDS: Final = 3
#: numbers of patients and studies have at least so many digits in a row
_LIKE_A_NUMBER: Final = re.compile(r"\d{4}")


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


def starting_with_rows(rows: Sequence[int]) -> str:
    """The same, ascending, as a sentence begins: ``Row 4``."""
    text = rows_named(sorted(rows))
    return text[0].upper() + text[1:]


def words_named(words: Iterable[str], ids: Set[str]) -> str:
    """Cells that are none of the words that belong there, as an error may show them: ``'maybe', 'yes?'``.

    Parameters
    ----------
    ids : set of str
        The ids of the cohort's studies and patients in lower case. A cell that is one of them, or holds a number that may be one,
        is not shown: a wrong column is often one of ids.
    """
    distinct = sorted(set(words))
    tellable = [word for word in distinct if word.lower() not in ids and not _LIKE_A_NUMBER.search(word)]
    shown = ", ".join(repr(word[:_SHOWN_CHARACTERS]) for word in tellable[:_SHOWN_WORDS])
    if not tellable:
        return "what may identify somebody, and is not repeated,"
    return shown if len(tellable) == len(distinct) else f"{shown} and what may identify somebody"

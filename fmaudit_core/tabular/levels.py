"""The normal form of an attribute's levels, the same for a cohort table and a predictions file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import UNKNOWN
from fmaudit_core.tabular.words import is_missing, trimmed, word_key

#: separates the levels of an intersection, so no level may contain it
_CROSSED: Final = " x "
_SHOWN_LISTS: Final = 5
#: a whole number with decimals, as a column becomes that once held a blank cell
_WHOLE: Final = re.compile(r"^([+-]?\d+)\.0+$")


@dataclass(frozen=True)
class Levels:
    """An attribute in normal form.

    Parameters
    ----------
    column : pl.Series
        Trimmed text in Unicode NFC; cells that mean "not recorded" are `unknown`.
    missing : mapping
        Spelling of "not recorded" -> its number of rows; a blank cell is the empty text.
    merged : tuple of tuples
        Levels that differed by case or spacing only and are now one, the kept spelling first.
    """

    column: pl.Series
    missing: Mapping[str, int]
    merged: tuple[tuple[str, ...], ...] = ()

    @property
    def n_missing(self) -> int:
        """Return the number of rows that are `unknown`."""
        return sum(self.missing.values())

    def missing_text(self) -> str:
        """Return how "not recorded" is written in the table: ``blank 4, NA 2``."""
        return ", ".join(f"{word or 'blank'} {n:,}" for word, n in sorted(self.missing.items()))


class LevelsError(ValueError):
    """Levels that cannot be used; the caller adds the place.

    Parameters
    ----------
    what, fix : str
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def normal_levels(name: str, column: pl.Series, *, merge: bool) -> Levels:
    """Return the levels of an attribute in normal form.

    Parameters
    ----------
    name : str
        The attribute, for messages.
    column : pl.Series
        Text; null is blank.
    merge : bool
        Merge levels that differ by case or spacing only, into the most frequent spelling.

    Raises
    ------
    LevelsError
        Levels differ by case or spacing only and `merge` is False; or a level contains `` x ``.
    """
    counts = column.fill_null("").alias("level").value_counts(name="n").sort("n", "level", descending=[True, False])
    written = dict(counts.iter_rows())
    normal = {word: UNKNOWN if _not_recorded(name, word) else trimmed(word) for word in written}
    missing: dict[str, int] = {}
    for word, n in written.items():
        if normal[word] == UNKNOWN:
            missing[trimmed(word)] = missing.get(trimmed(word), 0) + n
    groups = _alike(normal, written)
    alike = tuple(spellings for spellings in groups if len(spellings) > 1)
    if alike and not merge:
        raise LevelsError(
            f"levels of {name} differ by case or spacing only{_how_else(alike)}: {_listed(alike)}.",
            "Correct the spelling, or merge them: `levels: {merge: case}` in audit.yaml, `--merge-levels` of `fmaudit assess`.",
        )
    kept = {spelling: spellings[0] for spellings in groups for spelling in spellings}
    normal = {word: kept[level] for word, level in normal.items()}
    crossed = sorted({level for level in normal.values() if _CROSSED in level})
    if crossed:
        raise LevelsError(
            f"{name} has levels that contain `{_CROSSED}`, which separates the levels of an intersection "
            f"(for example {crossed[0]!r}).",
            "Write these levels in another way, for example with `/`.",
        )
    if all(word == level for word, level in normal.items()):
        return Levels(column, missing, alike)
    replaced = column.fill_null("").replace_strict(normal, return_dtype=pl.String)
    return Levels(replaced.alias(column.name), missing, alike)


def _not_recorded(name: str, word: str) -> bool:
    """Return whether a cell of an attribute means "not recorded"; of a sex, U and UN do (HL7 v2, table 0001)."""
    return is_missing(word) or (
        word_key(word) in ("u", "un") and any(part in name.casefold() for part in ("sex", "gender"))
    )


def _alike(normal: Mapping[str, str], written: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Return the levels by how they read without case and spacing, the most frequent spelling of each first."""
    counts: dict[str, int] = {}
    for word, level in normal.items():
        counts[level] = counts.get(level, 0) + written[word]
    found: dict[str, list[str]] = {}
    for level in sorted(counts, key=lambda one: (-counts[one], one)):
        found.setdefault(_alike_key(level), []).append(level)
    return [tuple(spellings) for spellings in found.values()]


def _alike_key(level: str) -> str:
    """Return a level without case (Turkish i too), spacing, invisible characters, and the ``.0`` of a whole number."""
    visible = "".join(char for char in unicodedata.normalize("NFKC", level) if unicodedata.category(char) != "Cf")
    key = "".join(visible.casefold().replace("i\u0307", "i").replace("\u0131", "i").split())
    return _WHOLE.sub(r"\1", key)


def _how_else(alike: Sequence[Sequence[str]]) -> str:
    """Return how else levels differ that look equal in print, or that are numbers: a clause for the message."""
    levels = [level for spellings in alike for level in spellings]
    invisible = any(unicodedata.category(char) == "Cf" for level in levels for char in level)
    decimals = any(_WHOLE.fullmatch(level) for level in levels)
    clauses = [("invisible characters count", invisible), ("1 and 1.0 are one number", decimals)]
    return "".join(f" ({clause})" for clause, applies in clauses if applies)


def _listed(alike: Sequence[Sequence[str]]) -> str:
    shown = "; ".join(", ".join(map(repr, spellings)) for spellings in alike[:_SHOWN_LISTS])
    more = len(alike) - _SHOWN_LISTS
    return f"{shown}; and {more} more" if more > 0 else shown

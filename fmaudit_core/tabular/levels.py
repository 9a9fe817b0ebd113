"""The normal form of an attribute's levels, the same for a cohort table and a predictions file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import UNKNOWN
from fmaudit_core.tabular.words import LOOK_ALIKE, is_missing, trimmed, word_key

#: separates the levels of an intersection, so no level may contain it
_CROSSED: Final = " x "
_SHOWN_LISTS: Final = 5
#: a whole number with decimals, as a column becomes that once held a blank cell
_WHOLE: Final = re.compile(r"^([+-]?\d+)\.0+$")
#: codes of "not recorded" that no group has: -9, -99, -999.0
_NINES: Final = re.compile(r"-9{1,5}(\.0+)?")
_CODE: Final = re.compile(r"-?\d+(\.0+)?")
#: codes of "not recorded" in columns on people: HL7 v2 (table 0001), HL7 v3 (null flavours), PCORnet
_NULL_CODES: Final = frozenset({"u", "un", "ni", "asku", "nask", "nav", "msk"})
_SEX: Final = ("sex", "gender")
_PEOPLE: Final = (*_SEX, "race", "ethni", "hispanic")
_BETWEEN_LETTERS: Final = re.compile(r"(?<=[^\W\d_])_+(?=[^\W\d_])")
#: words that may stand with `unknown`: ``Unknown racial group``
_UNKNOWN_WHAT: Final = frozenset(
    {"sex", "gender", "race", "racial", "ethnicity", "ethnic", "group", "origin", "value", "status", "age"}
)
#: of a sex: abbreviation -> word
_SEXES: Final = {"f": "female", "m": "male"}


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
    codes : mapping
        Whole numbers that are negative or stand among words -> number of rows; many exports write "not recorded" so.
    """

    column: pl.Series
    missing: Mapping[str, int]
    merged: tuple[tuple[str, ...], ...] = ()
    codes: Mapping[str, int] = field(default_factory=dict)

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
    groups = _alike(name, _counted(normal, written))
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
    codes = _codes({level: n for level, n in _counted(normal, written).items() if level != UNKNOWN})
    if all(word == level for word, level in normal.items()):
        return Levels(column, missing, alike, codes)
    replaced = column.fill_null("").replace_strict(normal, return_dtype=pl.String)
    return Levels(replaced.alias(column.name), missing, alike, codes)


def _counted(normal: Mapping[str, str], written: Mapping[str, int]) -> dict[str, int]:
    """Return the levels with their numbers of rows."""
    counts: dict[str, int] = {}
    for word, level in normal.items():
        counts[level] = counts.get(level, 0) + written[word]
    return counts


def _codes(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the levels that may be codes of "not recorded": numbers among words, else the negative ones among numbers."""
    numbers = {level: n for level, n in counts.items() if _CODE.fullmatch(level)}
    if len(numbers) == len(counts):
        numbers = {level: n for level, n in numbers.items() if level.startswith("-")}
    return numbers if len(numbers) < len(counts) else {}


def _not_recorded(name: str, word: str) -> bool:
    """Return whether a cell of an attribute means "not recorded"; some codes do in columns on people only.

    References
    ----------
    HL7 v2 table 0001, HL7 v3 NullFlavor, PCORnet Common Data Model; OMOP: concept 0 is "no matching concept".
    """
    key, of = word_key(word), name.casefold()
    if is_missing(word) or _NINES.fullmatch(key):
        return True
    if key in ("0", "0.0") and of.endswith("concept_id"):
        return True
    words = set(key.split())
    if "unknown" in words and words - {"unknown"} <= _UNKNOWN_WHAT | set(word_key(name).split()):
        return True
    return key in _NULL_CODES and is_of_people(name)


def _alike(name: str, counts: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Return the levels by how they read without case and spacing, the most frequent spelling of each first."""
    found: dict[str, list[str]] = {}
    short = _SEXES if _names_one_of(name, _SEX) else {}
    for level in sorted(counts, key=lambda one: (-counts[one], one)):
        key = _alike_key(level)
        found.setdefault(short.get(key, key), []).append(level)
    return [tuple(spellings) for spellings in found.values()]


def is_of_people(name: str) -> bool:
    """Return whether an attribute is a property of a person by its name, such as sex or race, which seldom changes."""
    return _names_one_of(name, _PEOPLE)


def _names_one_of(name: str, parts: Sequence[str]) -> bool:
    return any(part in name.casefold() for part in parts)


def _alike_key(level: str) -> str:
    """Return a level without case (Turkish i too), spacing, invisible characters, and the ``.0`` of a whole number.

    Dashes are one character, and so are apostrophes: ``18\u201329`` reads as ``18-29``. An underscore between letters is a space.
    """
    visible = "".join(char for char in unicodedata.normalize("NFKC", level) if unicodedata.category(char) != "Cf")
    visible = _BETWEEN_LETTERS.sub(" ", visible.translate(LOOK_ALIKE))
    key = "".join(visible.casefold().replace("i\u0307", "i").replace("\u0131", "i").split())
    return _WHOLE.sub(r"\1", key)


def _how_else(alike: Sequence[Sequence[str]]) -> str:
    """Return how else levels differ that look equal in print, or that are numbers: a clause for the message."""
    levels = [level for spellings in alike for level in spellings]
    invisible = any(unicodedata.category(char) == "Cf" for level in levels for char in level)
    decimals = any(_WHOLE.fullmatch(level) for level in levels)
    short = any({*map(str.casefold, spellings)} & {*_SEXES} and len({*map(len, spellings)}) > 1 for spellings in alike)
    clauses = [
        ("invisible characters count", invisible),
        ("1 and 1.0 are one number", decimals),
        ("F is female, M is male", short),
    ]
    return "".join(f" ({clause})" for clause, applies in clauses if applies)


def _listed(alike: Sequence[Sequence[str]]) -> str:
    shown = "; ".join(", ".join(map(repr, spellings)) for spellings in alike[:_SHOWN_LISTS])
    more = len(alike) - _SHOWN_LISTS
    return f"{shown}; and {more} more" if more > 0 else shown

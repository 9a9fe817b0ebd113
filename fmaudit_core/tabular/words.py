"""Words in other people's tables: labels, splits, and cells that mean "not recorded"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

import polars as pl

#: invisible characters that are not white space for `str.strip`
_INVISIBLE: Final = "\u200b\u200e\u200f\u2060\ufeff\u00ad"
#: what is removed at the ends of cells and column names: white space (no-break spaces too), invisible characters
ENDS: Final = "".join(char for char in map(chr, range(0x3001)) if char.isspace()) + _INVISIBLE

#: cells that mean "not recorded", as `word_key` writes them
MISSING_WORDS: Final = frozenset(
    (
        "", "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "nat", "none", "null", "<null>", "(null)", "\\n", "nil", "unknown", "unk",
        "not known", "missing", "blank", "(blank)", "empty", "not recorded", "not reported", "not documented", "not available",
        "unavailable", "not applicable", "not specified", "unspecified", "not stated", "not provided", "not given", "not asked",
        "not disclosed", "undisclosed", "no information", "no data", "no answer", "no response", "no matching concept",
        "unable to obtain", "unable to determine", "patient declined", "patient declined to answer", "patient refused",
        "declined", "declined to answer", "declined to state", "declined to specify", "decline to answer", "decline to state",
        "refused", "refused to answer", "prefer not to say", "prefer not to answer", "choose not to disclose", "?", "-", "--",
        "unbekannt", "keine angabe", "k.a.", "inconnu", "inconnue", "non renseign\u00e9", "desconocido", "desconocida",
        "desconhecido", "ignorado", "sconosciuto", "onbekend", "ok\u00e4nd", "\u4e0d\u660e", "\u672a\u77e5",
        ".", "#value!", "#ref!", "#div/0!", "#name?", "#null!", "#num!",
    )
)  # fmt: skip
#: joins two words of one cell: ``Unknown/Not specified``, ``unknown or not reported``
_JOINED: Final = re.compile(r"\s*(?:/|,|;|\bor\b|\band\b)\s*")
SPLIT_WORDS: Final[Mapping[str, str]] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "tuning": "val",
    "test": "test",
    "testing": "test",
    "held_out": "test",
    "holdout": "test",
    "hold_out": "test",
}
LABEL_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "positive", "pos"), True),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "negative", "neg"), False),
    **dict.fromkeys(("", "na", "n/a", "nan", "null", "none", "censored", "censor", "unknown"), None),
}


def trimmed(text: str) -> str:
    """Return a cell in Unicode NFC, without white space (no-break spaces too) and invisible characters at its ends."""
    return unicodedata.normalize("NFC", text).strip(ENDS)


def word_key(text: str) -> str:
    """Return the form in which words are compared: trimmed, lower case, one space between words, underscores as spaces."""
    return " ".join(trimmed(text).casefold().replace("_", " ").split())


def is_missing(text: str) -> bool:
    """Return whether a cell means "not recorded", in one word or in several: ``Unknown/Not specified``."""
    key = word_key(text)
    return key in MISSING_WORDS or all(part in MISSING_WORDS - {""} for part in _JOINED.split(key))


def split_of(word: str) -> str | None:
    """Return the split that a word names, None if it names none."""
    return SPLIT_WORDS.get(word_key(word).replace(" ", "_").replace("-", "_"))


def normal_splits(column: pl.Series) -> pl.Series:
    """Return splits by their usual names; another word stays as it is, and a blank one is null."""
    words = column.unique().drop_nulls().to_list()
    names = {word: split_of(word) or word or None for word in words}
    if all(name == word for word, name in names.items()):
        return column
    return column.replace_strict(names, default=None, return_dtype=pl.String)


def shortened_ids(study: str = "study_id", patient: str = "patient_id") -> pl.Expr:
    """Return whether a patient of several studies has an id such as ``1.23457E+15``.

    A spreadsheet shortens long numbers like that, so that several patients may have become one.
    """
    return pl.col(patient).cast(pl.String).str.contains(r"^\d([.,]\d+)?[eE]\+\d+$") & (
        pl.col(study).n_unique().over(patient) > 1
    )


def without_missing_words(ids: pl.Series) -> pl.Series:
    """Return ids with blank in place of words that mean "not recorded": several rows ``nan`` are not one patient.

    ``####`` is what a spreadsheet writes for a number that is wider than its column.
    """
    lower = ids.str.to_lowercase()
    missing = (lower.is_in(list(MISSING_WORDS)) | lower.str.contains("^#{3,}$")).fill_null(value=False)
    return ids if not missing.any() else ids.set(missing, "")

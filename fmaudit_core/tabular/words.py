"""Words in other people's tables: labels, splits, and cells that mean "not recorded"."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Final

import polars as pl

#: invisible characters that are not white space for `str.strip`
_INVISIBLE: Final = "\u200b\u2060\ufeff\u00ad"

#: cells that mean "not recorded", as `word_key` writes them
MISSING_WORDS: Final = frozenset(
    (
        "", "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "nat", "none", "null", "unknown", "unk", "not known", "missing",
        "not recorded", "not reported", "not available", "not specified", "unspecified", "unable to obtain",
        "patient declined", "patient declined to answer", "declined", "declined to answer", "prefer not to say", "?", "-", "--",
    )
)  # fmt: skip
SPLIT_WORDS: Final[Mapping[str, str]] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "tuning": "val",
    "test": "test",
    "held_out": "test",
}
LABEL_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "positive", "pos"), True),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "negative", "neg"), False),
    **dict.fromkeys(("", "na", "n/a", "nan", "null", "none", "censored", "censor", "unknown"), None),
}


def trimmed(text: str) -> str:
    """Return a cell in Unicode NFC, without white space (no-break spaces too) and invisible characters at its ends."""
    before, after = None, unicodedata.normalize("NFC", text)
    while before != after:
        before, after = after, after.strip().strip(_INVISIBLE)
    return after


def word_key(text: str) -> str:
    """Return the form in which words are compared: trimmed, lower case, one space between words, underscores as spaces."""
    return " ".join(trimmed(text).casefold().replace("_", " ").split())


def is_missing(text: str) -> bool:
    """Return whether a cell means "not recorded"."""
    return word_key(text) in MISSING_WORDS


def without_missing_words(ids: pl.Series) -> pl.Series:
    """Return ids with blank in place of words that mean "not recorded": several rows ``nan`` are not one patient."""
    missing = ids.str.to_lowercase().is_in(list(MISSING_WORDS)).fill_null(value=False)
    return ids if not missing.any() else ids.set(missing, "")

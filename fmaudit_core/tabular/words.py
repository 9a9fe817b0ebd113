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
        "unkn", "undefined", "undetermined", "not collected", "not entered", "not determined", "n.d.", "data not available",
        "information not available", "unable to answer", "patient unable to answer", "pt declined", "pt refused",
        "choose not to answer", "redacted", "masked", "suppressed", "withheld",
        ".", "#value!", "#ref!", "#div/0!", "#name?", "#null!", "#num!",
    )
)  # fmt: skip
#: ids that databases write for "not recorded"
MISSING_NUMBERS: Final = (-1, -9, -99, -999, -9999, -99999)
#: characters that look alike in print -> one of them: dashes, apostrophes
LOOK_ALIKE: Final = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-") | dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'")
)
#: characters around a word that mean nothing: ``*Unknown``, ``[null]``, ``???``
_AROUND: Final = "*?.!()[]{}<>\"' "
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
    **dict.fromkeys(
        ("1", "1.0", "true", "t", "yes", "y", "positive", "pos", "present", "checked", "ja", "oui", "si", "s\u00ed"),
        True,
    ),
    **dict.fromkeys(
        ("0", "0.0", "false", "f", "no", "n", "negative", "neg", "absent", "unchecked", "nein", "non"), False
    ),
    **dict.fromkeys(("", "na", "n/a", "nan", "null", "none", "censored", "censor", "unknown"), None),
}


def trimmed(text: str) -> str:
    """Return a cell in Unicode NFC, without white space (no-break spaces too) and invisible characters at its ends."""
    return unicodedata.normalize("NFC", text).strip(ENDS)


def word_key(text: str) -> str:
    """Return the form in which words are compared: trimmed, lower case, one space between words, underscores as spaces."""
    return " ".join(trimmed(text).casefold().replace("_", " ").split())


def is_missing(text: str) -> bool:
    """Return whether a cell means "not recorded", in one word or in several: ``[null]``, ``Unknown/Not specified``."""
    key = word_key(text)
    return _is_missing_word(key) or all(part and _is_missing_word(part) for part in _JOINED.split(key))


def _is_missing_word(key: str) -> bool:
    plain = key.translate(LOOK_ALIKE).strip(_AROUND)
    return bool({key, plain, plain.replace("-", " ")} & MISSING_WORDS)


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

    ``####`` is what a spreadsheet writes for a number that is wider than its column; -1 and -9999 are codes of databases.
    """
    lower = ids.str.to_lowercase()
    missing = lower.is_in(list(MISSING_WORDS)) | lower.str.contains(r"^(#{3,}|-(1|9{1,5})(\.0+)?)$")
    missing = missing.fill_null(value=False)
    return ids if not missing.any() else ids.set(missing, "")

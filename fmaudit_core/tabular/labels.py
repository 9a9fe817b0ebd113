"""Labels as tables write them: words and numbers to True, False or no label."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from fmaudit_core.tabular.words import LABEL_WORDS, is_missing, word_key

#: CheXpert's label of an uncertain finding (Irvin et al. 2019)
_UNCERTAIN: Final = "-1"
#: words that need no note
_PLAIN: Final = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True)
class ReadLabels:
    """A column of labels.

    Parameters
    ----------
    column : pl.Series
        Boolean; null if the cell has no label or cannot be read.
    unreadable : pl.Series
        Boolean, true for cells that are neither a label nor blank.
    n_blank, n_uncertain : int
        Rows that are blank (or a word for it), and rows that are -1.
    positive, negative : tuple of str
        Words other than 1, 0, true and false that were read as positive or negative.
    """

    column: pl.Series
    unreadable: pl.Series
    n_blank: int
    n_uncertain: int
    positive: tuple[str, ...]
    negative: tuple[str, ...]


def read_labels(column: pl.Series, positive: Collection[str] = (), negative: Collection[str] = ()) -> ReadLabels:
    """Read a column of labels of any type.

    Parameters
    ----------
    column : pl.Series
    positive, negative : collections of str, optional
        The user's own words. A column with any of them is read by them only; case, spaces and ``.0`` do not matter.
    """
    text = column.cast(pl.String).fill_null("")
    counts = dict(text.alias("cell").value_counts(name="n").iter_rows())
    keys = {word: _key(word) for word in counts}
    own = {**dict.fromkeys(map(_key, negative), False), **dict.fromkeys(map(_key, positive), True)}
    known: Mapping[str, bool | None] = own if set(own) & set(keys.values()) else LABEL_WORDS
    meaning: dict[str, bool | None] = {}
    bad, n_blank, n_uncertain = [], 0, 0
    for word, key in keys.items():
        if key in known:
            meaning[word] = known[key]
        elif not is_missing(word) and key not in (_UNCERTAIN, "censored", "censor"):
            bad.append(word)
        if meaning.setdefault(word, None) is None and word not in bad:
            n_uncertain += counts[word] if key == _UNCERTAIN else 0
            n_blank += counts[word] if key != _UNCERTAIN else 0
    return ReadLabels(
        text.replace_strict(meaning, return_dtype=pl.Boolean).alias(column.name),
        text.is_in(bad),
        n_blank,
        n_uncertain,
        *(
            tuple(sorted({keys[w] for w, m in meaning.items() if m is of and _PLAIN.get(keys[w]) is not of}))
            for of in (True, False)
        ),
    )


def _key(word: str) -> str:
    """Return a word as labels are compared: whole numbers without decimals (``1.0``, ``1,0``), else `word_key`."""
    key = word_key(word)
    try:
        number = float(key.replace(",", ".", 1))
    except ValueError:
        return key
    return str(int(number)) if number.is_integer() else key

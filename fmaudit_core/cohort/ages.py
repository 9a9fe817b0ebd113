"""Ages in completed years, and age bands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from fmaudit_core.config import AgeBand

_AGE: Final = re.compile(
    r"(>=|<=|[<>\u2265\u2264]|over|above|under|below)?\s*([+-]?[0-9]+(?:[.,][0-9]*)?)\s*"
    r"(y\.?/?o\.?|yrs?|years?|y|m|months?|w|weeks?|d|days?)?\s*(?:old)?\s*(\+|(?:and|or|&) (?:over|above|older|more|up))?",
    re.IGNORECASE,
)
_BEYOND: Final = {">": 1, "over": 1, "above": 1, "<": -1, "under": -1, "below": -1}
#: units per year
_UNITS: Final = {"y": 1.0, "m": 12.0, "w": 52.18, "d": 365.25}


def completed_years(birth: pl.Expr, when: pl.Expr) -> pl.Expr:
    """Return the completed years between two dates, NULL if either is. A birthday on 29 February counts from 1 March."""
    before_birthday = (when.dt.month() < birth.dt.month()) | (
        (when.dt.month() == birth.dt.month()) & (when.dt.day() < birth.dt.day())
    )
    return (when.dt.year() - birth.dt.year()).cast(pl.Int64) - before_birthday.cast(pl.Int64)


def band_of(age: pl.Expr, bands: Sequence[AgeBand]) -> pl.Expr:
    """Return the label of the band that contains an age, NULL if there is none."""
    band = pl.lit(None, dtype=pl.String)
    for one in bands:
        inside = age >= one.low if one.high is None else age.is_between(one.low, one.high)
        band = pl.when(inside).then(pl.lit(one.label)).otherwise(band)
    return band


@dataclass(frozen=True)
class ReadAges:
    """Ages of a user's table.

    Parameters
    ----------
    years : pl.Series
        Float64 years; null if the cell is not an age.
    n_open : int
        Rows with an open age, such as ``>89`` or ``90+``; read as the nearest age inside.
    """

    years: pl.Series
    n_open: int


def read_ages(column: pl.Series) -> ReadAges:
    """Read ages: ``67``, ``67.5``, ``67,5``, DICOM's ``067Y`` and ``006M``, ``67 years``, ``>89``, ``90+``, ``90 or older``.

    References
    ----------
    DICOM PS3.5, value representation AS.
    """
    counts = dict(column.value_counts(name="n").iter_rows())
    read = {text: _age(text) for text in counts}
    years = column.replace_strict({text: age for text, (age, _) in read.items()}, return_dtype=pl.Float64)
    return ReadAges(years.alias(column.name), sum(counts[text] for text, (_, is_open) in read.items() if is_open))


def _age(text: str) -> tuple[float | None, bool]:
    """Return an age in years, and whether it is open."""
    match = _AGE.fullmatch(" ".join(text.split()))
    if match is None:
        return None, False
    bound, number, unit, plus = match.groups()
    age = float(number.replace(",", ".")) / _UNITS[(unit or "y")[0].lower()]
    age += _BEYOND.get((bound or "").lower(), 0)
    return age, bool(bound or plus)

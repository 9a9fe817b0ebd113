"""Ages in completed years, and age bands."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from fmaudit_core.config import AgeBand


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
        band = pl.when(age.is_between(one.low, one.high)).then(pl.lit(one.label)).otherwise(band)
    return band

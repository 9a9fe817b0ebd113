"""Ages in completed years, and the bands they fall into."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from fmaudit_core.config import AgeBand


def completed_years(birth: pl.Expr, when: pl.Expr) -> pl.Expr:
    """Years between two dates that are complete: one born on 29 February turns older on 1 March. NULL where either is."""
    before_birthday = (when.dt.month() < birth.dt.month()) | (
        (when.dt.month() == birth.dt.month()) & (when.dt.day() < birth.dt.day())
    )
    return (when.dt.year() - birth.dt.year()).cast(pl.Int64) - before_birthday.cast(pl.Int64)


def band_of(age: pl.Expr, bands: Sequence[AgeBand]) -> pl.Expr:
    """Label of the band an age falls into; NULL outside all of them."""
    band = pl.lit(None, dtype=pl.String)
    for one in bands:
        band = pl.when(age.is_between(one.low, one.high)).then(pl.lit(one.label)).otherwise(band)
    return band

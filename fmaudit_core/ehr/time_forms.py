"""Forms of times that are not read, recognised to name them in an error: US dates, day-first dates, Excel serials, epochs.

None of them is read by a guess: 02/05/2020 is February or May, and a number is a day in one program and a second in another.
"""

from __future__ import annotations

from typing import Final

import polars as pl

OTHER: Final = "text that is not a time"
_MONTH_FIRST: Final = "month first, as 12/31/2020"
_DAY_FIRST: Final = "day first, as 31/12/2020"
_EITHER: Final = "month or day first, as 02/05/2020"
#: regular expression of a whole cell -> how its form is named; the first match counts
_FORMS: Final = (
    (r"^\d{4}-\d{1,2}-\d{1,2}.*[AaPp]\.?[Mm]\.?$", "a 12-hour clock, as 02:30 PM"),
    (r"^\d{4}[/.]\d{1,2}[/.]\d{1,2}", "other separators, as 2020/12/31"),
    (r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{2}([ T,]|$)", "a year of two digits, as 31-12-20"),
    (r"^(19|20|21)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([ T]?\d{4,6}(\.\d+)?)?$", "digits only, as 20201231"),
    (r"^\d{16,19}(\.0*)?$", "microseconds or nanoseconds since 1970"),
    (r"^\d{12,13}(\.0*)?$", "milliseconds since 1970"),
    (r"^\d{9,10}(\.\d+)?$", "seconds since 1970"),
    (r"^[1-9]\d{4}([.,]\d+)?$", "Excel serial numbers, as 44196"),
    (r"(?i)^.*(jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-zé]*", "names of months, as 31-Dec-2020"),
)
_NUMBERS: Final = r"^(\d{1,2})[/.-](\d{1,2})[/.-]\d{4}([ T,]|$)"


def form_of_times(written: pl.Expr) -> pl.Expr:
    """Return how the form of a text is named."""
    first, second = (written.str.extract(_NUMBERS, group).cast(pl.Int32) for group in (1, 2))
    named: pl.Expr = pl.lit(OTHER)
    for pattern, name in reversed(_FORMS):
        named = pl.when(written.str.contains(pattern)).then(pl.lit(name)).otherwise(named)
    of_day = (
        pl.when((first > 12) & second.is_between(1, 12)).then(pl.lit(_DAY_FIRST))
        .when((second > 12) & first.is_between(1, 12)).then(pl.lit(_MONTH_FIRST))
        .otherwise(pl.lit(_EITHER))
    )  # fmt: skip
    is_of_day = written.str.contains(_NUMBERS)
    return pl.when(is_of_day).then(of_day).otherwise(named)


def named_forms(counts: dict[str, int]) -> str:
    """Return forms with their numbers of rows: ``1,200 with month first, as 12/31/2020``.

    Rows that could be either way are counted with the others if those are all of one way.
    """
    by_form = dict(counts)
    ways = [way for way in (_MONTH_FIRST, _DAY_FIRST) if way in by_form]
    if len(ways) == 1:
        by_form[ways[0]] += by_form.pop(_EITHER, 0)
    by_size = sorted(by_form.items(), key=lambda one: (-one[1], one[0]))
    return "; ".join(f"{n:,} with {form}" for form, n in by_size)

"""Published figures beside ours, as they may be shown. What they are: `reproduction/`."""

from __future__ import annotations

from typing import Final

import polars as pl

from fmaudit_core.report.disclosure.small_group_rounding import DECIMALS
from fmaudit_core.tables.findings import PAPER_COMPARISON

_OURS: Final = ("ours", "ours_low", "ours_high", "ours_p")


def shown_paper(comparison: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    """The comparison without our numbers of protected subgroups, and in whole percent beside one."""
    rows = comparison.select(PAPER_COMPARISON.schema.names())
    levels = protected.with_columns(withheld=pl.lit(value=True))
    beside = protected.select("task", "attribute").unique().with_columns(coarse=pl.lit(value=True))
    rows = rows.join(levels, on=["task", "attribute", "subgroup"], how="left", maintain_order="left")
    rows = rows.join(beside, on=["task", "attribute"], how="left", maintain_order="left")
    withheld, coarse = (pl.col(name).fill_null(value=False) for name in ("withheld", "coarse"))
    return rows.with_columns(
        *(
            pl.when(withheld).then(None).when(coarse).then(pl.col(name).round(DECIMALS)).otherwise(name).alias(name)
            for name in _OURS
        ),
        verdict=pl.when(withheld).then(pl.lit("not_comparable")).otherwise("verdict"),
        reason=pl.when(withheld).then(pl.lit("the subgroup is too small to be shown")).otherwise("reason"),
    ).drop("withheld", "coarse")

"""Published figures next to ours, as they may be shown. What they are: `reproduction/`."""

from __future__ import annotations

from typing import Final

import polars as pl

from fmaudit_core.config import InspectCohort
from fmaudit_core.report.disclosure.small_group_rounding import DECIMALS
from fmaudit_core.report.input.report_input import ReportInput
from fmaudit_core.tables.findings import PAPER_COMPARISON

_OURS: Final = ("ours", "ours_low", "ours_high", "ours_p")


def shown_paper(inputs: ReportInput, protected: pl.DataFrame) -> pl.DataFrame:
    """Return the comparison without our numbers of protected subgroups, and in whole percent next to one.

    Without a row unless the cohort is the paper's, INSPECT.
    """
    rows = inputs.paper_comparison.select(PAPER_COMPARISON.schema.names())
    if not isinstance(inputs.audit.cohort, InspectCohort):
        return rows.clear()
    levels = protected.with_columns(withheld=pl.lit(value=True))
    neighbours = protected.select("task", "attribute").unique().with_columns(coarse=pl.lit(value=True))
    rows = rows.join(levels, on=["task", "attribute", "subgroup"], how="left", maintain_order="left")
    rows = rows.join(neighbours, on=["task", "attribute"], how="left", maintain_order="left")
    withheld, coarse = (pl.col(name).fill_null(value=False) for name in ("withheld", "coarse"))
    return rows.with_columns(
        *(
            pl.when(withheld).then(None).when(coarse).then(pl.col(name).round(DECIMALS)).otherwise(name).alias(name)
            for name in _OURS
        ),
        verdict=pl.when(withheld).then(pl.lit("not_comparable")).otherwise("verdict"),
        reason=pl.when(withheld).then(pl.lit("the subgroup is too small to be shown")).otherwise("reason"),
    ).drop("withheld", "coarse")

"""Adjusted gaps as they may be shown."""

from __future__ import annotations

from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.report.disclosure.small_group_rounding import DECIMALS, flag_protected
from fmaudit_core.report.input.report_input import ADJUSTED

_DIFFERENCES: Final = tuple(
    f"{name}{end}" for name in ("crude", "adjusted", "explained", "att") for end in ("", "_low", "_high")
)
_PS: Final = ("crude_p", "adjusted_p", "adjusted_p_within")
#: never precise enough to count studies
_COARSE: Final = ("share", "share_low", "share_high", "imbalance_before", "imbalance", "largest_weight", "outside")


def shown_adjusted_gaps(
    rows: pl.DataFrame, findings: pl.DataFrame, protected: pl.DataFrame, settings: FairnessSection
) -> pl.DataFrame:
    """Return adjusted gaps of subgroups that may be shown; next to a protected one, differences are rounded.

    Both sides of a row are tested subgroups, so that nothing follows about a small one. Effective sizes are rounded to tens, and
    withheld under the small-group rule. The share of a gap is shown only if the finding's verdict is `disparity`.

    Parameters
    ----------
    findings : frame with the columns of a score set, `attribute`, `metric` and `verdict`
    protected : frame of task, attribute, subgroup
    """
    key = [*SCORE_SET, "attribute", "metric"]
    found = findings.filter(verdict="disparity").select(*key, found=pl.lit(value=True))
    kept = flag_protected(rows.select(ADJUSTED.names()), protected).filter(~pl.col("protected"))
    kept = kept.join(found, on=key, how="left", maintain_order="left")
    size = pl.col("n_effective")
    columns = [
        *(pl.when("coarse").then(_rounded(name, DECIMALS)).otherwise(name).alias(name) for name in _DIFFERENCES),
        *(pl.when("coarse").then(_rounded(name, 3)).otherwise(name).alias(name) for name in _PS),
        *(_rounded(name, DECIMALS).alias(name) for name in _COARSE),
        pl.when(size >= settings.suppress_under).then((size / 10).round() * 10).alias("n_effective"),
    ]
    shown = kept.with_columns(columns).with_columns(
        pl.when("found").then(name).alias(name) for name in ("share", "share_low", "share_high")
    )
    counts = pl.when("coarse").then(pl.lit("rounded")).otherwise(pl.lit("exact"))
    return shown.with_columns(counts=counts).select(*ADJUSTED.names(), "counts")


def _rounded(name: str, decimals: int) -> pl.Expr:
    """Return a rounded column; adding 0 turns a zero below zero into zero."""
    return pl.col(name).round(decimals) + 0.0

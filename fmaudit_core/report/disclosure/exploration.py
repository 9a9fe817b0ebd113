"""Training counts, learning curves and discovered subgroups as they may be shown.

Every rate is in whole percent and every count in tens, because regions and refits cross subgroups whose exact counts are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.report.disclosure.small_group_rounding import DECIMALS, flag_protected
from fmaudit_core.report.input.report_input import CURVES, DISCOVERED, TRAINING, TRAITS

_TRAINING_COUNTS: Final = ("n_pos", "n_neg", "n_pos_each", "n_neg_each")
_REGION: Final = (
    "n", "n_pos", "udr", "expected", "rest_udr", "rest_expected", "excess", "excess_low", "excess_high", "p_value", "p_adjusted",
    "stability", "share",
)  # fmt: skip
WITHHELD: Final = "withheld"


def shown_training_counts(rows: pl.DataFrame, protected: pl.DataFrame, settings: FairnessSection) -> pl.DataFrame:
    """Return rows of tested subgroups that may be shown; no training count of an attribute with a small group is."""
    kept = flag_protected(rows.select(TRAINING.names()), protected).filter(~pl.col("protected"))
    few = pl.any_horizontal(pl.col(name) < settings.suppress_under for name in _TRAINING_COUNTS)
    hidden = pl.col("coarse") | few.any().over("task", "encoder", "attribute")
    counts = [pl.when(~hidden).then(_tens(name)).alias(name) for name in _TRAINING_COUNTS]
    return kept.with_columns(*_rounded(kept), *counts).select(TRAINING.names())


def shown_curves(rows: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    """Return learning curves of subgroups that may be shown, without counts."""
    kept = flag_protected(rows.select(CURVES.names()), protected).filter(~pl.col("protected"))
    return kept.with_columns(_rounded(kept)).select(CURVES.names())


def shown_regions(rows: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    """Return regions that may be shown; one whose rule names an attribute with a small group keeps its number only."""
    found = rows.select(DISCOVERED.names())
    named = pl.col("rule").list.eval(pl.element().str.split_exact(" ", 1).struct[0])
    attributes = pl.Series(_attributes(protected), dtype=pl.String).implode()
    hidden = named.list.set_intersection(pl.lit(attributes)).list.len() > 0
    hidden = hidden.fill_null(value=False)
    values = {name: _tens(name) if name in ("n", "n_pos") else _whole(name) for name in _REGION}
    return found.with_columns(
        *(pl.when(~hidden).then(value).alias(name) for name, value in values.items()),
        _whole("detectable").alias("detectable"),
        rule=pl.when(~hidden).then("rule"),
        confirmed=pl.col("confirmed") & ~hidden,
        status=pl.when(hidden).then(pl.lit(WITHHELD)).otherwise("status"),
    )


def shown_traits(rows: pl.DataFrame, regions: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    """Return traits of regions that may be shown; none of an attribute with a small group."""
    kept = rows.select(TRAITS.names()).filter(~pl.col("column").is_in(_attributes(protected)))
    by = [*SCORE_SET, "region"]
    kept = kept.join(regions.filter(status="tested").select(by), on=by, how="semi", maintain_order="left")
    odds = [pl.col(name).round(1).alias(name) for name in ("odds_ratio", "odds_low", "odds_high")]
    shares = [pl.col(name).round(DECIMALS).alias(name) for name in ("share_inside", "share_outside")]
    return kept.with_columns(*odds, *shares)


def _attributes(protected: pl.DataFrame) -> Sequence[str]:
    return protected.get_column("attribute").unique().sort().to_list()


def _rounded(frame: pl.DataFrame) -> list[pl.Expr]:
    """Return every number with decimals in whole percent, and p values to three decimals."""
    names = [name for name, kind in frame.schema.items() if kind == pl.Float64]
    return [_whole(name).alias(name) for name in names]


def _whole(name: str) -> pl.Expr:
    decimals = 3 if name.endswith("_p") or name.startswith("p_") else DECIMALS
    return pl.col(name).round(decimals) + 0.0


def _tens(name: str) -> pl.Expr:
    return (pl.col(name) / 10).round().cast(pl.Int64) * 10

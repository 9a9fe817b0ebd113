"""Who is protected by the small-group rule, and counts next to them from which theirs do not follow.

An attribute's protected subgroups together are known to everybody who can subtract: the total less what is shown. So one of
the shown subgroups, the *absorbing subgroup*, is reported as if the protected ones were in the middle of their ten: with 0 to 9
of them as if there were 5. What is shown is then the very same for each of the ten numbers that may be hidden. All counts
are rounded to tens on top. The absorbing subgroup is chosen by name, never by size: a choice by size would tell which is
larger. Intersections: `intersections.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import OVERALL
from fmaudit_core.config import FairnessSection

#: a rate in whole percent fits several denominators
DECIMALS: Final = 2
#: a hidden count must have at least this many other values
MIN_AMBIGUITY: Final = 4
_ROUND_TO: Final = 10
_LEVEL: Final = ["task", "attribute", "subgroup"]
#: metrics whose status tells whether a class is large
_TELLS: Final = {"n_pos": ("auroc", "udr", "tpr"), "n_neg": ("auroc", "fpr")}


def is_small(rule: int) -> pl.Expr:
    """Return whether a row is under the rule; its status is not trusted alone."""
    few = (pl.col("n_pos") < rule) | (pl.col("n_neg") < rule)
    return pl.col("status").is_in(["suppressed", "not_estimable"]) | few.fill_null(value=False)


def _is_tested(count: str, frame: pl.DataFrame, by: Sequence[str]) -> pl.Expr:
    """Return whether the status of any metric of a subgroup says that it has enough positives, or negatives, to be tested."""
    tested = pl.col("status") == "tested"
    if "metric" not in frame.columns:
        return tested
    tells = pl.col("metric").is_in(_TELLS.get(count, ("auroc",)))
    return (tested & tells).any().over(*(name for name in by if name != "metric"), "subgroup")


def protected_levels(
    frame: pl.DataFrame, by: Sequence[str], known: pl.DataFrame | None, settings: FairnessSection
) -> pl.DataFrame:
    """Return subgroups of which nothing may be shown: task, attribute, subgroup.

    Those under the rule in any row, and all subgroups of an attribute whose absorbing subgroup has too little room.

    Parameters
    ----------
    frame : frame with `attribute`, `subgroup`, `status`, `n_pos`, `n_neg`
    by : sequence of str
        Columns whose values have one row per subgroup, `attribute` among them.
    known : frame, optional
        Those protected already.
    """
    found = frame.filter(is_small(settings.suppress_under) & (pl.col("attribute") != OVERALL)).select(_LEVEL)
    if known is not None:
        found = pl.concat([known, found])
    found = found.unique()
    rows = flag_protected(frame, found).filter("coarse")
    rows = rows.with_columns(_is_tested(name, frame, by).alias(f"tested_{name}") for name in _TELLS)
    counted = _with_hidden_counts(rows.filter(~pl.col("protected")), frame, by, ("n_pos", "n_neg"))
    tight = pl.any_horizontal(_is_tight(name, settings) for name in _TELLS)
    whole = counted.filter("absorbing_subgroup").filter(tight).select("task", "attribute").unique()
    return pl.concat([found, rows.join(whole, on=["task", "attribute"], how="semi").select(_LEVEL)]).unique()


def _is_tight(count: str, settings: FairnessSection) -> pl.Expr:
    """Return whether under `MIN_AMBIGUITY` other hidden counts of the same ten leave the absorbing subgroup's count where its
    status says it is.
    """
    # the absorbing subgroup's count, were the hidden one at the beginning of its ten: it may lie up to nine below
    start = pl.col(count) + pl.col(f"hidden_{count}") % _ROUND_TO
    tested = pl.col(f"tested_{count}")
    least = pl.when(tested).then(settings.test_from).otherwise(settings.suppress_under)
    below = pl.min_horizontal(start - least, pl.lit(_ROUND_TO - 1))
    few = ~tested & (pl.col(count) < settings.test_from)
    above = pl.when(few).then(pl.max_horizontal(start - (settings.test_from - 1), pl.lit(0))).otherwise(0)
    return (below - above < MIN_AMBIGUITY).fill_null(value=False)


def flag_protected(frame: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with two columns more: `protected`, and `coarse` where a neighbour (or the row itself) is."""
    levels = protected.select(_LEVEL).with_columns(protected=pl.lit(value=True))
    neighbours = protected.select("task", "attribute").unique().with_columns(coarse=pl.lit(value=True))
    out = frame.join(levels, on=_LEVEL, how="left", maintain_order="left")
    out = out.join(neighbours, on=["task", "attribute"], how="left", maintain_order="left")
    return out.with_columns(pl.col("protected", "coarse").fill_null(value=False))


def apply_disclosure(
    rows: pl.DataFrame,
    by: Sequence[str],
    counts: Sequence[str],
    *,
    values: Sequence[str] = (),
    tests: Sequence[str] = (),
) -> pl.DataFrame:
    """Return marked rows as they may be shown, with `counts`: ``exact``, ``rounded`` or ``withheld`` (no number at all).

    Parameters
    ----------
    rows : frame of `flag_protected`
    by : sequence of str
        Columns whose values have one row per subgroup, `attribute` among them.
    counts : sequence of str
        Rounded where coarse. Of `n_pos` and `n_neg`, an `n` next to them is reported as the sum.
    values : sequence of str
        Rounded to `DECIMALS` where coarse.
    tests : sequence of str
        Shown as they are unless protected.
    """
    parts = [name for name in counts if name != "n" or "n_pos" not in counts]
    counted = _with_hidden_counts(rows, rows, by, parts)
    protected, coarse = pl.col("protected"), pl.col("coarse")
    rounded = counted.with_columns(
        pl.when(coarse).then(_rounded_count(name)).otherwise(name).alias(name) for name in parts
    )
    if len(parts) < len(counts):
        rounded = rounded.with_columns(n=pl.when(coarse).then(pl.col("n_pos") + pl.col("n_neg")).otherwise("n"))
    rounded = rounded.with_columns(
        pl.when(coarse).then(pl.col(name).round(DECIMALS)).otherwise(name).alias(name) for name in values
    )
    shown = rounded.with_columns(
        pl.when(protected).then(None).otherwise(name).alias(name) for name in (*counts, *values, *tests)
    )
    kind = pl.when(protected).then(pl.lit("withheld")).when(coarse).then(pl.lit("rounded")).otherwise(pl.lit("exact"))
    return shown.select(*(name for name in rows.columns if name not in ("protected", "coarse")), counts=kind)


def _with_hidden_counts(
    rows: pl.DataFrame, all_rows: pl.DataFrame, by: Sequence[str], counts: Sequence[str]
) -> pl.DataFrame:
    """Return the rows with `absorbing_subgroup` and `hidden_<count>`: the protected counts together, as the total reveals them.

    Without a row of all studies in `all_rows` they are added up.
    """
    whole = [name for name in by if name != "attribute"]
    totals = all_rows.filter(attribute=OVERALL).select(*whole, *(pl.col(name).alias(f"all_{name}") for name in counts))
    out = rows.join(totals.unique(whole), on=whole, how="left", maintain_order="left")
    shown = ~pl.col("protected")
    tested = _is_tested("n", rows, by).fill_null(value=False)
    # a column first: no window within a window
    out = out.with_columns(place=pl.when(tested).then(pl.lit("0")).otherwise(pl.lit("1")))
    place = pl.when(shown).then(pl.concat_str("place", "subgroup"))
    added = out.with_columns(
        *(
            pl.coalesce(
                pl.col(f"all_{name}") - pl.col(name).filter(shown).sum().over(by),
                pl.col(name).filter(~shown).sum().over(by),
            ).alias(f"hidden_{name}")
            for name in counts
        ),
        absorbing_subgroup=(place == place.min().over(by)).fill_null(value=False),
    )
    return added.drop("place")


def _rounded_count(count: str) -> pl.Expr:
    hidden = pl.col(f"hidden_{count}")
    middle = hidden // _ROUND_TO * _ROUND_TO + _ROUND_TO // 2
    carried = pl.when("absorbing_subgroup").then((hidden - middle).fill_null(0)).otherwise(0)
    return (pl.col(count) + carried + _ROUND_TO // 2) // _ROUND_TO * _ROUND_TO

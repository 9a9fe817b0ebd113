"""Known and censored outcomes by subgroup, and notes on the files, as they may be shown.

Outcomes of all parts are reported together: early death censors outcomes that require survival, so a subgroup may lose more. A
subgroup that is protected anywhere, in the metrics of the task or in a part of the cohort's table, is protected here, and so is
one with few censored or few known outcomes.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import OVERALL
from fmaudit_core.config import FairnessSection
from fmaudit_core.report.disclosure.small_group_rounding import apply_disclosure, flag_protected, protected_levels
from fmaudit_core.report.input.report_input import LABEL_FLOW, NOTES

#: how the cohort's readers call all studies together
_EVERYBODY: Final = "all"
#: units of notes that count people or their studies; files may be counted to one
_PEOPLE: Final = ("studies", "persons", "patients", "volumes", "rows")


def shown_label_flow(
    label_flow: pl.DataFrame, protected: pl.DataFrame, studies: pl.DataFrame, settings: FairnessSection
) -> pl.DataFrame:
    """Return outcomes per task, attribute and subgroup over all parts.

    Parameters
    ----------
    label_flow : frame of `LABEL_FLOW`
    protected : frame of task, attribute, subgroup
    studies : frame of `STUDIES` as it may be shown, with `counts`

    Returns
    -------
    Frame of task, attribute (`overall` for all), subgroup, n_studies, n_known, n_censored, counts: ``exact``, ``rounded`` or
    ``withheld``; tasks of which no outcome is censored have the row of all studies only
    """
    everybody = pl.col("attribute") == _EVERYBODY
    pooled = (
        label_flow.select(LABEL_FLOW.names())
        .with_columns(attribute=pl.when(everybody).then(pl.lit(OVERALL)).otherwise("attribute"))
        .group_by("task", "attribute", "subgroup")
        .agg(n_pos=pl.col("n_censored").sum(), n_neg=(pl.col("n_positive") + pl.col("n_negative")).sum())
        # censored and known stand where the rule has positives and negatives
        .with_columns(n=pl.col("n_pos") + pl.col("n_neg"), status=pl.lit("interval_only"))
        .sort("task", pl.col("attribute") != OVERALL, "attribute", "subgroup")
    )
    censored = pooled.filter((pl.col("attribute") == OVERALL) & (pl.col("n_pos") > 0)).select("task")
    pooled = pooled.filter((pl.col("attribute") == OVERALL) | pl.col("task").is_in(censored.to_series().implode()))
    hidden = studies.filter(counts="withheld").select("attribute", "subgroup").unique()
    tasks = pooled.select("task").unique()
    known = pl.concat([protected, tasks.join(hidden, how="cross").select(protected.columns)]).unique()
    by = ["task", "attribute"]
    rows = flag_protected(pooled, protected_levels(pooled, by, known, settings))
    shown = apply_disclosure(rows, by, ("n", "n_pos", "n_neg"))
    few = (pl.col("attribute") == OVERALL) & (pl.col("n_pos") > 0) & (pl.col("n_pos") < settings.suppress_under)
    return shown.with_columns(
        *(pl.when(few).then(None).otherwise(name).alias(name) for name in ("n_pos", "n_neg")),
        counts=pl.when(few).then(pl.lit("withheld")).otherwise("counts"),
    ).select("task", "attribute", "subgroup", n_studies="n", n_known="n_neg", n_censored="n_pos", counts="counts")


def shown_notes(notes: pl.DataFrame, settings: FairnessSection) -> pl.DataFrame:
    """Return notes with `few`: whether they count too few people or studies to show the number."""
    few = pl.col("unit").is_in(_PEOPLE) & (pl.col("n") > 0) & (pl.col("n") < settings.suppress_under)
    rows = notes.select(NOTES.names()).with_columns(few=few)
    return rows.with_columns(n=pl.when("few").then(None).otherwise("n"))

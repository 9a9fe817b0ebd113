"""Known and censored outcomes by subgroup, and notes on the files, as they may be shown and how the page says them.

Outcomes of all parts are told together: early death often censors what death prevents, so a subgroup may lose more than others. A
subgroup that is protected anywhere, in the metrics of the task or in a part of the cohort's table, is protected here, and so is
one with few censored or few known outcomes.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.report import wording
from fmaudit_core.report.inputs import LABEL_FLOW, NOTES, OVERALL
from fmaudit_core.report.protection import marked, protected_levels, told

#: how the cohort's readers call all studies together
_EVERYBODY: Final = "all"
#: units of notes that count people or their studies; files may be counted to one
_PEOPLE: Final = ("studies", "persons", "patients", "volumes", "rows")

Row = dict[str, Any]


def shown_label_flow(
    label_flow: pl.DataFrame, protected: pl.DataFrame, studies: pl.DataFrame, settings: FairnessSection
) -> pl.DataFrame:
    """Outcomes per task, attribute and subgroup over all parts.

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
    rows = marked(pooled, protected_levels(pooled, by, known, settings))
    shown = told(rows, by, ("n", "n_pos", "n_neg"))
    few = (pl.col("attribute") == OVERALL) & (pl.col("n_pos") > 0) & (pl.col("n_pos") < settings.suppress_under)
    return shown.with_columns(
        *(pl.when(few).then(None).otherwise(name).alias(name) for name in ("n_pos", "n_neg")),
        counts=pl.when(few).then(pl.lit("withheld")).otherwise("counts"),
    ).select("task", "attribute", "subgroup", n_studies="n", n_known="n_neg", n_censored="n_pos", counts="counts")


def shown_notes(notes: pl.DataFrame, settings: FairnessSection) -> pl.DataFrame:
    """Notes with `few`: whether they count so few people or studies that the number is not told."""
    few = pl.col("unit").is_in(_PEOPLE) & (pl.col("n") > 0) & (pl.col("n") < settings.suppress_under)
    rows = notes.select(NOTES.names()).with_columns(few=few)
    return rows.with_columns(n=pl.when("few").then(None).otherwise("n"))


def label_flow_view(rows: list[Row], tasks: list[str], attributes: list[str]) -> list[Row]:
    """A table of the page per task: all studies, then subgroups, with the share that is censored."""
    out = []
    for task in tasks:
        of_task = [row for row in rows if row["task"] == task]
        groups = [
            {
                "attribute": wording.attribute_title(name),
                "rows": [_line(row) for row in _by_name(of_task) if row["attribute"] == name],
            }
            for name in attributes
        ]
        whole = next((row for row in of_task if row["attribute"] == OVERALL), None)
        if whole is not None:
            shown = [group for group in groups if group["rows"]]
            out.append({"task": wording.task_title(task), "whole": _line(whole), "groups": shown})
    return out


def _by_name(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["subgroup"] == "unknown", row["subgroup"]))


def _line(row: Row) -> Row:
    withheld, rounded = row["counts"] == "withheld", row["counts"] == "rounded"
    share = None if withheld or not row["n_studies"] else row["n_censored"] / row["n_studies"]
    return {
        "title": "All studies" if row["attribute"] == OVERALL else wording.subgroup_title(row["subgroup"]),
        "withheld": withheld,
        "known": wording.count(row["n_known"], row["counts"]),
        "censored": wording.count(row["n_censored"], row["counts"]),
        "share": wording.percent(share, 0 if rounded else 1),
    }


def notes_view(rows: list[Row], least: int) -> list[Row]:
    """Notes as the page says them."""
    return [
        {"note": row["note"][:1].upper() + row["note"][1:], "n": f"fewer than {least}" if row["few"] else wording.count(row["n"]),
         "unit": row["unit"], "detail": row["detail"]}
        for row in rows
    ]  # fmt: skip

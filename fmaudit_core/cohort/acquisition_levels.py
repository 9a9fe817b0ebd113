"""Levels of attributes and covariates from headers of the images: text in normal form, numbers as they are or grouped."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import ACQUISITION, UNKNOWN, acquisition_column, too_many_levels
from fmaudit_core.config import AcquisitionSection
from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.levels import normal_levels

#: level of texts that few patients have: typed into a header, they may be anything, and a page shows the names of its levels
RARE: Final = "other"


def with_acquisition(
    studies: pl.DataFrame,
    acquisition: pl.DataFrame,
    attributes: Sequence[str],
    section: AcquisitionSection,
    *,
    at_least: int,
) -> pl.DataFrame:
    """Return the studies with one more column of levels per attribute; a study without the fact is `unknown`.

    Parameters
    ----------
    studies : frame of `STUDIES`
    acquisition : frame of `ACQUISITION`
    attributes : sequence of str
        Names with their prefix, such as `acquisition.kvp`.
    at_least : int
        Number of patients that a text needs to be a level; those of fewer are together `RARE`.
    """
    columns = {name: column for name in attributes if (column := acquisition_column(name)) is not None}
    facts = acquisition.select("study_id", *dict.fromkeys(columns.values()))
    known = studies.select("study_id", "patient_id").join(facts, on="study_id", how="left", maintain_order="left")
    levels = [_levels(known, column, section, at_least).alias(name) for name, column in columns.items()]
    return studies.with_columns(levels)


def _levels(known: pl.DataFrame, column: str, section: AcquisitionSection, at_least: int) -> pl.Series:
    values, edges = known.get_column(column), section.edges(column)
    if values.dtype == pl.String:
        return _text_levels(known, column, at_least)
    if values.dtype == pl.Boolean:
        levels = values.replace_strict({True: "yes", False: "no"}, default=None, return_dtype=pl.String)
    elif edges:
        labels = _between(list(map(_number, edges)))
        levels = values.map_elements(lambda value: labels[bisect_left(edges, value)], return_dtype=pl.String)
    else:
        levels = values.map_elements(_number, return_dtype=pl.String)
    return levels.fill_null(UNKNOWN)


def _between(edges: Sequence[str]) -> list[str]:
    return [f"<= {edges[0]}", *(f"{low}-{high}" for low, high in itertools.pairwise(edges)), f"> {edges[-1]}"]


def _number(value: float) -> str:
    return f"{value:.10g}"


def _text_levels(known: pl.DataFrame, column: str, at_least: int) -> pl.Series:
    # ` x ` separates the levels of an intersection, and nobody can correct a header
    text = known.get_column(column).str.replace_all(" x ", "x", literal=True)
    level = normal_levels(column, text, merge=True).column.alias("level")
    is_rare = pl.col("patient_id").n_unique().over("level") < at_least
    return (
        known.with_columns(level)
        .select(pl.when(is_rare & (pl.col("level") != UNKNOWN)).then(pl.lit(RARE)).otherwise("level"))
        .to_series()
    )


def check_levels(studies: pl.DataFrame, attributes: Sequence[str]) -> None:
    """Check that every attribute of `with_acquisition` has few enough levels to compare.

    Raises
    ------
    CohortError
        The message names the attribute and the setting that groups it.
    """
    n_patients = studies.get_column("patient_id").n_unique()
    for name in attributes:
        column, n_levels = acquisition_column(name), studies.get_column(name).n_unique()
        if too_many_levels(n_levels, n_patients):
            grouped = column in AcquisitionSection.model_fields
            raise CohortError(
                f"{name} has {n_levels:,} levels for {n_patients:,} patients, too many to compare.",
                where="audit.yaml",
                fix=f"Group them with `{ACQUISITION}: {{{column}: [...]}}`."
                if grouped
                else "Remove it from `attributes:` and `covariates:`.",
            )

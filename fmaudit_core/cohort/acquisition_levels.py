"""Levels of the attributes that the headers of the images give: text as recorded, numbers as they are or grouped by edges."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import ACQUISITION, UNKNOWN, acquisition_column, too_many_levels
from fmaudit_core.config import AcquisitionSection
from fmaudit_core.tabular.errors import CohortError

#: words of a header that record nothing
_BLANK: Final = ("", "na", "n/a", "nan", "null", "none", "unknown")


def with_acquisition(
    studies: pl.DataFrame, acquisition: pl.DataFrame, attributes: Sequence[str], section: AcquisitionSection
) -> pl.DataFrame:
    """Return the studies with one more column of levels per attribute; a study without the fact is `unknown`.

    Parameters
    ----------
    studies : frame of `STUDIES`
    acquisition : frame of `ACQUISITION`
    attributes : sequence of str
        Names with their prefix, such as `acquisition.kvp`.

    Raises
    ------
    CohortError
        An attribute has too many levels to compare.
    """
    columns = {name: column for name in attributes if (column := acquisition_column(name)) is not None}
    levels = acquisition.select(
        "study_id",
        *(_levels(acquisition.get_column(of), section.edges(of)).alias(name) for name, of in columns.items()),
    )
    joined = studies.join(levels, on="study_id", how="left", maintain_order="left")
    found = joined.with_columns(pl.col(name).fill_null(UNKNOWN) for name in columns)
    _check_levels(found, columns)
    return found


def _levels(values: pl.Series, edges: Sequence[float]) -> pl.Series:
    if values.dtype == pl.Boolean:
        return values.replace_strict({True: "yes", False: "no"}, default=None, return_dtype=pl.String)
    if values.dtype == pl.String:
        return _one_spelling(values)
    if edges:
        labels = [
            f"<= {edges[0]:g}",
            *(f"{low:g}-{high:g}" for low, high in itertools.pairwise(edges)),
            f"> {edges[-1]:g}",
        ]
        return values.map_elements(lambda value: labels[bisect_left(edges, value)], return_dtype=pl.String)
    return values.map_elements(lambda value: f"{value:g}" if value % 1 else f"{value:.0f}", return_dtype=pl.String)


def _one_spelling(values: pl.Series) -> pl.Series:
    """Return text in one spelling where only upper and lower case differ: the most frequent, then the first in order."""
    frame = values.alias("text").to_frame().with_columns(key=pl.col("text").str.to_lowercase())
    counted = frame.drop_nulls("text").group_by("key", "text").len().sort("len", "text", descending=[True, False])
    spelling = counted.unique("key", keep="first", maintain_order=True).select("key", level="text")
    level = frame.join(spelling, on="key", how="left", maintain_order="left")
    return level.select(pl.when(~pl.col("key").is_in(_BLANK)).then("level")).to_series()


def _check_levels(studies: pl.DataFrame, columns: dict[str, str]) -> None:
    n_patients = studies.get_column("patient_id").n_unique()
    for name, column in columns.items():
        n_levels = studies.get_column(name).n_unique()
        if too_many_levels(n_levels, n_patients):
            grouped = column in AcquisitionSection.model_fields
            raise CohortError(
                f"attribute {name} has {n_levels:,} levels for {n_patients:,} patients, too many to compare.",
                where="audit.yaml",
                fix=f"Group them with `{ACQUISITION}: {{{column}: [...]}}`."
                if grouped
                else "Remove it from `attributes:`.",
            )

"""Predictions as they lie in a notebook: a data frame of polars, pandas or Arrow, or columns in a dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from fmaudit_core.fairness.errors import FairnessError

_FORMS = "a data frame of polars or pandas, an Arrow table, or a dict of columns"


def as_polars(predictions: Any) -> pl.DataFrame:
    """Return predictions as a polars frame.

    Parameters
    ----------
    predictions : polars frame or lazy frame; anything with Arrow's C stream, such as a pandas frame, an Arrow table or a DuckDB
        relation; or a mapping of names to columns of equal length

    Raises
    ------
    FairnessError
        It is none of these, its columns differ in length, or a column mixes types.
    """
    if isinstance(predictions, pl.DataFrame):
        return predictions
    if isinstance(predictions, pl.LazyFrame):
        return predictions.collect()
    of_arrow = hasattr(predictions, "__arrow_c_stream__")
    if not of_arrow and not isinstance(predictions, Mapping):
        raise FairnessError(f"predictions are {_FORMS}, but this is of type {type(predictions).__name__}.")
    try:
        return pl.DataFrame(predictions if of_arrow else dict(predictions))
    except Exception as error:  # the libraries' errors differ, and may quote cells
        raise FairnessError(
            f"these predictions cannot be read as a table ({type(error).__name__}).",
            fix="Columns must have equal lengths, and each one type: write ids and levels as text.",
        ) from None

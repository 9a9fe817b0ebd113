"""Tables of a cohort and the rules of their rows. Only readers create these tables. Columns: `tables/cohort.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from fmaudit_core.common.errors import columns_missing
from fmaudit_core.common.vocabulary import SPLITS, UNKNOWN
from fmaudit_core.tables.cohort import COHORT_NOTES, LABELS, STUDIES
from fmaudit_core.tables.table import Table
from fmaudit_core.tabular.errors import CohortError, rows_named

MAX_AGE = 120


@dataclass(frozen=True)
class Cohort:
    """A validated cohort.

    Parameters
    ----------
    studies : frame of `STUDIES`, and one text column per further attribute
    labels : frame of `LABELS`, a row per study and task
    flow : frame of `COHORT_FLOW`, in order
    images_root : Path, optional
        Folder that `image_path` is relative to; None, with no paths, if the cohort was read without images.
    label_flow : frame of `LABEL_FLOW`
        Known and censored outcomes per task, split and subgroup.
    notes : frame of `COHORT_NOTES`, in order
        Repaired defects and selected files; may be empty.
    """

    studies: pl.DataFrame
    labels: pl.DataFrame
    flow: pl.DataFrame
    images_root: Path | None
    label_flow: pl.DataFrame
    notes: pl.DataFrame = field(default_factory=COHORT_NOTES.frame)

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return the tables of the cohort by their published names."""
        return {
            "studies": self.studies,
            "labels": self.labels,
            "cohort_flow": self.flow,
            "label_flow": self.label_flow,
            "cohort_notes": self.notes,
        }


#: rule of a table -> rows that break it
Rules = Mapping[str, pl.Expr]


def blank(column: str) -> pl.Expr:
    """Return whether a cell of text is null or empty."""
    return pl.col(column).fill_null("") == ""


_STUDY_RULES: Rules = {
    "no study id": blank("study_id"),
    "no patient id": blank("patient_id"),
    "a study is listed more than once": pl.col("study_id").is_duplicated() & ~blank("study_id"),
    "one patient is in more than one split, which inflates every score": pl.col("split").n_unique().over("patient_id")
    > 1,
    f"a split other than {', '.join(SPLITS)}": ~pl.col("split").is_in(SPLITS),
    "age below 0": pl.col("age") < 0,
    f"age above {MAX_AGE}": pl.col("age") > MAX_AGE,
    "no age": pl.col("age").is_null() & (pl.col("age_band") != UNKNOWN),
    "no image_path": pl.col("image_path") == "",
    **{f"no {name}": pl.col(name).is_null() for name in ("split", "age_band", "sex", "race_ethnicity")},
}
_LABEL_RULES: Rules = {
    "a study has two labels for one task": pl.struct("study_id", "task").is_duplicated(),
    **{f"no {name}": pl.col(name).is_null() for name in ("study_id", "task")},
}


def validate_studies(frame: pl.DataFrame, *, where: str) -> pl.DataFrame:
    """Return the studies unchanged if they satisfy every rule. Additional columns are allowed.

    Raises
    ------
    CohortError
        The message names each broken rule and its rows, counted from 1.
    """
    return _validated(frame, STUDIES, _STUDY_RULES, where)


def validate_labels(frame: pl.DataFrame, *, where: str) -> pl.DataFrame:
    """Return the labels unchanged if they satisfy every rule.

    Raises
    ------
    CohortError
        The message names each broken rule and its rows, counted from 1.
    """
    return _validated(frame, LABELS, _LABEL_RULES, where)


def _validated(frame: pl.DataFrame, table: Table, rules: Rules, where: str) -> pl.DataFrame:
    missing = [name for name in table.schema if name not in frame.columns]
    if missing:
        raise CohortError(f"{columns_missing(missing)}.", where=where)
    problems = broken_rules(frame.with_row_index("row", 1), rules)
    if problems:
        raise CohortError(problems, where=where)
    return frame


def broken_rules(frame: pl.DataFrame, rules: Rules) -> str:
    """Return a text that names each broken rule and its rows, in the order of the rules; empty if none is broken.

    Parameters
    ----------
    frame : polars frame
        Its column `row` is the number by which the user finds the row.
    rules : mapping of what a row violates to whether it does; null counts as no
    """
    rows = {rule: frame.filter(broken).get_column("row").sort().to_list() for rule, broken in rules.items()}
    text = "; ".join(f"{rows_named(of)}: {rule}" for rule, of in rows.items() if of)
    return text and text[0].upper() + text[1:] + "."

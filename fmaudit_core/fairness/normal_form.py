"""Predictions in their normal form: ids, splits and levels as text, labels as Boolean, scores as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import polars as pl

from fmaudit_core.common.vocabulary import SCORE_SET, how_many
from fmaudit_core.config import LabelWords, LevelRules
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.tabular.errors import CohortError, ids_in_lower_case, rows_named, words_named
from fmaudit_core.tabular.labels import ReadLabels, read_labels
from fmaudit_core.tabular.levels import LevelsError, normal_levels
from fmaudit_core.tabular.notes import Notes, note_changing_people, note_labels, note_levels
from fmaudit_core.tabular.numbers import read_numbers, why_unreadable
from fmaudit_core.tabular.text_cells import text_of
from fmaudit_core.tabular.words import MISSING_NUMBERS, normal_splits, without_missing_words

#: number by which the user finds a row; kept until the predictions are checked
ROW: Final = "__row__"
_IDS: Final = ("study_id", "patient_id")


@dataclass(frozen=True)
class PredictionRules:
    """How a table of predictions is read.

    Parameters
    ----------
    labels : LabelWords
        The user's words for labels.
    levels : LevelRules
    unlabelled : {"refuse", "exclude"}
        What happens to rows without a label.
    decimal_comma : bool
        Read ``0,5`` as 0.5.
    """

    labels: LabelWords = field(default_factory=LabelWords)
    levels: LevelRules = field(default_factory=LevelRules)
    unlabelled: Literal["refuse", "exclude"] = "refuse"
    decimal_comma: bool = False


DEFAULT_RULES: Final = PredictionRules()


def normal_form(
    frame: pl.DataFrame, attributes: Sequence[str], rules: PredictionRules = DEFAULT_RULES, notes: Notes | None = None
) -> pl.DataFrame:
    """Return predictions in normal form; predictions that already are stay the same.

    Parameters
    ----------
    frame : frame
        With `ROW`, or numbered from 1.
    attributes : sequence of str
        Columns of the frame.
    notes : Notes, optional
        Gets what was read in another way than written.

    Raises
    ------
    FairnessError
        A label, a score or a threshold cannot be read, or levels differ by case or spacing only; gives column and rows.
    """
    notes = notes if notes is not None else Notes()
    if ROW not in frame.columns:
        frame = frame.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(ROW))
    try:
        frame = frame.with_columns(_id_text(frame.get_column(name)) for name in _IDS)
        keys = [name for name in (*SCORE_SET, "threshold_source") if name in frame.columns]
        frame = frame.with_columns(text_of(frame.get_column(name)).replace("", None) for name in keys)
        frame = frame.with_columns(normal_splits(text_of(frame.get_column("split"))))
        frame = _with_labels(frame, rules, notes)
        numbers = [name for name in ("y_score", "threshold") if name in frame.columns]
        frame = frame.with_columns(_numbers(frame, name, rules) for name in numbers)
        frame = frame.with_columns(_levels(frame, name, rules, notes) for name in attributes)
    except CohortError as error:
        raise FairnessError(error.what, where=error.where, fix=error.fix) from error
    note_changing_people(frame, attributes, notes)
    return frame


def _id_text(column: pl.Series) -> pl.Series:
    if column.dtype.is_integer():
        return column.set(column.is_in(MISSING_NUMBERS), None) if column.dtype.is_signed_integer() else column
    return without_missing_words(text_of(column)).replace("", None)


def _with_labels(frame: pl.DataFrame, rules: PredictionRules, notes: Notes) -> pl.DataFrame:
    """Return the rows with `y_true` as Boolean."""
    column = frame.get_column("y_true")
    if column.dtype == pl.Boolean and not column.null_count():
        return frame
    read = read_labels(column, rules.labels.positive, rules.labels.negative)
    bad = frame.filter(read.unreadable)
    if bad.height:
        shown = words_named(bad.get_column("y_true").cast(pl.String).str.to_lowercase(), ids_in_lower_case(bad))
        raise FairnessError(
            f"y_true holds labels other than 0 and 1: {shown} ({rows_of(bad)}).",
            fix="Labels are 1 or 0, true or false, yes or no, positive or negative. Name other words with --positive and "
            "--negative (`labels` in Python).",
        )
    note_labels("y_true", read, notes, "rows")
    labelled = frame.with_columns(read.column)
    if not read.column.null_count():
        return labelled
    if rules.unlabelled == "refuse":
        raise FairnessError(
            f"y_true holds missing labels: {_unlabelled(read)} ({rows_of(labelled.filter(read.column.is_null()))}).",
            fix="Exclude these studies from the file, or give --unlabelled exclude (`unlabelled` in Python)."
            + (" If -1 means negative, give --positive 1 --negative -1." if read.n_uncertain else ""),
        )
    notes.add("y_true has no label", read.column.null_count(), "rows", f"excluded: {_unlabelled(read)}")
    return labelled.filter(read.column.is_not_null())


def _unlabelled(read: ReadLabels) -> str:
    parts = [(read.n_blank, "blank or NaN"), (read.n_uncertain, "-1, which means uncertain")]
    return ", ".join(f"{how_many(n, 'row')} {what}" for n, what in parts if n)


def _numbers(frame: pl.DataFrame, name: str, rules: PredictionRules) -> pl.Series:
    column = frame.get_column(name)
    if column.dtype == pl.Float64:
        return column
    if column.dtype.is_nested() or column.dtype in (pl.Boolean, pl.Binary):
        raise FairnessError(f"{name} holds {column.dtype}, not numbers.")
    numbers, unreadable = read_numbers(column, comma=rules.decimal_comma)
    bad = frame.filter(unreadable)
    if bad.height:
        why = why_unreadable(bad.get_column(name))
        raise FairnessError(
            f"{name} is not a number in {rows_of(bad)}: {why}.", fix="Write numbers with a point, for example 0.764."
        )
    return numbers


def _levels(frame: pl.DataFrame, name: str, rules: PredictionRules, notes: Notes) -> pl.Series:
    try:
        levels = normal_levels(name, text_of(frame.get_column(name)), merge=rules.levels.merge == "case")
    except LevelsError as error:
        raise FairnessError(error.what, fix=error.fix) from error
    note_levels(name, levels, notes, "rows")
    return levels.column


def rows_of(frame: pl.DataFrame) -> str:
    """Return the number of rows of a frame, and which they are: ``3 rows: 2, 5 and 9``."""
    rows = frame.get_column(ROW).sort().to_list()
    return rows_named(rows) if len(rows) == 1 else f"{len(rows):,} rows: {rows_named(rows).removeprefix('rows ')}"

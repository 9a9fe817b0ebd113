"""Tables of a cohort as dataframely schemas: columns, types and rules. Only readers create these tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dataframely as dy
import polars as pl

from fmaudit_core.common.errors import columns_missing
from fmaudit_core.common.vocabulary import SPLITS, UNKNOWN
from fmaudit_core.tabular.errors import CohortError, rows_named

MAX_AGE = 120


class Study(dy.Schema):
    """One CT study. Additional text columns are attributes that define subgroups."""

    study_id = dy.String(primary_key=True, min_length=1)
    patient_id = dy.String(nullable=False, min_length=1)
    split = dy.Enum(SPLITS, nullable=False)
    age = dy.Int64(nullable=True, min=0, max=MAX_AGE)
    age_band = dy.String(nullable=False)
    sex = dy.String(nullable=False)
    race_ethnicity = dy.String(nullable=False)
    image_path = dy.String(nullable=True, min_length=1)

    @dy.rule()
    def patient_in_one_split(cls) -> pl.Expr:  # noqa: N805  # dataframely passes the class
        """Require that all studies of a patient are in one split, because leakage inflates every score."""
        return pl.col("split").n_unique().over("patient_id") == 1

    @dy.rule()
    def age_known_or_said(cls) -> pl.Expr:  # noqa: N805
        """Require the age band `unknown` for a study without an age."""
        return pl.col("age").is_not_null() | (pl.col("age_band") == UNKNOWN)


class Label(dy.Schema):
    """Label of one task for one study, NULL if it is censored or unknown."""

    study_id = dy.String(primary_key=True)
    task = dy.String(primary_key=True)
    label = dy.Bool(nullable=True)


class Flow(dy.Schema):
    """Numbers of studies and patients after each selection step of the cohort."""

    step = dy.String(primary_key=True)
    n_studies = dy.Int64(nullable=False, min=0)
    n_patients = dy.Int64(nullable=False, min=0)


class Note(dy.Schema):
    """Note on the source files of a cohort that does not exclude any study."""

    note = dy.String(primary_key=True)
    n = dy.Int64(nullable=False, min=0)
    unit = dy.String(nullable=False)
    detail = dy.String(nullable=False)


@dataclass(frozen=True)
class Cohort:
    """A validated cohort.

    Parameters
    ----------
    studies : frame of `Study`, and one text column per further attribute
    labels : frame of `Label`, a row per study and task
    flow : frame of `Flow`, in order
    images_root : Path, optional
        Base folder of `image_path`. None, with no paths, if the cohort was read without images.
    label_flow : frame of `outcomes.LABEL_FLOW`
        Known and censored outcomes per task, split and subgroup.
    notes : frame of `Note`, in order
        Repaired defects and selected files; may be empty.
    """

    studies: pl.DataFrame
    labels: pl.DataFrame
    flow: pl.DataFrame
    images_root: Path | None
    label_flow: pl.DataFrame
    notes: pl.DataFrame = field(default_factory=Note.create_empty)

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return the tables of the cohort by their published names."""
        return {
            "studies": self.studies,
            "labels": self.labels,
            "cohort_flow": self.flow,
            "label_flow": self.label_flow,
            "cohort_notes": self.notes,
        }


class _NumberedStudy(Study):
    row = dy.Int64(nullable=False)


class _NumberedLabel(Label):
    row = dy.Int64(nullable=False)


_STUDY_RULES: Mapping[str, str] = {
    "study_id|min_length": "no study id",
    "patient_id|min_length": "no patient id",
    "primary_key": "a study is listed more than once",
    "patient_in_one_split": "one patient is in more than one split, which inflates every score",
    "split|dtype": f"a split other than {', '.join(SPLITS)}",
    "age|min": "age below 0",
    "age|max": f"age above {MAX_AGE}",
    "age_known_or_said": "no age",
}
_LABEL_RULES: Mapping[str, str] = {"primary_key": "a study has two labels for one task"}


def validate_studies(frame: pl.DataFrame, *, where: str) -> pl.DataFrame:
    """Return the studies unchanged if they satisfy every rule of `Study`. Additional columns are allowed.

    Raises
    ------
    CohortError
        The message names each broken rule and its rows, counted from 1.
    """
    _validate(frame, Study, _NumberedStudy, _STUDY_RULES, where)
    return frame


def validate_labels(frame: pl.DataFrame, *, where: str) -> pl.DataFrame:
    """Return the labels unchanged if they satisfy every rule of `Label`.

    Raises
    ------
    CohortError
        The message names each broken rule and its rows, counted from 1.
    """
    _validate(frame, Label, _NumberedLabel, _LABEL_RULES, where)
    return frame


def _validate(
    frame: pl.DataFrame, schema: type[dy.Schema], numbered: type[dy.Schema], messages: Mapping[str, str], where: str
) -> None:
    missing = [name for name in schema.column_names() if name not in frame.columns]
    if missing:
        raise CohortError(f"{columns_missing(missing)}.", where=where)
    problems = broken_rules(numbered, frame.with_row_index("row", 1), messages)
    if problems:
        raise CohortError(problems, where=where)


def broken_rules(schema: type[dy.Schema], frame: pl.DataFrame, messages: Mapping[str, str]) -> str:
    """Return sentences that name each broken rule of a schema and its rows; empty if no rule is broken.

    Parameters
    ----------
    schema : dataframely schema
        Must have a column `row`, the row number shown to the user.
    frame : polars frame
        Must have the columns of `schema`; additional columns are ignored.
    messages : mapping of rule name to message
        In the order of the sentences. A rule without an entry gets a default message from its column.
    """
    _, failure = schema.filter(frame.select(schema.column_names()), cast=True)
    broken = failure.counts()
    if not broken:
        return ""
    details = failure.details()
    sentences = []
    for rule in [*(name for name in messages if name in broken), *sorted(set(broken) - set(messages))]:
        rows = details.filter(pl.col(rule) == "invalid").get_column("row").cast(pl.Int64).sort().unique().to_list()
        sentences.append(f"{rows_named(sorted(rows))}: {messages.get(rule) or _plain(rule)}")
    text = "; ".join(sentences)
    return text[0].upper() + text[1:] + "."


def _plain(rule: str) -> str:
    """Return the default message of a broken rule: `sex|nullability` gives ``no sex``."""
    column, _, kind = rule.partition("|")
    if kind in ("nullability", "min_length"):
        return f"no {column}"
    return f"{column} of the wrong type" if kind == "dtype" else rule.replace("|", " breaks ")

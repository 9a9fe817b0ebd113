"""Notes on the files that were read: repairs, choices and rows without a value, each with its count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from fmaudit_core.common.vocabulary import UNKNOWN
from fmaudit_core.tabular.labels import ReadLabels
from fmaudit_core.tabular.levels import Levels, is_of_people

#: units of notes whose singular is not the word without its last letter
_ONE: Final = {"studies": "study"}
_SCHEMA = {"note": pl.String, "n": pl.Int64, "unit": pl.String, "detail": pl.String}


@dataclass
class Notes:
    """Observations that do not exclude any study, in order."""

    rows: list[tuple[str, int, str, str]] = field(default_factory=list)

    def add(self, note: str, n: int, unit: str, detail: str = "") -> None:
        """Add a note if `n` is not 0. `unit` is studies, rows, persons, volumes or files."""
        if n:
            self.rows.append((note, n, unit, detail))

    def frame(self) -> pl.DataFrame:
        """Return the notes as a frame of `COHORT_NOTES`."""
        return pl.DataFrame(self.rows, schema=_SCHEMA, orient="row")


def note_sentences(notes: pl.DataFrame) -> list[str]:
    """Return the rows of a frame of notes as sentences: ``sex not recorded: 4 rows (blank 4)``."""
    rows = notes.select("note", "n", "unit", "detail").iter_rows()
    return [
        f"{note}: {n:,} {_ONE.get(unit, unit[:-1]) if n == 1 else unit}{f' ({detail})' if detail else ''}"
        for note, n, unit, detail in rows
    ]


def note_levels(name: str, levels: Levels, notes: Notes, unit: str) -> None:
    """Add what was done to the levels of an attribute: not recorded, or merged."""
    notes.add(f"{name} not recorded", levels.n_missing, unit, f"level {UNKNOWN}, never tested: {levels.missing_text()}")
    codes = ", ".join(f"{code} {n:,}" for code, n in sorted(levels.codes.items()))
    notes.add(
        f"{name} has levels that may be codes of not recorded",
        sum(levels.codes.values()),
        unit,
        f"{codes}; tested like others: write NA if they are",
    )
    for kept, *others in levels.merged:
        merged = f"{kept!r}: {', '.join(map(repr, others))}"
        notes.add(f"{name} merged by case and spacing", len(others), "spellings", merged)


def note_labels(name: str, labels: ReadLabels, notes: Notes, unit: str) -> None:
    """Add which words were read as labels, and how many rows are uncertain."""
    words = len(labels.positive) + len(labels.negative)
    positive, negative = ", ".join(labels.positive) or "1, true", ", ".join(labels.negative) or "0, false"
    notes.add(f"{name} read from words", words, "words", f"positive: {positive}; negative: {negative}")
    notes.add(f"{name} uncertain", labels.n_uncertain, unit, "-1, no label")


def note_similar_ids(frame: pl.DataFrame, notes: Notes) -> None:
    """Add how many ids of patients in different splits differ by case, spacing, Unicode form or ``.0`` only.

    They may be the same patient.

    Parameters
    ----------
    frame : frame with `patient_id` and `split` as text
    """
    ids = frame.select("patient_id", "split").unique()
    lower = pl.col("patient_id").cast(pl.String).str.normalize("NFKC").str.to_lowercase()
    lower = lower.str.replace_all(r"\s", "").str.replace(r"^(\d+)\.0+$", "${1}")
    alike = ids.group_by(lower.alias("lower")).agg(n=pl.col("patient_id").n_unique(), splits=pl.col("split").n_unique())
    n = alike.filter((pl.col("n") > 1) & (pl.col("splits") > 1)).height
    note = "patient ids that differ by case, spacing or .0 only, in different splits"
    notes.add(note, n, "ids", "they may be the same patient")


def note_changing_people(frame: pl.DataFrame, attributes: Sequence[str], notes: Notes) -> None:
    """Add how many patients have two known levels of an attribute such as sex or race: two people may have one id.

    Parameters
    ----------
    frame : frame with `patient_id`, and attributes in normal form
    """
    for name in filter(is_of_people, attributes):
        known = frame.lazy().filter(pl.col(name) != UNKNOWN).select("patient_id", level=name)
        by_patient = known.group_by("patient_id").agg(
            pl.col("level").min().alias("first"), pl.col("level").max().alias("last")
        )
        n = by_patient.filter(pl.col("first") != pl.col("last")).select(pl.len()).collect().item()
        notes.add(f"{name} differs between rows of one patient", n, "patients", "two people may have one id")

"""The section `cohort`: the cohort to audit, of one of three kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fmaudit_core.common.addresses import PathOrBucket
from fmaudit_core.common.local_paths import LocalPath
from fmaudit_core.config.section import Section


class PhantomCohort(Section):
    """The synthetic CT pulmonary angiogram cohort with planted disparities."""

    #: this kind of cohort
    kind: Literal["phantom"]
    #: number of studies
    n_studies: int = Field(default=900, ge=60)
    #: slices per study
    n_slices: int = Field(default=8, ge=4)
    #: rows and columns of a slice
    matrix_px: int = Field(default=144, ge=64)
    #: seed that determines the patients
    seed: int = 20_26
    #: how much of the age disparity goes with the scanner. `none`: emboli of the youngest are small, and all ages are scanned
    #: on the poor scanner alike. `part`: half of their emboli are small, and they are mostly scanned on the poor scanner.
    #: `whole`: their emboli are as large as those of others, and they are mostly scanned on the poor scanner
    scanner_gap: Literal["none", "part", "whole"] = "none"
    #: share of the patients with the hidden disease, which is recorded in the image and in a code of the medical record only, and
    #: whose emboli are small; 0 for none
    hidden_share: float = Field(default=0.25, ge=0.0, le=0.5)
    #: hospital: `b` and `c` have other patients than `a`, another prevalence, another use of the scanners and a smaller age
    #: disparity
    site: Literal["a", "b", "c"] = "a"


class LabelWords(Section):
    """Words for labels in a table; without them the usual ones are read: 1, true, yes, positive and their opposites."""

    #: words for a positive label
    positive: tuple[str, ...] = ()
    #: words for a negative label
    negative: tuple[str, ...] = ()

    @field_validator("positive", "negative", mode="before")
    @classmethod
    def _as_text(cls, words: Any) -> Any:
        given = [words] if isinstance(words, str | int | float) else words
        if any(isinstance(word, bool) for word in given):
            raise ValueError("YAML reads yes, no, true and false without quotes as something else: write 'yes'")
        return [str(word) for word in given]

    @model_validator(mode="after")
    def _apart(self) -> Self:
        both = sorted(
            {word.strip().lower() for word in self.positive} & {word.strip().lower() for word in self.negative}
        )
        if both:
            raise ValueError(f"{', '.join(both)} is both positive and negative")
        if bool(self.positive) != bool(self.negative):
            raise ValueError("words for both positive and negative labels are needed")
        return self


class LevelRules(Section):
    """How levels of attributes are read."""

    #: `case`: merge levels that differ by case or spacing only; `none`: refuse them
    merge: Literal["none", "case"] = "none"


class TableCohort(Section):
    """A user's cohort: one CSV or Parquet file with a row per study, and a folder of CT series."""

    #: this kind of cohort
    kind: Literal["table"]
    #: CSV or Parquet file with a row per study, also as `s3://bucket/studies.csv`
    table: PathOrBucket
    #: folder with a folder or file per study, or an archive in any layout if the table has `study_uid` or `accession`; also as
    #: `s3://bucket/folder`; not needed if the embeddings of every encoder were computed elsewhere
    images: PathOrBucket | None = None
    #: the medical record: a CSV or Parquet file with a row per event (patient_id, time, code, and optionally value); the table
    #: then needs a column `time`
    events: LocalPath | None = None
    #: our column name -> name in the table, if they differ
    columns: dict[str, str] = Field(default_factory=dict)
    #: words for labels, if they are not the usual ones
    labels: LabelWords = LabelWords()
    #: how levels of attributes are read
    levels: LevelRules = LevelRules()

    @field_validator("table")
    @classmethod
    def _is_object(cls, table: Path | str) -> Path | str:
        if isinstance(table, str) and table.count("/") < len(["s3:", "", "bucket", "object"]) - 1:
            raise ValueError("is a bucket, not an object in one: give s3://bucket/studies.csv")
        return table


class LocalTableCohort(TableCohort):
    """A table cohort whose table is on this machine; its images too, unless they are in a bucket."""

    table: LocalPath
    images: LocalPath | None = None


class InspectCohort(Section):
    """The INSPECT release as downloaded. docs/inspect.md lists the files."""

    #: this kind of cohort
    kind: Literal["inspect"]
    #: folder of the download
    root: LocalPath
    #: folder of the volumes, if not in the download, also as `s3://bucket/folder`
    images: PathOrBucket | None = None
    #: whether to accept a partial download of the volumes; otherwise a download that lacks more than one in fifty is refused
    partial: bool = False
    #: folder of OMOP tables or of MEDS data, if not in the download
    ehr: LocalPath | None = None
    #: table of person_id, sex, race_ethnicity and birth_date or age, used instead of the demographics of the medical record
    demographics: LocalPath | None = None
    #: level of a person without a recorded ethnicity: by race alone, or unknown
    unknown_ethnicity: Literal["as_race", "unknown"] = "as_race"


CohortSection = Annotated[PhantomCohort | TableCohort | InspectCohort, Field(discriminator="kind")]

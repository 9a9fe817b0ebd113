"""The section `cohort`: who is audited, of one of three kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fmaudit_core.config.section import Section


class PhantomCohort(Section):
    """The synthetic CT pulmonary angiogram cohort with planted disparities."""

    #: this kind of cohort
    kind: Literal["phantom"]
    #: studies that are drawn
    n_studies: int = Field(default=700, ge=60)
    #: slices of each
    n_slices: int = Field(default=12, ge=4)
    #: rows and columns of a slice
    matrix_px: int = Field(default=192, ge=64)
    #: another seed draws other patients
    seed: int = 20_26


class TableCohort(Section):
    """Anybody's cohort: one CSV or Parquet with a row per study, and a folder of CT series."""

    #: this kind of cohort
    kind: Literal["table"]
    #: CSV or Parquet, a row per study
    table: Path
    #: folder with a series per study; not needed where every encoder's embeddings were computed elsewhere
    images: Path | None = None
    #: the medical record: a CSV or Parquet with a row per event (patient_id, time, code, and where known value); the table then
    #: needs a column `time`
    events: Path | None = None
    #: our column name -> the name in the table, where they differ
    columns: dict[str, str] = Field(default_factory=dict)


class InspectCohort(Section):
    """The INSPECT release as it is downloaded; docs/inspect.md says what of it."""

    #: this kind of cohort
    kind: Literal["inspect"]
    #: the folder it was downloaded to
    root: Path
    #: the folder of volumes, where it is not in the download
    images: Path | None = None
    #: whether a part of the volumes is meant to do; else a download that lacks more than one in fifty is refused
    partial: bool = False
    #: the folder of OMOP tables or of MEDS data, where it is not in the download
    ehr: Path | None = None
    #: a table of person_id, sex, race_ethnicity and birth_date or age, to be taken instead of the medical record's
    demographics: Path | None = None
    #: a person without a recorded ethnicity is of the race alone, or unknown
    unknown_ethnicity: Literal["as_race", "unknown"] = "as_race"


CohortSection = Annotated[PhantomCohort | TableCohort | InspectCohort, Field(discriminator="kind")]

"""The section `ehr`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from fmaudit_core.common.vocabulary import DIAGNOSIS_TASK
from fmaudit_core.config.section import Section


class EhrSection(Section):
    """Features of the medical record, known before each study."""

    #: `strict` is the audit's own rule; `inspect` is that of the INSPECT baseline, which sees more, and marks the run
    cutoff: Literal["strict", "inspect"] = "strict"
    #: tasks that the scan itself decides: their past ends a day earlier
    day_before: tuple[str, ...] = (DIAGNOSIS_TASK,)
    #: days before the cutoff in which days with a code are counted, beside all the past
    windows_days: tuple[int, ...] = (30, 365)
    #: whether gender, race and ethnicity are features
    demographics: bool = False
    #: whether flowsheets are: their times are known to be wrong in places
    flowsheets: bool = False
    #: training patients that a code needs
    min_patients: int = Field(default=10, ge=1)
    #: codes at most, the most frequent among training patients
    max_codes: int = Field(default=4_000, ge=1)
    #: columns that probes take at most
    max_columns: int = Field(default=1_024, ge=1, le=8_192)
    #: leaves of a tree in gradient boosting; one is chosen on validation
    leaves: tuple[int, ...] = (7, 31)
    #: trees at most; validation stops earlier
    max_trees: int = Field(default=300, ge=1)

    @field_validator("windows_days", "leaves")
    @classmethod
    def _distinct_counts(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if not given or any(one < 2 for one in given) or len(set(given)) != len(given):
            raise ValueError("needs distinct whole numbers from 2")
        return tuple(sorted(given))

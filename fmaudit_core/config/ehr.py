"""The section `ehr`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from fmaudit_core.common.vocabulary import DIAGNOSIS_TASK
from fmaudit_core.config.section import Section


class EhrSection(Section):
    """Features of the medical record that are known before each study."""

    #: `strict` is the rule of the audit; `inspect` is that of the INSPECT baseline, which includes more events and marks the run
    cutoff: Literal["strict", "inspect"] = "strict"
    #: tasks decided by the scan itself; their cutoff is a day earlier
    day_before: tuple[str, ...] = (DIAGNOSIS_TASK,)
    #: windows before the cutoff, in days, in which days with a code are counted, in addition to all time before it
    windows_days: tuple[int, ...] = (30, 365)
    #: whether to include gender, race and ethnicity as features
    demographics: bool = False
    #: whether to include flowsheets, some of whose times are known to be wrong
    flowsheets: bool = False
    #: whether to go on if more than 1 % of the rows have no readable time, code or patient id; they are excluded and counted
    partial: bool = False
    #: fewest training patients with a code
    min_patients: int = Field(default=10, ge=1)
    #: largest number of codes; the most frequent among training patients are kept
    max_codes: int = Field(default=4_000, ge=1)
    #: largest number of columns for probes
    max_columns: int = Field(default=1_024, ge=1, le=8_192)
    #: candidate numbers of leaves per tree in gradient boosting; one is chosen on validation
    leaves: tuple[int, ...] = (7, 31)
    #: largest number of trees; validation may stop earlier
    max_trees: int = Field(default=300, ge=1)

    @field_validator("windows_days", "leaves")
    @classmethod
    def _distinct_counts(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if not given or any(one < 2 for one in given) or len(set(given)) != len(given):
            raise ValueError("must be distinct whole numbers of at least 2")
        return tuple(sorted(given))

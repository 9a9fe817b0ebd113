"""The section `imaging`."""

from __future__ import annotations

from pydantic import Field

from fmaudit_core.config.section import Section


class ImagingSection(Section):
    """How CT series become slices."""

    #: processes that decode; 0 takes one per core
    workers: int = Field(default=0, ge=0)
    #: a series with fewer slices than this is quarantined by the cohort
    min_slices: int = Field(default=4, ge=1)
    #: slices further apart than this, in mm, are quarantined; where not given, 5 for INSPECT and no limit for others
    max_spacing_mm: float | None = Field(default=None, gt=0)

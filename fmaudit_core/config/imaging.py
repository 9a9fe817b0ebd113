"""The section `imaging`."""

from __future__ import annotations

from pydantic import Field

from fmaudit_core.config.section import Section


class ImagingSection(Section):
    """Preparation of slices from CT series."""

    #: number of processes that decode series; 0 means one per core
    workers: int = Field(default=0, ge=0)
    #: a series with fewer slices than this is quarantined
    min_slices: int = Field(default=4, ge=1)
    #: a series with slices further apart than this, in mm, is quarantined; if not given, 5 for INSPECT and no limit for others
    max_spacing_mm: float | None = Field(default=None, gt=0)

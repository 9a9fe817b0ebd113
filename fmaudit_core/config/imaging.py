"""The section `imaging`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fmaudit_core.config.section import Section


def _compiled(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiled)]


class SeriesPatternSection(Section):
    """Regular expressions for a series; each one given has to be found, upper or lower case."""

    #: found in the series description
    description: Pattern | None = None
    #: found in the reconstruction kernel
    kernel: Pattern | None = None
    #: found in the values of ImageType, which are separated by backslashes
    image_type: Pattern | None = None
    #: the whole slice thickness in mm as text: `1`, `1.25`, `0.625`
    thickness: Pattern | None = None


class SeriesChoiceSection(Section):
    """The series to use where a study has several."""

    #: patterns in order: a series that matches an earlier one is used before others
    prefer: tuple[SeriesPatternSection, ...] = ()
    #: a series that does not match is quarantined
    require: SeriesPatternSection = SeriesPatternSection()


class ImagingSection(Section):
    """Preparation of slices from CT series."""

    #: number of processes that decode series; 0 means one per core
    workers: int = Field(default=0, ge=0)
    #: a series with fewer slices than this is quarantined
    min_slices: int = Field(default=4, ge=1)
    #: a series with slices further apart than this, in mm, is quarantined; if not given, 5 for INSPECT and no limit for others
    max_spacing_mm: float | None = Field(default=None, gt=0)
    #: values that a series must have: `chest` (1st percentile below -500 HU, maximum above 200 HU) or `any` HU; if not given,
    #: `any` for the phantom and `chest` for other cohorts
    values: Literal["chest", "any"] | None = None
    #: the series to use where a study has several
    series: SeriesChoiceSection = SeriesChoiceSection()

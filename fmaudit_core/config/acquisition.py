"""The section `acquisition`: how numbers of the images' headers become the levels of an attribute."""

from __future__ import annotations

import itertools
import math
from typing import Any

from pydantic import field_validator, model_validator

from fmaudit_core.common.vocabulary import ACQUISITION_TEXTS
from fmaudit_core.config.section import Section


class AcquisitionSection(Section):
    """Edges between the levels of a number, such as `[1.5, 3]`; without edges each value is a level."""

    #: slice thickness in mm
    slice_thickness: tuple[float, ...] = ()
    #: distance of slices in mm
    slice_spacing: tuple[float, ...] = ()
    #: size of a pixel in mm
    pixel_spacing: tuple[float, ...] = ()
    #: peak voltage of the tube in kV
    kvp: tuple[float, ...] = ()
    #: exposure in mAs
    exposure: tuple[float, ...] = ()
    #: rows of the image
    rows: tuple[float, ...] = ()
    #: number of slices
    n_slices: tuple[float, ...] = ()
    #: year of the scan
    year: tuple[float, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_numbers(cls, given: Any) -> Any:
        texts = [name for name in ACQUISITION_TEXTS if isinstance(given, dict) and name in given]
        if texts:
            numbers = ", ".join(cls.model_fields)
            raise ValueError(f"{texts[0]} is not a number and has no edges; numbers are {numbers}")
        return given

    @field_validator("*")
    @classmethod
    def _ascending(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        ascending = all(below < above for below, above in itertools.pairwise((0.0, *edges)))
        if not ascending or not all(map(math.isfinite, edges)):
            raise ValueError("edges must be positive numbers in ascending order, such as [1.5, 3]")
        return edges

    def edges(self, column: str) -> tuple[float, ...]:
        """Return the edges of a column of the table `acquisition`; none for text."""
        found: tuple[float, ...] = getattr(self, column, ())
        return found

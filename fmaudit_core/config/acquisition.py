"""The section `acquisition`: how numbers of the images' headers become the levels of an attribute."""

from __future__ import annotations

import itertools
import math

from pydantic import field_validator

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

    @field_validator("*")
    @classmethod
    def _ascending(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if not all(map(math.isfinite, edges)) or any(above <= below for below, above in itertools.pairwise(edges)):
            raise ValueError("edges must be numbers in ascending order, such as [1.5, 3]")
        return edges

    def edges(self, column: str) -> tuple[float, ...]:
        """Return the edges of a column of the table `acquisition`; none for text."""
        found: tuple[float, ...] = getattr(self, column, ())
        return found

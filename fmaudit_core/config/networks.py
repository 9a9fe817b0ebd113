"""The section `probes.networks`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from fmaudit_core.config.section import Section


class NetworksSection(Section):
    """Training of neural probes. All seeds are used; none is selected."""

    #: seeds per network; a score is the mean of their probabilities
    seeds: int = Field(default=5, ge=1, le=100)
    #: candidate hidden layers of the perceptrons; validation chooses one
    shapes: tuple[tuple[Annotated[int, Field(ge=1)], ...], ...] = ((256, 128), (512, 256), (512, 256, 128))
    #: largest number of training epochs
    epochs: int = Field(default=60, ge=1)
    #: number of epochs without a better validation AUROC after which training stops
    patience: int = Field(default=10, ge=1)
    #: dropout rate in training
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    #: principal components per slice for the attention and recurrent networks; 0 keeps all components
    components: int = Field(default=256, ge=0)
    #: largest number of slices per study; from longer studies, evenly spaced slices are taken
    most_slices: int = Field(default=250, ge=2)

    @field_validator("shapes")
    @classmethod
    def _some(cls, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        if not shapes or not all(shapes) or len(set(shapes)) != len(shapes):
            raise ValueError("shapes must be distinct lists of hidden widths, each with at least one layer")
        return shapes

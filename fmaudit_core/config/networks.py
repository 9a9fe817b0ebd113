"""The section `probes.networks`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from fmaudit_core.config.section import Section


class NetworksSection(Section):
    """How the probes that are networks are trained; every seed counts, none is chosen."""

    #: runs of each network; a score is the mean of their probabilities
    seeds: int = Field(default=5, ge=1, le=100)
    #: hidden layers of the perceptrons; validation chooses among them
    shapes: tuple[tuple[Annotated[int, Field(ge=1)], ...], ...] = ((256, 128), (512, 256), (512, 256, 128))
    #: a network trains for so many epochs at most
    epochs: int = Field(default=60, ge=1)
    #: epochs without a better validation AUROC before training stops
    patience: int = Field(default=10, ge=1)
    #: share of units left out in training
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    #: principal components a slice is turned into before attention or recurrence reads it; 0 keeps all
    components: int = Field(default=256, ge=0)
    #: a study with more slices gives so many, evenly spaced
    most_slices: int = Field(default=250, ge=2)

    @field_validator("shapes")
    @classmethod
    def _some(cls, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        if not shapes or not all(shapes) or len(set(shapes)) != len(shapes):
            raise ValueError("shapes needs distinct lists of hidden widths, each of one layer at least")
        return shapes

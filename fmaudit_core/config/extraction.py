"""The section `extraction`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fmaudit_core.config.section import Section


class ExtractionSection(Section):
    """Extraction of embeddings from slices."""

    #: `auto` uses CUDA if available
    device: Literal["auto", "cpu", "cuda"] = "auto"
    #: overrides the batch size of every spec; `auto` finds on a GPU the fastest one, from that of the spec upwards
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None

"""The section `extraction`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fmaudit_core.config.section import Section


class ExtractionSection(Section):
    """Extraction of embeddings from slices."""

    #: `auto` uses CUDA if available
    device: Literal["auto", "cpu", "cuda"] = "auto"
    #: overrides the batch size of every spec
    batch_size: int | None = Field(default=None, ge=1)

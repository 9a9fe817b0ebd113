"""Base class of the sections of audit.yaml: unknown keys are refused, and values are immutable."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping in audit.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

"""The base class of the parts of a spec: unknown keys are refused, and instances are immutable."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A mapping of an encoder's YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

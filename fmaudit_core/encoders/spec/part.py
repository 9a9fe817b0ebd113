"""What every part of a spec is: unknown keys are refused, and nothing changes once it is read."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A mapping of an encoder's YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

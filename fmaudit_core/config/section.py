"""What every section of audit.yaml is: unknown keys are refused, and nothing changes once it is read."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of audit.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

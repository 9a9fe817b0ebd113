"""The key `age_bands`."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, model_validator

from fmaudit_core.config.section import Section


class AgeBand(Section):
    """An age band in completed years, both ends included."""

    low: int = Field(ge=0, le=130)
    high: int = Field(ge=0, le=130)

    @property
    def label(self) -> str:
        """Return the band as written in the tables, for example ``18-40``."""
        return f"{self.low}-{self.high}"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", value)
            if match is None:
                raise ValueError(f"an age band has the form 18-40, not {value!r}")
            return {"low": int(match[1]), "high": int(match[2])}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"age band {self.label} ends before it begins")
        return self


DEFAULT_AGE_BANDS = tuple(AgeBand(low=a, high=b) for a, b in ((18, 40), (41, 60), (61, 74), (75, 90)))

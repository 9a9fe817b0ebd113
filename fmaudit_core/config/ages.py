"""The key `age_bands`."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, model_validator

from fmaudit_core.config.section import Section


class AgeBand(Section):
    """An age band in completed years, both ends included; an open band has no upper end."""

    low: int = Field(ge=0, le=130)
    high: int | None = Field(default=None, ge=0, le=130)

    @property
    def label(self) -> str:
        """Return the band as written in the tables, for example ``18-40``, or ``over_90`` for an open band from 91."""
        return f"over_{self.low - 1}" if self.high is None else f"{self.low}-{self.high}"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", value)
            above = re.fullmatch(r"\s*over_(\d+)\s*", value)
            if above is not None:
                return {"low": int(above[1]) + 1, "high": None}
            if match is None:
                raise ValueError(f"an age band has the form 18-40 or over_90, not {value!r}")
            return {"low": int(match[1]), "high": int(match[2])}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high is not None and self.low > self.high:
            raise ValueError(f"age band {self.label} ends before it begins")
        return self


#: bands of the INSPECT paper
DEFAULT_AGE_BANDS = tuple(AgeBand(low=a, high=b) for a, b in ((18, 40), (41, 60), (61, 74), (75, 90)))
#: bands of a user's own table: those of the paper, and an open band, so that nobody is excluded for being older
TABLE_AGE_BANDS = (*DEFAULT_AGE_BANDS, AgeBand(low=91))

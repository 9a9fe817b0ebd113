"""The section `automation`."""

from __future__ import annotations

from pydantic import Field, field_validator

from fmaudit_core.config.section import Section


class AutomationSection(Section):
    """What `fmaudit ui` does by itself while its daemon runs."""

    #: audit what lands in the registry, and what descends from a changed spec
    landing: bool = True
    #: seconds between two looks at the registry
    landing_interval_s: int = Field(default=10, ge=1)
    #: look at the whole cohort and its images again by the clock, and when the cohort's table changed
    reaudit: bool = True
    #: when to look again: minute, hour, day of month, month, day of week
    reaudit_cron: str = "0 3 1 * *"
    #: seconds between two looks at whether the cohort's table changed
    cohort_interval_s: int = Field(default=3600, ge=1)

    @field_validator("reaudit_cron")
    @classmethod
    def _five_fields(cls, cron: str) -> str:
        if len(cron.split()) != 5:
            raise ValueError("a cron has five fields: minute, hour, day of month, month, day of week")
        return cron

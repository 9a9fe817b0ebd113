"""The section `automation`."""

from __future__ import annotations

from pydantic import Field, field_validator

from fmaudit_core.config.section import Section


class AutomationSection(Section):
    """Automatic actions of `fmaudit ui` while its daemon runs."""

    #: audit encoders that are added to the registry, and update everything downstream of a changed spec
    landing: bool = True
    #: seconds between two checks of the registry
    landing_interval_s: int = Field(default=10, ge=1)
    #: check the whole cohort and its images again on a schedule, and if the table of the cohort changed
    reaudit: bool = True
    #: schedule of that check: minute, hour, day of month, month, day of week
    reaudit_cron: str = "0 3 1 * *"
    #: seconds between two checks for changes of the cohort's table
    cohort_interval_s: int = Field(default=3600, ge=1)

    @field_validator("reaudit_cron")
    @classmethod
    def _five_fields(cls, cron: str) -> str:
        if len(cron.split()) != 5:
            raise ValueError("a cron schedule has five fields: minute, hour, day of month, month, day of week")
        return cron

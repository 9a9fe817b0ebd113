"""The section `report`."""

from __future__ import annotations

from pydantic import Field, field_validator

from fmaudit_core.config.section import Section


class ReportSection(Section):
    """The page: what it shows and links to."""

    #: whether the page shows slices of patients: a montage of each region under "Who else", of training and validation studies
    images: bool = False
    #: address of the Dagster UI as the page's readers reach it, such as `https://dagster.example.org`. The page then links its
    #: numbers to their partitions and runs; without it, the page names them
    dagster_url: str | None = Field(default=None, pattern=r"^https?://[^\s\"'<>]+$")

    @field_validator("dagster_url")
    @classmethod
    def _without_slash(cls, given: str | None) -> str | None:
        return given and given.rstrip("/")

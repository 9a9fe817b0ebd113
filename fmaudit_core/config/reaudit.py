"""The section `reaudit`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fmaudit_core.config.section import Section


class ReauditSection(Section):
    """The gate: criteria for a subgroup that got worse since the previous audit, and the severity of the result."""

    #: `error` also ends `fmaudit run` with exit code 1
    severity: Literal["warn", "error"] = "warn"
    #: margin of a rate (UDR, FPR); only a worsening by more than this counts
    margin: float = Field(default=0.05, ge=0.0, lt=1.0)
    #: margin of an AUROC; only a worsening by more than this counts
    auroc_margin: float = Field(default=0.02, ge=0.0, lt=1.0)

"""The section `reaudit`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fmaudit_core.config.section import Section


class ReauditSection(Section):
    """The gate: when a subgroup counts as worse off than in the audit before, and how much that weighs."""

    #: `error` also ends `fmaudit run` with exit code 1
    severity: Literal["warn", "error"] = "warn"
    #: a rate (UDR, FPR) must have got worse by more than this
    margin: float = Field(default=0.05, ge=0.0, lt=1.0)
    #: an AUROC must have got worse by more than this
    auroc_margin: float = Field(default=0.02, ge=0.0, lt=1.0)

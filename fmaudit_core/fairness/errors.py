"""Errors in predictions to be assessed."""

from __future__ import annotations

from fmaudit_core.common.errors import FmauditError


class FairnessError(FmauditError):
    """The statistics cannot be computed on these predictions."""

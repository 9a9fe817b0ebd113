"""Errors of mitigation."""

from __future__ import annotations

from fmaudit_core.common.errors import FmauditError


class MitigationError(FmauditError):
    """A mitigation cannot be fitted or evaluated as requested."""

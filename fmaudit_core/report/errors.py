"""What can keep a report from being written."""

from __future__ import annotations

from fmaudit_core.common.errors import FmauditError


class ReportError(FmauditError):
    """The page or its exports cannot be written from these tables."""

"""What can be wrong with a medical record."""

from __future__ import annotations

from fmaudit_core.common.errors import FmauditError


class EhrError(FmauditError):
    """The medical record cannot be read, or tells nothing of the cohort's patients."""

"""Errors of the medical record."""

from __future__ import annotations

from fmaudit_core.common.errors import FmauditError


class EhrError(FmauditError):
    """The medical record cannot be read, or has no usable data for the patients of the cohort."""

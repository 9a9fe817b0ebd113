"""Errors of engines."""

from __future__ import annotations

from fmaudit_core.common.errors import FmauditError


class ClusterError(FmauditError):
    """The Ray cluster cannot be used, or its processes die."""

"""Errors raised when probes are fitted or chosen."""

from __future__ import annotations

from fmaudit_core.common.errors import FmauditError


class ProbeError(FmauditError):
    """A probe cannot be fitted or chosen as requested."""


class OneClassError(ProbeError):
    """A task has studies of one class only, although both are needed; other tasks are not affected."""

"""Errors of the configuration."""

from __future__ import annotations

from fmaudit_core.common.errors import FmauditError


class ConfigError(FmauditError):
    """audit.yaml is missing, malformed or inconsistent."""

    exit_code = 2

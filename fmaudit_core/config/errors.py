"""Errors of a config."""

from __future__ import annotations

from fmaudit_core.common.errors import FmauditError


class ConfigError(FmauditError):
    """audit.yaml is missing, malformed or contradicts itself."""

    exit_code = 2

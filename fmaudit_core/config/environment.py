"""Settings from environment variables. No other module reads them."""

from __future__ import annotations

import os
from pathlib import Path

from fmaudit_core.common.local_paths import address_problem
from fmaudit_core.config.errors import ConfigError

CONFIG_NAME = "audit.yaml"


def audit_path_from_environment() -> Path:
    """Return the path of audit.yaml for the running process: `FMAUDIT_CONFIG`, else in the working directory.

    Raises
    ------
    ConfigError
        It is an address, not a path.
    """
    return _path("FMAUDIT_CONFIG") or Path(CONFIG_NAME).absolute()


def home_from_environment() -> Path | None:
    """Return the workspace that overrides the one in audit.yaml: `FMAUDIT_HOME`, None if it is unset or empty.

    Raises
    ------
    ConfigError
        It is an address, not a path.
    """
    return _path(
        "FMAUDIT_HOME", fix="Results may be in a bucket: set `root: s3://bucket/prefix` in audit.yaml instead."
    )


def report_url_from_environment() -> str | None:
    """Return the URL of the report: `FMAUDIT_REPORT_URL`, which `fmaudit ui` sets for the runs it starts, else None."""
    return os.environ.get("FMAUDIT_REPORT_URL")


def _path(variable: str, fix: str | None = None) -> Path | None:
    given = os.environ.get(variable)
    if not given:
        return None
    if (problem := address_problem(given)) is not None:
        raise ConfigError(f"{problem}.", where=variable, fix=fix)
    return Path(given).absolute()

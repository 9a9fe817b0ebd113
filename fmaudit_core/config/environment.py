"""Settings from environment variables. No other module reads them."""

from __future__ import annotations

import os
from pathlib import Path

CONFIG_NAME = "audit.yaml"


def audit_path_from_environment() -> Path:
    """Return the path of audit.yaml for the running process: `FMAUDIT_CONFIG`, else in the working directory."""
    return Path(os.environ.get("FMAUDIT_CONFIG", CONFIG_NAME)).absolute()


def home_from_environment() -> Path | None:
    """Return the workspace that overrides the one in audit.yaml: `FMAUDIT_HOME`, None if it is unset or empty."""
    home = os.environ.get("FMAUDIT_HOME")
    return Path(home).absolute() if home else None


def report_url_from_environment() -> str | None:
    """Return the URL of the report: `FMAUDIT_REPORT_URL`, which `fmaudit ui` sets for the runs it starts, else None."""
    return os.environ.get("FMAUDIT_REPORT_URL")

"""What the environment says. No other module reads it."""

from __future__ import annotations

import os
from pathlib import Path

CONFIG_NAME = "audit.yaml"


def audit_path_from_environment() -> Path:
    """Where the running process finds its audit.yaml: `FMAUDIT_CONFIG`, else the working directory."""
    return Path(os.environ.get("FMAUDIT_CONFIG", CONFIG_NAME)).absolute()


def home_from_environment() -> Path | None:
    """The workspace that overrides audit.yaml's: `FMAUDIT_HOME`; None where it is unset or empty."""
    home = os.environ.get("FMAUDIT_HOME")
    return Path(home).absolute() if home else None


def report_url_from_environment() -> str | None:
    """Where the report is served: `FMAUDIT_REPORT_URL`, which `fmaudit ui` sets for the runs it starts; None elsewhere."""
    return os.environ.get("FMAUDIT_REPORT_URL")

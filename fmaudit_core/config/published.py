"""Settings that a report may show: all except paths of the local machine, addresses, and where the audit is computed."""

from __future__ import annotations

from typing import Any, Final

from fmaudit_core.config import Audit

#: paths, addresses and machines, which are excluded
_PLACES: Final[dict[str, Any]] = {
    "compute": True,
    "encoders": True,
    "home": True,
    "report": True,
    "root": True,
    "storage": True,
    "cohort": {"table", "images", "events", "root", "ehr", "demographics"},
}


def public_config(audit: Audit) -> dict[str, Any]:
    """Return the settings shown in a report, without local paths and addresses."""
    return audit.model_dump(mode="json", exclude=_PLACES)

"""The settings that a report may show: all but the paths of one machine."""

from __future__ import annotations

from typing import Any, Final

from fmaudit_core.config import Audit

#: settings that say where things lie on one machine, and nothing about the audit
_PLACES: Final[dict[str, Any]] = {
    "encoders": True,
    "home": True,
    "cohort": {"table", "images", "events", "root", "ehr", "demographics"},
}


def public_config(audit: Audit) -> dict[str, Any]:
    """The settings a report tells: all but where things lie."""
    return audit.model_dump(mode="json", exclude=_PLACES)

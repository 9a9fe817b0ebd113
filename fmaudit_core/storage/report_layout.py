"""Names of the report's files, for whoever looks for them."""

from __future__ import annotations

import re
from typing import Final

from fmaudit_core.storage.digests import digest

PAGE: Final = "index.html"
JSON: Final = "audit.json"
_LONGEST: Final = 80


def file_name(name: str) -> str:
    """Return the name itself if it is one plain part of a path; else one derived from it, unique to the name."""
    safe = re.sub(r"[^\w. -]", "_", name)[:_LONGEST].strip(". ")
    return name if safe == name else f"{safe}-{digest(name)[:8]}"

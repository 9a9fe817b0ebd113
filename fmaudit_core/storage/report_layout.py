"""Names of the report's files, for whoever looks for them."""

from __future__ import annotations

from typing import Final

PAGE: Final = "index.html"
JSON: Final = "audit.json"

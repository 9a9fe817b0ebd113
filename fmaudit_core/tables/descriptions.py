"""What each column of the warehouse means, for whoever shows a table: the UI, the reference of tables."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

MEANINGS: Final = Path(__file__).with_suffix(".yaml")


def meaning_of(table: str, column: str) -> str:
    """What a column holds; empty where nobody said, as of an attribute of the cohort's own."""
    said = _said()
    return str(said["in"].get(table, {}).get(column) or said.get(column, ""))


@cache
def _said() -> dict[str, Any]:
    said: dict[str, Any] = yaml.safe_load(MEANINGS.read_text(encoding="utf-8"))
    return said

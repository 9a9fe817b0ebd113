"""How much memory DuckDB takes for blocks of the files of embeddings."""

from __future__ import annotations

from typing import Any, Final

#: without a limit it keeps blocks up to four fifths of the memory of the machine, and is no faster
CONFIG: Final[dict[str, Any]] = {"memory_limit": "2GB"}

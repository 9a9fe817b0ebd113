"""Paths that a user gives: those of this machine, not addresses of a bucket or a server.

Taken for a path, `s3://bucket/audit` would be a new folder `s3:` in the working directory.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

#: an address, also as `Path` shortens it: `s3:/bucket`; a letter and a colon begin a path of Windows
ADDRESS: Final = r"^\s*([A-Za-z][A-Za-z0-9+.-]+):/"


def address_problem(text: str) -> str | None:
    """Return why a text cannot be used as a path; None if it is not an address. It is not quoted, as it may hold a password."""
    found = re.match(ADDRESS, text)
    if found is None:
        return None
    scheme = found[1].lower()
    if scheme == "file":
        return "is a file:// address; give the path alone, without file://"
    return f"is an address ({scheme}://...), and a path on this machine is needed: copy or mount the data, then give that path"


def _not_an_address(given: Any) -> Any:
    if isinstance(given, str | Path) and (problem := address_problem(str(given))) is not None:
        raise ValueError(problem)
    return given


#: the type of every setting that is a path
LocalPath = Annotated[Path, BeforeValidator(_not_an_address)]

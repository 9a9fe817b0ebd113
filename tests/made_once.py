"""What takes a minute to make is made once for all processes of pytest, and each gets a copy."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """Return a copy of the folder that `make` fills, and what `make` returned, which must survive pickle.

    The first process that asks makes it, in the folder that pytest-xdist's documentation recommends; the others wait for that.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    origin, returned = shared / f"once-{name}", shared / f"once-{name}.pickle"
    with FileLock(shared / f"once-{name}.lock"):
        if not returned.exists():
            shutil.rmtree(origin, ignore_errors=True)  # what a failed attempt left
            origin.mkdir()
            content = pickle.dumps(make(origin))
            returned.write_bytes(content)
    copy = factory.mktemp(name) / "copy"
    shutil.copytree(origin, copy, copy_function=shutil.copy2)
    return copy, pickle.loads(returned.read_bytes())

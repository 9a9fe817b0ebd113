"""How every file of a workspace appears: written beside its place, then renamed. What lies where: `warehouse.py`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_beside(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in `target`'s folder; on success it becomes `target` in one rename.

    A kill at any moment leaves the old file whole. The temporary file is removed when writing fails.

    Parameters
    ----------
    durable : bool
        Whether the file is on the disk before it is renamed. False is for what can be made again and tells when it is torn.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()

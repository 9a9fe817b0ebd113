"""How every file of a workspace appears: written alongside, then renamed. Paths: `warehouse.py`."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.storage.digests import digest

_DISK: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


class PublishError(FmauditError):
    """The disk does not take a file."""


@contextmanager
def written_beside(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in `target`'s folder; on success it becomes `target` in one rename.

    A kill at any moment leaves the old file whole. The temporary file is removed when writing fails; what a killed
    process left is removed by the next one of the same machine and container that writes the same target. Others cannot
    know whether its writer lives, so they leave it, and `fmaudit doctor` lists it.

    Parameters
    ----------
    durable : bool
        Whether the file is on the disk before it is renamed. Use False for files that can be made again if torn.

    Raises
    ------
    PublishError
        The disk is full or must not be written.
    """
    ours = f".{target.name}.{_processes()}"
    temporary = target.with_name(f"{ours}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f"{glob.escape(ours)}.*.tmp"):
            _remove_if_dead(left)
        yield temporary
        if durable:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise PublishError(
            f"cannot be written: {os.strerror(error.errno or 0).lower()}.",
            where=str(target),
            fix="Free some space or set FMAUDIT_HOME to a disk that can be written, then run again: what is finished is kept.",
        ) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@cache
def _processes() -> str:
    """Return a name of the set of processes that ours can see: an id means one process only on one host since its last
    boot, and only within one container, though containers share host name and files.
    """
    seen = [socket.gethostname()]
    with suppress(OSError):  # Linux alone has these
        seen += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return digest(*seen)[:12]


def _remove_if_dead(left: Path) -> None:
    """Remove a temporary file whose process is gone."""
    process = left.name.split(".")[-3]
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        left.unlink(missing_ok=True)
    except (ValueError, PermissionError):  # not one of ours, or alive under another user
        return

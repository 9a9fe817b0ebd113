"""How every file of a workspace appears: written alongside, then renamed. Paths: `warehouse.py`."""

from __future__ import annotations

import errno
import glob
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.storage.processes import has_ended, process_space

_DISK: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
#: raises if this thread must not publish any more
_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


class PublishError(FmauditError):
    """The disk does not take a file."""


@contextmanager
def written_beside(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in `target`'s folder; on success it becomes `target` in one rename.

    A kill at any moment leaves the old file whole. The temporary file is removed when writing fails; what a killed
    process left is removed by the next one of the same machine and container that writes the same target. Others cannot
    know whether its writer lives, so they leave it, and `fmaudit gc` removes it.

    Parameters
    ----------
    durable : bool
        Whether the file is on the disk before it is renamed. Use False for files that can be made again if torn.

    Raises
    ------
    PublishError
        The disk is full or must not be written.
    """
    ours = f".{target.name}.{process_space()}"
    temporary = target.with_name(f"{ours}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            for left in target.parent.glob(f"{glob.escape(ours)}.*.tmp"):
                if has_ended(left.name.split(".")[-3]):
                    left.unlink(missing_ok=True)
            yield temporary
            temporary.chmod(0o644)
            if durable:
                with temporary.open("rb") as written:
                    os.fsync(written.fileno())
                check_publishing()
            temporary.replace(target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def checked_before_publishing(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before this thread publishes anything durable inside this context; what it raises keeps the old version."""
    before = _check.get()
    _check.set(check)
    try:
        yield
    finally:
        _check.set(before)


def check_publishing() -> None:
    """Call the check of the context that this thread is in, if any: before a file is renamed, or a name points to new objects."""
    if (check := _check.get()) is not None:
        check()


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Write `target` inside this context.

    Raises
    ------
    PublishError
        The disk is full or must not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise PublishError(
            f"cannot be written: {os.strerror(error.errno or 0).lower()}.",
            where=str(target),
            fix="Free some space or set FMAUDIT_HOME to a disk that can be written, then run again: what is finished is kept.",
        ) from error

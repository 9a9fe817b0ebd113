"""Processes of this machine: which of them this one can see, and whether one still runs."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from fmaudit_core.storage.digests import digest

_PROC: Final = Path("/proc")  # of Linux


@cache
def process_space() -> str:
    """Return a name of the set of processes that this one can see (12 hexadecimal digits).

    An id means one process only on one host since its last boot, and only within one container, though containers share host name
    and files.
    """
    seen = [socket.gethostname()]
    with suppress(OSError):
        seen += [(_PROC / "sys/kernel/random/boot_id").read_text(), str((_PROC / "self/ns/pid").readlink())]
    return digest(*seen)[:12]


def this_process() -> str:
    """Return the name of this process, by which a later one can tell whether it still runs."""
    return f"{process_space()}:{os.getpid()}:{_started(str(os.getpid()))}"


def lives(process: str) -> bool | None:
    """Return whether the process of a name is running; None if it cannot be seen from here."""
    space, _, rest = process.partition(":")
    number, _, started = rest.partition(":")
    if space != process_space():
        return None
    if has_ended(number):
        return False
    found = _started(number)
    return None if found is None else found == started


def has_ended(number: str) -> bool:
    """Return whether no process of this machine and container has this id; False for what is not an id."""
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError, PermissionError):  # not an id, or alive under another user
        return False
    return False


def _started(number: str) -> str | None:
    """Return when a process started, in ticks since boot: ids are used again, and the clock may be set meanwhile.

    None if it is hidden from this user; `ended` if it has ended and its parent has not noticed; empty on systems without `/proc`.
    """
    if not _PROC.is_dir():
        return ""
    try:  # proc_pid_stat(5): the name, which is second, may contain blanks; state is field 3, start is field 22
        fields = (_PROC / number / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if fields[0] in ("Z", "X") else fields[19]

"""Which process executes a run, and whether it still lives."""

from __future__ import annotations

import os
import platform

import psutil

#: which process executes a run
PROCESS_TAG = "fmaudit/process"


def this_process() -> str:
    """Name of this process, by which a later one can tell whether it still lives."""
    return f"{platform.node()}:{os.getpid()}:{_started(os.getpid())}"


def is_alive(process: str) -> bool:
    """Return whether a process of this machine, identified by its id and start time, is still running."""
    number, _, started = process.partition(":")
    return _started(int(number)) == started


def _started(process: int) -> str:
    try:
        return str(int(psutil.Process(process).create_time()))
    except psutil.NoSuchProcess:
        return "gone"

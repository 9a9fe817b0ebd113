"""Progress of long steps. Core calls a `Progress` callback supplied by the caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: called with (done, total), both in units of the step
Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """Ignore progress. This is the default callback."""


@dataclass
class Counted:
    """Counter of a step's units that reports each completed unit."""

    progress: Progress
    total: int
    done: int = 0

    def one(self) -> None:
        """Report one more completed unit."""
        self.done += 1
        self.progress(self.done, self.total)

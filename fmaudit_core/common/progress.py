"""How a long step says how far it is. Core calls a `Progress`; who listens is the caller's choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: called with (done, total), both counts of the step's own unit
Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """Say nothing: the default where nobody listens."""


@dataclass
class Counted:
    """Units of a step, told one by one as they are done."""

    progress: Progress
    total: int
    done: int = 0

    def one(self) -> None:
        """Tell that one more is done."""
        self.done += 1
        self.progress(self.done, self.total)

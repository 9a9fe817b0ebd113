"""How a long step says how far it is. Core calls a `Progress`; who listens is the caller's choice."""

from __future__ import annotations

from collections.abc import Callable

#: called with (done, total), both counts of the step's own unit
Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """Say nothing: the default where nobody listens."""

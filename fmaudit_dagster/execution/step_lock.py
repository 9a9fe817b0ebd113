"""One maker at a time for each cell of a step, whichever process it is in."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from fmaudit_core.pipeline.steps import Step
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.digests import digest
from fmaudit_core.storage.warehouse import Cell


@contextmanager
def step_lock(workspace: Workspace, step: Step, cell: Cell) -> Iterator[None]:
    """Hold the lock of one cell of a step; wait while another process holds it. A killed process holds none."""
    path = workspace.home / "locks" / f"{digest(step.name, cell.encoder, cell.task)}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

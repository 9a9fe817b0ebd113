"""One maker at a time for each cell of a step, whichever process or machine it is on."""

from collections.abc import Iterator
from contextlib import contextmanager

from fmaudit_core.pipeline.steps import Step
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.atomic_write import checked_before_publishing
from fmaudit_core.storage.warehouse import Cell
from fmaudit_dagster.run_leases import leases_of


@contextmanager
def step_lock(workspace: Workspace, step: Step, cell: Cell, run_id: str) -> Iterator[None]:
    """Hold the lease of one cell of a step for a run; wait while another process holds it.

    Inside this context nothing durable is published once the lease was taken over: `LeaseLostError`.
    """
    held = leases_of(workspace.root).held("/".join((step.name, *cell.folders)), run=run_id)
    with held as lease, checked_before_publishing(lease.check):
        yield

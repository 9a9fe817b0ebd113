"""What `fmaudit run` shows in the terminal while it works: the step, how many of its kind are left, a bar inside long ones."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.progress import Progress

from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.warehouse import Cell
from fmaudit_dagster.cli.progress_bars import bars, listener_of
from fmaudit_dagster.cli.step_workers import worker_processes
from fmaudit_dagster.execution.runner import Outcome, run_audit
from fmaudit_dagster.execution.step_executors import StepExecutor
from fmaudit_dagster.progress import draw_bars


def run_with_bars(
    workspace: Workspace, *, encoders: Sequence[str], tasks: Sequence[str], everything: bool, jobs: int
) -> Outcome:
    """Run the audit with a bar over the steps that can be made, and one inside every long step.

    Parameters
    ----------
    jobs : int
        How many steps to make at the same time; more than one are made in worker processes.
    """
    from fmaudit_dagster.definitions import defs
    from fmaudit_dagster.execution.instance import opened

    with opened(workspace) as instance, _drawn() as progress, _workers(jobs, progress) as workers:
        line = progress.add_task("looking for what is missing or stale", total=None)
        level: tuple[str, int] | None = None

        def tell(name: str, cell: Cell, at: int, of: int) -> None:
            nonlocal level
            kind = name.split("/")[0]
            named = f"{kind} [dim]({cell})[/]"
            if (kind, of) != level:  # others than before: their time left starts anew
                level = (kind, of)
                progress.reset(line, total=of, description=named)
            progress.update(line, completed=at, description=named)

        return run_audit(
            workspace, instance, defs, encoders=encoders, tasks=tasks, everything=everything, listener=tell,
            workers=workers,
        )  # fmt: skip


def _workers(jobs: int, progress: Progress) -> AbstractContextManager[StepExecutor | None]:
    if jobs == 1:
        return nullcontext()
    return worker_processes(jobs, listener_of(progress))


@contextmanager
def _drawn() -> Iterator[Progress]:
    """Bars that the steps of this process are sent to."""
    with bars() as progress:
        draw_bars(listener_of(progress))
        try:
            yield progress
        finally:
            draw_bars(None)

"""What `fmaudit run` shows in the terminal while it works: a line and a bar per step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from fmaudit_core.plan import Step
from fmaudit_core.progress import Progress as Listener
from fmaudit_core.workspace import Workspace
from fmaudit_dagster.progress import draw_bars
from fmaudit_dagster.runner import Outcome, run_audit


def run_with_bars(workspace: Workspace, *, encoders: Sequence[str], tasks: Sequence[str], everything: bool) -> Outcome:
    """Run the audit with a bar for every long step."""
    from fmaudit_dagster.definitions import defs
    from fmaudit_dagster.instance import opened

    with opened(workspace) as instance, _bars() as progress:
        line = progress.add_task("looking for what is missing or stale", total=None)

        def tell(step: Step) -> None:
            progress.update(line, description=f"{', '.join(step.assets)} [dim]({step.cell})[/]")

        return run_audit(
            workspace, instance, defs, encoders=encoders, tasks=tasks, everything=everything, listener=tell
        )


@contextmanager
def _bars() -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def bar(step: str) -> Listener:
            task = progress.add_task(step, total=None)

            def report(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total, visible=done < total)

            return report

        draw_bars(bar)
        try:
            yield progress
        finally:
            draw_bars(None)

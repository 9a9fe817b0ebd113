"""Bars in the terminal, each with the time left. Which steps a run has: `run_progress.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from fmaudit_core.common.progress import Progress as Listener


@contextmanager
def bars() -> Iterator[Progress]:
    """Bars on stderr, gone when all is done; where stderr is no terminal nothing is drawn."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield progress


def listener_of(progress: Progress) -> Callable[[str], Listener]:
    """Return a listener for a step: its bar appears with the first progress report, and disappears at the end of the step."""

    def bar(step: str) -> Listener:
        task = progress.add_task(step, total=None, visible=False)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=done < total)

        return report

    return bar


@contextmanager
def one_bar(step: str) -> Iterator[Listener]:
    """Show the bar of a command that is one long step."""
    with bars() as progress:
        yield listener_of(progress)(step)

"""What `fmaudit run` shows in the terminal while it works: the step, how many of its kind are left, a bar inside long ones."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.progress import Progress

from fmaudit_core.pipeline.stale_steps import Step
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_dagster.cli.progress_bars import bars, listener_of
from fmaudit_dagster.execution.runner import Outcome, run_audit
from fmaudit_dagster.progress import draw_bars


def run_with_bars(workspace: Workspace, *, encoders: Sequence[str], tasks: Sequence[str], everything: bool) -> Outcome:
    """Run the audit with a bar over the steps of each level, and one inside every long step."""
    from fmaudit_dagster.definitions import defs
    from fmaudit_dagster.execution.instance import opened

    with opened(workspace) as instance, _drawn() as progress:
        line = progress.add_task("looking for what is missing or stale", total=None)
        level: tuple[str, int] | None = None

        def tell(step: Step, at: int, of: int) -> None:
            nonlocal level
            named = f"{_short(step)} [dim]({step.cell})[/]"
            if (step.name.split("/")[0], of) != level:  # another level: its time left starts anew
                level = (step.name.split("/")[0], of)
                progress.reset(line, total=of, description=named)
            progress.update(line, completed=at, description=named)

        return run_audit(
            workspace, instance, defs, encoders=encoders, tasks=tasks, everything=everything, listener=tell
        )


def _short(step: Step) -> str:
    first, more = step.assets[0], len(step.assets) - 1
    return f"{first} and {more} more" if more > 1 else ", ".join(step.assets)


@contextmanager
def _drawn() -> Iterator[Progress]:
    """Bars that the steps of this process are sent to."""
    with bars() as progress:
        draw_bars(listener_of(progress))
        try:
            yield progress
        finally:
            draw_bars(None)

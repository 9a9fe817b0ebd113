"""Progress of a long step: a bar where the command line drew one, log lines in Dagster, never both."""

import logging
from collections.abc import Callable

import dagster as dg

from fmaudit_core.common.progress import Progress

#: step name -> Progress; set by the command line around the runs it executes itself
_bars: Callable[[str], Progress] | None = None


def draw_bars(bars: Callable[[str], Progress] | None) -> None:
    """Send the progress of steps in this process to bars; None sends it to the log again."""
    global _bars  # one terminal, one listener
    _bars = bars


def progress_of(context: dg.AssetExecutionContext, step: str) -> Progress:
    """Return a listener for a step: the bar of the command line, or else a log line at each tenth."""
    return _bars(step) if _bars is not None else _log_tenths(context.log, step)


def _log_tenths(log: logging.Logger, step: str) -> Progress:
    last_tenth = -1

    def report(done: int, total: int) -> None:
        nonlocal last_tenth
        tenth = 10 * done // total if total else 10
        if tenth > last_tenth:
            last_tenth = tenth
            log.info(f"{step}: {done} of {total}")

    return report

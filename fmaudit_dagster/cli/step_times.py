"""What `fmaudit run --profile` prints: seconds per step, the slowest first."""

from collections.abc import Sequence

import polars as pl
from rich.console import Console
from rich.table import Table

from fmaudit_dagster.execution.runner import StepTime


def print_step_times(times: Sequence[StepTime]) -> None:
    """Print one line per kind of step: how often it ran, its seconds and processor seconds, and its share of the total."""
    seconds = time_per_step(times)
    table = Table("step", "runs", "seconds", "CPU seconds", "share", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    total = sum(one.seconds for one in times)
    for name, runs, wall, cpu in seconds.iter_rows():
        table.add_row(name, str(runs), f"{wall:.1f}", f"{cpu:.1f}", f"{wall / total:.0%}")
    table.add_row("total", str(len(times)), f"{total:.1f}", f"{sum(one.cpu_seconds for one in times):.1f}", "")
    Console().print(table)


def time_per_step(times: Sequence[StepTime]) -> pl.DataFrame:
    """Return `step, runs, seconds, cpu_seconds`, one row per kind of step, the slowest first."""
    rows = pl.DataFrame(
        [(one.name, one.seconds, one.cpu_seconds) for one in times],
        schema={"step": pl.String, "seconds": pl.Float64, "cpu_seconds": pl.Float64},
        orient="row",
    )
    return (
        rows.group_by("step")
        .agg(runs=pl.len(), seconds=pl.col("seconds").sum(), cpu_seconds=pl.col("cpu_seconds").sum())
        .sort("seconds", descending=True)
    )

"""What a materialisation tells the UI: counts that trend, a schema, a small plot. Never a study or a patient."""

from collections.abc import Mapping, Sequence

import dagster as dg
import polars as pl

from fmaudit_core.warehouse import Published

OWNERS = ["team:ai-governance"]
_BARS = "▁▂▃▄▅▆▇█"


def described(published: Published, frame: pl.DataFrame, **more: dg.MetadataValue | str | float | int) -> dict[str, object]:
    """Metadata of a published table: rows, columns, where it lies, and whatever the asset adds."""
    columns = [dg.TableColumn(name=name, type=str(dtype)) for name, dtype in frame.schema.items()]
    return {
        "dagster/row_count": published.n_rows,
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "path": dg.MetadataValue.path(str(published.path)),
        **more,
    }


def made(published: Published, frame: pl.DataFrame, **more: dg.MetadataValue | str | float | int) -> dg.MaterializeResult:
    """Result of an asset that published one table."""
    return dg.MaterializeResult(
        data_version=dg.DataVersion(published.version), metadata=described(published, frame, **more)
    )


def bars(counts: Mapping[str, float]) -> dg.MarkdownMetadataValue:
    """Small bar chart in text: one row per level, scaled to the largest."""
    top = max(counts.values(), default=0.0) or 1.0
    rows = [f"| {level} | {'█' * round(20 * value / top)} | {value:g} |" for level, value in counts.items()]
    return dg.MetadataValue.md("\n".join(["| | | |", "|---|---|---|", *rows]))


def spark(values: Sequence[float]) -> str:
    """One line of text that shows the shape of a series of values in [0, 1]."""
    return "".join(_BARS[min(int(max(value, 0.0) * len(_BARS)), len(_BARS) - 1)] for value in values)


def counted(frame: pl.DataFrame, column: str) -> dg.MarkdownMetadataValue:
    """Bar chart of how often each level of a column occurs."""
    counts = frame.group_by(column).len().sort("len", column, descending=[True, False])
    return bars({str(level): count for level, count in counts.iter_rows()})

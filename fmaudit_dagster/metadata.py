"""Metadata of a materialisation in the UI: counts that trend, a schema, a small plot. Never a study or a patient."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from fmaudit_core.config import report_url_from_environment
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.report_layout import PAGE
from fmaudit_core.storage.warehouse import Published
from fmaudit_core.tables.schemas import declared

OWNERS = ["team:ai-governance"]
#: version of a partition for which there is nothing to make
EMPTY = "empty"


def made(
    published: Published, frame: pl.DataFrame, *, asset: str | None = None, **more: Any
) -> dg.MaterializeResult[Any]:
    """Return the result of an asset that published a table: version, rows, columns, path, and further metadata."""
    table = declared(published.table)
    columns = [
        dg.TableColumn(
            name=name, type=str(dtype), description=column.meaning if (column := table.column(name)) else None
        )
        for name, dtype in frame.schema.items()
    ]
    return dg.MaterializeResult(
        asset_key=asset,
        data_version=dg.DataVersion(published.version),
        metadata={
            "dagster/row_count": published.n_rows,
            "dagster/column_schema": dg.TableSchema(columns=columns),
            "path": dg.MetadataValue.path(str(published.path)),
            **more,
        },
    )


def empty_result(asset: dg.AssetKey, why: str) -> dg.MaterializeResult[Any]:
    """Return the result of a partition for which an asset has nothing to make."""
    return dg.MaterializeResult(asset_key=asset, data_version=dg.DataVersion(EMPTY), metadata={"nothing to make": why})


def report_link(workspace: Workspace) -> dg.UrlMetadataValue:
    """Return the URL of the page: as served by `fmaudit ui`, or its file."""
    served = report_url_from_environment()
    return dg.MetadataValue.url(f"{served}{PAGE}" if served else (workspace.reports / PAGE).as_uri())


def trends(values: Mapping[str, float | None], prefix: str = "") -> dict[str, Any]:
    """Numbers by name, which the UI plots over materialisations; what could not be estimated is left out."""
    return {f"{prefix}{name}": float(value) for name, value in values.items() if value is not None}


def bars(values: Mapping[str, float], top: float | None = None) -> dg.MarkdownMetadataValue:
    """Small bar chart in text, which every version of the UI shows: one row per level, scaled to `top`."""
    whole = top or max(values.values(), default=0.0) or 1.0
    rows = [f"| {level} | `{'█' * round(16 * value / whole):<16}` | {value:.3g} |" for level, value in values.items()]
    return dg.MetadataValue.md("\n".join(["| | | |", "|---|---|---:|", *rows]))


def counted(frame: pl.DataFrame, column: str) -> dg.MarkdownMetadataValue:
    """Bar chart of how often each level of a column occurs."""
    counts = frame.group_by(column).len().sort(column)
    return bars({str(level): count for level, count in counts.iter_rows()})

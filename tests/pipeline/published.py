"""A workspace whose every step is published with the version it should have, without running any."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import duckdb
import polars as pl

from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.steps import STEPS, step_of
from fmaudit_core.pipeline.versions import expected_version
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.report_layout import PAGE
from fmaudit_core.storage.warehouse import Cell
from fmaudit_core.tables.schemas import TABLES


def publish_all(
    workspace: Workspace,
    encoders: Mapping[str, EncoderSpec],
    *,
    but: tuple[str, ...] = (),
    frames: Mapping[str, pl.DataFrame] = MappingProxyType({}),
) -> None:
    """Publish every table of every cell, in the order of the declaration, those of some steps left out.

    Tables hold nothing but what `frames` gives, by their name, and the views of the encoders.
    """
    for _ in range(2):  # the second time every fan-in sees all cells
        for step in STEPS:
            if step.name not in but:
                look = Snapshot(workspace, encoders)
                for cell in step.cells(look, encoders, workspace.audit.tasks):
                    publish(look, step.name, cell, frames)
    workspace.reports.mkdir(parents=True, exist_ok=True)
    (workspace.reports / PAGE).touch()


def publish(look: Snapshot, name: str, cell: Cell, frames: Mapping[str, pl.DataFrame]) -> None:
    """Publish one cell of a step."""
    step, warehouse = step_of(name), look.workspace.warehouse
    if name == "study_embeddings":
        embed(look, cell)
        return
    version = "1" if step.sources else expected_version(look, step, cell)
    for table in step.tables_of(look, cell):
        frame = frames.get(table, TABLES[table].frame())
        if table == "ct_views":
            frame = look.view_table(dict.fromkeys(look.view_keys(), "1"))
        warehouse.publish(table, frame, version=version, cell=cell)


def embed(look: Snapshot, cell: Cell) -> None:
    """Publish a file of embeddings with one study."""
    path = look.workspace.warehouse.embeddings_path(cell.encoder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE study_embeddings AS SELECT 's1' AS study_id, unnest(['mean', 'max']) AS pooling"
        )
        connection.execute("CREATE TABLE provenance (key VARCHAR, value VARCHAR)")
        connection.execute(
            "INSERT INTO provenance VALUES ('version', ?)", [expected_version(look, step_of("study_embeddings"), cell)]
        )

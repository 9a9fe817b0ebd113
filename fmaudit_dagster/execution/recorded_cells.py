"""Materialisations that are recorded cell by cell: those of a range, and of cells for which there is nothing to make."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from fmaudit_core.pipeline.empty_cells import empty_cells
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.storage.warehouse import Cell
from fmaudit_dagster.execution.run_history import DATA_VERSION_TAG
from fmaudit_dagster.metadata import empty_result
from fmaudit_dagster.partitions import partition_key


def materialization(
    asset: str, cell: Cell, result: dg.MaterializeResult[Any], tags: Mapping[str, str] | None = None
) -> dg.AssetMaterialization:
    """Return the event of one cell, with the version and the metadata of its result."""
    key, version = partition_key(cell), result.data_version
    named = {**(tags or {}), **({DATA_VERSION_TAG: version.value} if version else {})}
    if isinstance(key, dg.MultiPartitionKey):
        named |= {f"dagster/partition/{name}": value for name, value in key.keys_by_dimension.items()}
    return dg.AssetMaterialization(asset, partition=key, metadata=result.metadata, tags=named)


def unrecorded_empty_cells(look: Snapshot) -> list[dg.AssetMaterialization]:
    """Return an event for each cell with nothing to make that has none yet, so that the UI does not show it as missing."""
    return [
        materialization(asset, cell, empty_result(dg.AssetKey(asset), why))
        for step, cell, why in empty_cells(look)
        for asset in step.assets
        if look.history is not None and look.history(asset, cell) is None
    ]

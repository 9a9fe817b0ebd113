"""Encoder (dynamic: one key per registered spec) x task (static, from audit.yaml)."""

import dagster as dg

from fmaudit_core.pipeline.steps import By
from fmaudit_core.storage.warehouse import WHOLE, Cell
from fmaudit_dagster.configured import tasks

ENCODER = dg.DynamicPartitionsDefinition(name="encoder")


TASK = dg.StaticPartitionsDefinition(list(tasks()))
ENCODER_BY_TASK = dg.MultiPartitionsDefinition({"encoder": ENCODER, "task": TASK})
PARTITIONS = {By.WHOLE: None, By.ENCODER: ENCODER, By.ENCODER_TASK: ENCODER_BY_TASK}


def cell_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> Cell:
    """Return the cell of the warehouse of a run's partition."""
    return _cell(context.partition_key) if context.has_partition_key else WHOLE


def cells_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> list[Cell]:
    """Return the cells of a run of a range of partitions, in order."""
    return [_cell(key) for key in context.partition_keys]


def _cell(key: str) -> Cell:
    if isinstance(key, dg.MultiPartitionKey):
        by_dimension = key.keys_by_dimension
        return Cell(encoder=by_dimension["encoder"], task=by_dimension["task"])
    return Cell(encoder=key)


def partition_key(cell: Cell) -> str | dg.MultiPartitionKey | None:
    """Partition key of a cell; None for an unpartitioned asset."""
    if cell.task:
        return dg.MultiPartitionKey({"encoder": cell.encoder, "task": cell.task})
    return cell.encoder or None

"""Encoder (dynamic: one key per registered spec) x task (static, from audit.yaml)."""

import dagster as dg

from fmaudit_core.config import audit_path_from_environment, load_audit
from fmaudit_core.vocabulary import TASKS
from fmaudit_core.warehouse import Cell

ENCODER = dg.DynamicPartitionsDefinition(name="encoder")


def _configured_tasks() -> tuple[str, ...]:
    """Tasks of the audit this process serves; the field's eight while no audit.yaml exists yet."""
    path = audit_path_from_environment()
    return load_audit(path).tasks if path.exists() else TASKS


TASK = dg.StaticPartitionsDefinition(list(_configured_tasks()))
ENCODER_BY_TASK = dg.MultiPartitionsDefinition({"encoder": ENCODER, "task": TASK})


def cell_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> Cell:
    """Cell of the warehouse that a run's partition stands for."""
    key = context.partition_key
    if isinstance(key, dg.MultiPartitionKey):
        by_dimension = key.keys_by_dimension
        return Cell(encoder=by_dimension["encoder"], task=by_dimension["task"])
    return Cell(encoder=key)


def partition_key(cell: Cell) -> str | dg.MultiPartitionKey | None:
    """Partition key of a cell; None for an unpartitioned asset."""
    if cell.task:
        return dg.MultiPartitionKey({"encoder": cell.encoder, "task": cell.task})
    return cell.encoder or None

"""A range of partitions made by one run: a backfill of the UI. Each cell is recorded when it is made, as in a run of its own.

Dagster would record a range at its end, with one version for all its partitions. Here every partition has its own version and
metadata, and what it was made from.
"""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from fmaudit_core.common.errors import FmauditError, missing_extra
from fmaudit_core.pipeline.steps import Step
from fmaudit_core.storage.leases import LeaseLostError
from fmaudit_core.storage.warehouse import Cell
from fmaudit_dagster.assets.failures import of_surroundings
from fmaudit_dagster.execution.recorded_cells import materialization
from fmaudit_dagster.execution.run_history import DATA_VERSION_TAG, latest_materialization
from fmaudit_dagster.partitions import cells_of

#: key of a result for which Dagster records no event: those of the cells are there already
_RECORDED = "__source_asset_observation__"


class CellsFailedError(FmauditError):
    """Some cells of a range failed; the others were made."""


def make_range(
    context: dg.AssetExecutionContext, step: Step, make: Callable[[Cell], Iterator[dg.MaterializeResult[Any]]]
) -> Iterator[dg.AssetMaterialization | dg.MaterializeResult[Any]]:
    """Make every cell of a range, and record each; a cell that fails keeps none of the others from being made.

    Raises
    ------
    CellsFailedError
        After all cells were tried.
    """
    failures: dict[Cell, Exception] = {}
    for cell in cells_of(context):
        if context.retry_number and _is_made(context, cell):
            continue
        try:
            for result in make(cell):
                asset = result.asset_key.to_user_string() if result.asset_key else step.assets[0]
                yield materialization(asset, cell, result, _inputs(context, step, cell))
        except LeaseLostError:
            raise
        except Exception as error:
            failures[cell] = missing_extra(error, f"the step {step.name}") or error
            context.log.error(f"{step.name} ({cell}) failed: {_message(failures[cell])}")
    if failures:
        raise _failed(step, failures, len(cells_of(context)))
    for key in context.selected_asset_keys:
        yield dg.MaterializeResult(asset_key=key, metadata={_RECORDED: True})


def _is_made(context: dg.AssetExecutionContext, cell: Cell) -> bool:
    """Return whether an earlier attempt of this run made a cell."""
    latest = [
        latest_materialization(context.instance, key.to_user_string(), cell) for key in context.selected_asset_keys
    ]
    return all(record is not None and record.run_id == context.run.run_id for record in latest)


def _inputs(context: dg.AssetExecutionContext, step: Step, cell: Cell) -> dict[str, str]:
    """Return the tags from which Dagster tells whether an input was made again since: its version and its event."""
    tags = {"dagster/code_version": context.run.run_id, "dagster/data_version_is_user_provided": "true"}
    by_asset = {asset: source for source in step.input_steps.values() for asset in source.assets}
    for asset in step.input_assets:
        record = latest_materialization(context.instance, asset, by_asset[asset].by.cell(cell))
        made = record.asset_materialization if record else None
        tags[f"dagster/input_data_version/{asset}"] = ((made.tags or {}) if made else {}).get(
            DATA_VERSION_TAG, "INITIAL"
        )
        tags[f"dagster/input_event_pointer/{asset}"] = str(record.storage_id) if record else "NULL"
    return tags


def _message(error: Exception) -> str:
    """Return the message of an error of ours; another may quote a cell of a table."""
    return str(error) if isinstance(error, FmauditError) else type(error).__name__


def _failed(step: Step, failures: dict[Cell, Exception], n_cells: int) -> CellsFailedError:
    """Return one error for all failures; its cause is one after which the step is tried again, if there is any."""
    listed = "; ".join(f"{cell}: {_message(error)}" for cell, error in failures.items())
    others = ", the others were made" if len(failures) < n_cells else ""
    failed = CellsFailedError(f"{len(failures)} of {n_cells} cells of {step.name} failed{others}. {listed}")
    failed.__cause__ = next(filter(of_surroundings, failures.values()), next(iter(failures.values())))
    return failed

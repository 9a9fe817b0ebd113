"""What a failed step means: its surroundings failed and it is tried again, or its data did and it waits for other data."""

import dagster as dg

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.engines.errors import ClusterError
from fmaudit_core.imaging.errors import ImagesGoneError
from fmaudit_core.storage.atomic_write import PublishError
from fmaudit_core.storage.bucket import StoreError
from fmaudit_core.storage.leases import LeaseLostError
from fmaudit_dagster.execution.run_history import ATTENDED_TAG, SURROUNDINGS_TAG


def judge(context: dg.AssetExecutionContext, error: Exception) -> None:
    """Mark the run whose surroundings failed, which is tried again; a failure of the data waits for other data.

    Raises
    ------
    Failure
        The data failed, somebody waits for the run, or its lease was taken over: it was reported as ended and holds no slot.
    """
    retryable = of_surroundings(error)
    if retryable:
        context.instance.add_run_tags(context.run.run_id, {SURROUNDINGS_TAG: "true"})
    if not retryable or isinstance(error, LeaseLostError) or ATTENDED_TAG in context.run.tags:
        raise dg.Failure(str(error), allow_retries=False) from error


def of_surroundings(error: BaseException) -> bool:
    """Return whether a disk, a mount, a bucket, memory, a device, a cluster or the lease failed, not the data or a setting."""
    kinds = (OSError, MemoryError, PublishError, LeaseLostError, StoreError, ImagesGoneError, ClusterError)
    if isinstance(error, kinds) or type(error).__name__ in ("OutOfMemoryError", "AcceleratorError"):
        return True
    cause = error.__cause__
    return isinstance(error, FmauditError) and cause is not None and of_surroundings(cause)

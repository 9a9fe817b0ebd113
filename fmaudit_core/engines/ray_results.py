"""Results of work on a Ray cluster: lost processes are distinguished from errors; and the errors of a cluster."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Final

import ray

from fmaudit_core.engines.errors import ClusterError

#: times that processes of the same work may die
DEATHS: Final = 8
#: the result of work whose process, node or object was lost, and Ray's errors of it
DIED: Final = object()
_LOSSES: Final = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,
)


def result(ref: Any) -> Any:
    """Return the result of a task, or `DIED`; raise what it raised."""
    try:
        return ray.get(ref)
    except _LOSSES:
        return DIED
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, _LOSSES):  # of slices on their way to an actor
            return DIED
        if not isinstance(error.cause, ray.exceptions.RayError):
            raise error.cause from None
        raise _ray_failed(error.cause) from error
    except ray.exceptions.RayError as error:
        raise _ray_failed(error) from error


def _ray_failed(error: Exception) -> ClusterError:
    what = (str(error).splitlines() or [""])[0][:200]
    return ClusterError(f"Ray failed ({type(error).__name__}: {what}).", fix="See `ray status` and the logs of Ray.")


def too_many_deaths(of: str) -> ClusterError:
    """Return the error of work whose process dies each time."""
    return ClusterError(
        f"{of}: its process died {DEATHS + 1} times, often because of insufficient memory.",
        fix="Finished work is kept: set fewer `compute: slicing_cpus` or `shard_studies`, then run again.",
    )


def check_shared(folder: Path) -> None:
    """Raise if a folder of the workspace is not there: it must not be made on a node's own disk."""
    if not folder.is_dir():
        raise not_shared(folder)


def not_shared(folder: Path) -> ClusterError:
    """Return the error of a node that does not have the workspace, or has another one."""
    return ClusterError(
        "the workspace is not the same folder on all nodes.",
        where=f"{folder} on {socket.gethostname()}",
        fix="Mount its disk at the same path on every node, then run again: finished work is kept.",
    )

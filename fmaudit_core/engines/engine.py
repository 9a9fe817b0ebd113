"""The engine that `compute:` asks for: this machine, or a Ray cluster (`ray_cluster.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fmaudit_core.common.errors import needs_extra
from fmaudit_core.common.worker_pool import Perform, performed
from fmaudit_core.config import ComputeSection
from fmaudit_core.encoders.shard_encoder import Encode, encode_here


@dataclass(frozen=True)
class Engine:
    """Where work is done.

    Parameters
    ----------
    perform : Perform
        Runs independent jobs, such as reading series into slices.
    encode : Encode
        Makes shards of embeddings.
    """

    perform: Perform
    encode: Encode


@contextmanager
def opened_engine(compute: ComputeSection, *, home: Path, workers: int = 0) -> Iterator[Engine]:
    """Yield the engine that the settings ask for.

    Parameters
    ----------
    home : Path
        The workspace; machines of a cluster must have it at the same path.
    workers : int
        Processes of this machine for independent jobs; 0 means one per core. A cluster uses its CPUs.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    ClusterError
        The cluster cannot be reached.
    """
    if compute.engine == "local":
        yield Engine(partial(performed, workers=workers), encode_here)
        return
    with needs_extra("ray", "`compute: engine: ray`"):
        from fmaudit_core.engines.ray_cluster import RayCluster, connected
    with connected(compute.address):
        cluster = RayCluster(compute, home)
        yield Engine(cluster.perform, cluster.encode)

"""One look at every node of a connected Ray cluster: versions, clock, folders. They are judged in `setup/cluster_doctor.py`."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import fmaudit_core
from fmaudit_core.common.errors import FmauditError
from fmaudit_core.encoders.extract import library_versions
from fmaudit_core.storage.bucket import Bucket

#: the first look starts a process; the second one measures the clock
_LOOKS = 2


@dataclass(frozen=True)
class NodeLook:
    """A node of a cluster.

    Parameters
    ----------
    address : str
    versions : dict of package to version
    clock_s : float
        Its clock minus that of this machine, in seconds; 0 if the difference is below what can be measured.
    folders : tuple of int or None
        The inode of each folder; None if it is not there.
    images : str
        Why it cannot read the bucket of the images; empty if it can, or if there is none.
    """

    address: str
    versions: dict[str, str]
    clock_s: float
    folders: tuple[int | None, ...]
    images: str = ""


@dataclass(frozen=True)
class ClusterLook:
    """All nodes of a cluster, and its CPUs and GPUs."""

    nodes: tuple[NodeLook, ...]
    cpus: float
    gpus: float


def look_at_cluster(folders: Sequence[Path], images: Bucket | None = None) -> ClusterLook:
    """Look at every living node of the connected cluster, and at some folders, and the bucket of the images, from each."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    total = ray.cluster_resources()
    looks = tuple(_look_at(node["NodeID"], node["NodeManagerAddress"], folders, images) for node in nodes)
    return ClusterLook(looks, total.get("CPU", 0), total.get("GPU", 0))


def inodes(folders: Sequence[Path]) -> tuple[int | None, ...]:
    """Return the inode of each folder, by which a shared disk is recognised; None if it is not there."""
    return tuple(folder.stat().st_ino if folder.is_dir() else None for folder in folders)


def _look_at(node: str, address: str, folders: Sequence[Path], images: Bucket | None) -> NodeLook:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(_seen).options(num_cpus=0, scheduling_strategy=there)
    for _ in range(_LOOKS):
        before = time.time()
        clock, versions, seen, refused = ray.get(task.remote(folders, images))
        after = time.time()
    off = max(clock - after, 0.0) or min(clock - before, 0.0)
    return NodeLook(address, versions, off, seen, refused)


def _seen(folders: Sequence[Path], images: Bucket | None) -> tuple[float, dict[str, str], tuple[int | None, ...], str]:
    clock = time.time()
    try:
        refused = "" if images is None or next(images.list(""), None) else "it is empty."
    except FmauditError as error:  # of the store, or a part that is not installed
        refused = error.what
    versions = {"fmaudit": fmaudit_core.__version__, "python": platform.python_version(), "ray": ray.__version__}
    return clock, versions | library_versions(), inodes(folders), refused

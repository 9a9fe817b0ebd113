"""Checks of `fmaudit doctor --cluster`: whether the Ray cluster of `compute:` can make this audit's slices and embeddings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fmaudit_core.common.errors import FmauditError, needs_extra
from fmaudit_core.config import ComputeSection
from fmaudit_core.pipeline.run_cohort import is_drawn
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.setup.finding import Finding
from fmaudit_core.storage.bucket import Bucket

if TYPE_CHECKING:
    from fmaudit_core.engines.ray_nodes import ClusterLook, NodeLook

#: clocks further apart make logs misleading and certificates invalid; results do not depend on them
_CLOCK_S: Final = 5.0


def examine_cluster(workspace: Workspace) -> Iterator[Finding]:
    """Yield findings on the nodes of the cluster: their versions, resources, folders, images and clocks. Nothing is written."""
    compute = workspace.audit.compute
    if compute.engine != "ray":
        yield Finding("cluster", "ok", "`compute: engine: local` uses this machine only")
        return
    folders = [next(path for path in (workspace.home, *workspace.home.parents) if path.exists())]
    try:
        images = workspace.bucket_images.bucket if workspace.images_in_bucket else None
        if (
            images is None
            and is_drawn(workspace)
            and any(spec.sees_images for spec in workspace.registry.specs().values())
        ):
            folders.append(workspace.images_root)
        with needs_extra("ray", "`compute: engine: ray`"):
            from fmaudit_core.engines.ray_cluster import connected
            from fmaudit_core.engines.ray_nodes import inodes, look_at_cluster
        with connected(compute.address):
            look = look_at_cluster(folders, images)
        yield from judged_cluster(look, compute, folders, inodes(folders))
        if images is not None:
            yield _images(look.nodes, images)
    except FmauditError as error:
        yield Finding("cluster", "problem", f"{error.where}: {error.what}" if error.where else error.what, error.fix)


def judged_cluster(
    look: ClusterLook, compute: ComputeSection, folders: Sequence[Path], here: Sequence[int | None]
) -> Iterator[Finding]:
    """Yield what follows from a look at a cluster, and at the same folders from this machine."""
    yield _versions(look.nodes)
    yield _resources(look, compute)
    yield from (_folder(look.nodes, at, folder, here[at]) for at, folder in enumerate(folders))
    off = {node.address: node.clock_s for node in look.nodes if abs(node.clock_s) > _CLOCK_S}
    if off:
        message = ", ".join(f"{address} by {seconds:+,.0f} s" for address, seconds in off.items())
        fix = "Synchronise the clocks (chrony or NTP)."
        yield Finding("clocks", "warning", f"differ from this machine's: {message}.", fix)
    else:
        yield Finding("clocks", "ok", f"agree within {_CLOCK_S:.0f} s")


def _images(nodes: Sequence[NodeLook], images: Bucket) -> Finding:
    refused = [f"{node.address}: {node.images}" for node in nodes if node.images]
    if refused:
        fix = "Set the credentials in the environment of `ray start` on every node, and let the nodes reach the store."
        return Finding("images", "problem", f"{images} cannot be read on {' '.join(refused)}", fix)
    return Finding("images", "ok", f"{images} can be read on all nodes")


def _versions(nodes: Sequence[NodeLook]) -> Finding:
    names = sorted({name for node in nodes for name in node.versions})
    differing = []
    for name in names:
        of: dict[str, list[str]] = defaultdict(list)
        for node in nodes:
            of[node.versions.get(name, "not installed")].append(node.address)
        if len(of) > 1:
            held = "; ".join(f"{version} on {', '.join(on)}" for version, on in sorted(of.items()))
            differing.append(f"{name} is {held}")
    if differing:
        return Finding(
            "versions", "problem", f"{'. '.join(differing)}.", "Use the same environment or image on all nodes."
        )
    first = nodes[0].versions
    return Finding("versions", "ok", ", ".join(f"{name} {first[name]}" for name in ("fmaudit", "ray", "python")))


def _resources(look: ClusterLook, compute: ComputeSection) -> Finding:
    cpus, gpus = compute.encoders * compute.slicing_cpus, compute.encoders * compute.gpus
    cpus += 0 if compute.gpus else compute.encoders
    there = f"{len(look.nodes)} nodes with {look.cpus:g} CPUs and {look.gpus:g} GPUs"
    message = f"{there}; the settings use up to {cpus:g} and {gpus:g}"
    if look.cpus < 1 or look.gpus < compute.gpus or (not compute.gpus and look.cpus <= compute.encoders):
        return Finding("resources", "problem", f"{message}: nothing could start.", "Add nodes, or change `compute:`.")
    if look.cpus < cpus or look.gpus < gpus:
        return Finding("resources", "warning", f"{message}.", "The rest waits; add nodes, or change `compute:`.")
    return Finding("resources", "ok", message)


def _folder(nodes: Sequence[NodeLook], at: int, folder: Path, here: int | None) -> Finding:
    if here is None:
        return Finding("folders", "problem", f"{folder} is not there.", "Create it, or mount its disk, on every node.")
    missing = [node.address for node in nodes if node.folders[at] is None]
    other = [node.address for node in nodes if node.folders[at] not in (None, here)]
    if missing:
        message = f"{folder} is not there on {', '.join(missing)}."
        return Finding("folders", "problem", message, "Mount its disk at the same path on every node.")
    if other:
        message = f"{folder} seems to be another folder on {', '.join(other)}."
        return Finding("folders", "warning", message, "Mount the same disk at this path on every node.")
    return Finding("folders", "ok", f"{folder} is the same on all nodes")

"""Checks of the machine and the files that an audit needs; each finding states how to fix a problem.

Nothing is written except the warehouse's views, and nothing large is read: `fmaudit encoders check` verifies weights. For
Dagster's part see `fmaudit_dagster/cli/doctor.py`.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

import fmaudit_core
from fmaudit_core.common.errors import FmauditError, needs_extra
from fmaudit_core.common.vocabulary import how_many
from fmaudit_core.encoders.spec import IMPORTED, EncoderSpec
from fmaudit_core.imaging.archive.index import IndexedStudy
from fmaudit_core.imaging.window import View
from fmaudit_core.pipeline.workspace import Workspace, open_workspace
from fmaudit_core.setup.doctor_results import examine_results
from fmaudit_core.setup.finding import Finding

if TYPE_CHECKING:
    from fmaudit_core.imaging.series import SeriesRead

#: the oldest and the newest Python that is tested
_OLDEST, _NEWEST = (3, 11), (3, 13)
#: adapters that need neither torch nor the package of a network
_LIGHT_ADAPTERS: Final = (IMPORTED, "hu_histogram")
#: number of series read in the same way as in the audit
_SAMPLED_SERIES: Final = 3
_SAMPLED_PATHS: Final = 200
_MB: Final = 1e6
#: compressed size of 8-bit slices of a chest as a share of the raw size (zstd)
_PACKED: Final = 0.6


def examine(audit_yaml: Path) -> Iterator[Finding]:
    """Yield findings on Python, the extras, the config, the registry, the cohort, the images, the disk and the warehouse."""
    yield _python()
    try:
        workspace = open_workspace(audit_yaml)
    except FmauditError as error:
        yield _extras({}, in_bucket=False, on_ray=False)
        yield Finding(
            "audit.yaml", "problem", error.what if not error.where else f"{error.where}: {error.what}", error.fix
        )
        return
    specs = workspace.registry.specs()
    yield _extras(specs, in_bucket=workspace.audit.bucket is not None, on_ray=workspace.audit.compute.engine == "ray")
    yield Finding(
        "audit.yaml",
        "ok",
        f"{audit_yaml}: {how_many(len(workspace.audit.tasks), 'task')}, "
        f"{how_many(len(workspace.audit.attributes), 'attribute')}",
    )
    yield from _device(workspace, specs)
    yield from _registry(workspace, specs)
    for spec in specs.values():
        yield _weights(spec)
    studies = None
    try:
        studies = _studies(workspace)
        yield _cohort(workspace, studies)
    except FmauditError as error:
        yield Finding("cohort", "problem", str(error), None if error.fix else "Correct the cohort's files.")
    sample: list[SeriesRead] = []
    if studies is not None and any(spec.sees_images for spec in specs.values()):
        finding, sample = _images(workspace, studies)
        yield finding
    yield _disk(workspace, specs, 0 if studies is None else studies.height, sample)
    yield from examine_results(workspace.warehouse)


def _python() -> Finding:
    found = sys.version_info[:2]
    message = (
        f"{platform.python_version()} on {platform.system()} {platform.machine()}, fmaudit {fmaudit_core.__version__}"
    )
    if found < _OLDEST:
        return Finding("python", "problem", message, "Create the environment with Python 3.11, 3.12 or 3.13.")
    if found > _NEWEST:
        return Finding("python", "warning", message, "fmaudit is tested on Python 3.11 to 3.13.")
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return Finding("python", "warning", message, "fmaudit is tested on Linux x86_64 only.")
    return Finding("python", "ok", message)


def _extras(specs: dict[str, EncoderSpec], *, in_bucket: bool, on_ray: bool) -> Finding:
    """Check the optional parts: those installed and those that a spec, the root or the engine needs."""
    parts = {"imaging": "pydicom", "encoders": "torch", "platform": "dagster", "hdf5": "h5py", "cloud": "obstore"}
    if on_ray:
        parts["ray"] = "ray"
    there = {extra: find_spec(module) is not None for extra, module in parts.items()}
    needed = {"platform", *(["cloud"] if in_bucket else []), *(["ray"] if on_ray else [])}
    for spec in specs.values():
        if spec.sees_images:
            needed.add("imaging")
        if spec.adapter not in _LIGHT_ADAPTERS:
            needed.add("encoders")
        if spec.embeddings and spec.embeddings.path.suffix.lower() in (".h5", ".hdf5"):
            needed.add("hdf5")
    message = ", ".join(f"{extra} {'installed' if has else 'not installed'}" for extra, has in there.items())
    lacking = sorted(extra for extra in needed if not there[extra])
    if lacking:
        return Finding("extras", "problem", message, f"pip install 'fmaudit[{','.join(lacking)}]'")
    return Finding("extras", "ok", message)


def _device(workspace: Workspace, specs: dict[str, EncoderSpec]) -> Iterator[Finding]:
    """Check that torch provides the device that the audit requests."""
    if find_spec("torch") is None:
        return
    try:
        import torch
    except (ImportError, OSError) as error:  # built for another Python, system or version of CUDA
        message = f"torch is installed, but cannot be imported ({str(error).strip().partition(chr(10))[0][:200]})."
        yield Finding("device", "problem", message, "pip install --force-reinstall torch torchvision")
        return
    wanted, there = workspace.audit.extraction.device, torch.cuda.is_available()
    message = f"torch {torch.__version__}, " + (f"CUDA: {torch.cuda.get_device_name()}" if there else "no CUDA device")
    only = sorted(name for name, spec in specs.items() if spec.device == "cuda" and not spec.cpu_fallback)
    if wanted == "cuda" and not there:
        yield Finding(
            "device",
            "problem",
            message,
            "Set `extraction: device: auto`, or repair the driver: `nvidia-smi` must work.",
        )
    elif only and not there:
        yield Finding(
            "device",
            "problem",
            f"{message}, and {', '.join(only)} runs on CUDA only",
            "Run it on a machine with a GPU.",
        )
    elif not there and shutil.which("nvidia-smi"):
        yield Finding(
            "device", "warning", message, "This machine has nvidia-smi: install a build of torch for its CUDA version."
        )
    else:
        yield Finding("device", "ok", message)


def _registry(workspace: Workspace, specs: dict[str, EncoderSpec]) -> Iterator[Finding]:
    for problem in workspace.registry.problems().values():
        yield Finding("registry", "problem", problem, "Correct the file, or move it out of the registry.")
    real = [name for name, spec in specs.items() if not spec.control]
    if not specs:
        yield Finding(
            "registry",
            "problem",
            f"{workspace.audit.encoders} holds no encoder.",
            "Add one: fmaudit encoders add efficientnet_lite0",
        )
    elif not real:
        yield Finding(
            "registry", "warning", "the only encoder is a control.", "Add an encoder: fmaudit encoders add NAME"
        )
    elif len(real) == len(specs) and any(spec.sees_images for spec in specs.values()):
        yield Finding(
            "registry", "warning", f"{', '.join(specs)}; no control to compare the encoders with.",
            "fmaudit encoders add hu_histogram",
        )  # fmt: skip
    else:
        yield Finding("registry", "ok", ", ".join(specs))


def _weights(spec: EncoderSpec) -> Finding:
    about = "weights"
    try:
        paths = spec.located_files()
    except FmauditError as error:
        return Finding(
            about, "problem", f"{spec.name}: {error.what}" + (f" ({error.where})" if error.where else ""), error.fix
        )
    if not paths:
        return Finding(about, "ok", f"{spec.name}: needs none")
    size = sum(path.stat().st_size for path in paths) / _MB
    message = f"{spec.name}: {', '.join(path.name for path in paths)}, {size:,.1f} MB, sha256 {spec.sha256[:12]}..."
    return Finding(about, "ok", f"{message} (verified when it is loaded)")


def _studies(workspace: Workspace) -> pl.DataFrame | None:
    """Return the studies of the cohort; None for a phantom that is not drawn yet."""
    from fmaudit_core.pipeline.run_cohort import is_drawn, read_cohort

    return read_cohort(workspace).studies if is_drawn(workspace) else None


def _cohort(workspace: Workspace, studies: pl.DataFrame | None) -> Finding:
    if studies is None:
        return Finding("cohort", "ok", "a phantom, generated by the first run")
    patients = studies.get_column("patient_id").n_unique()
    splits = studies.group_by("split").len().sort("split").rows()
    counts = ", ".join(f"{n:,} {split}" for split, n in splits)
    found = f"{workspace.audit.cohort.kind}: {studies.height:,} studies of {patients:,} patients ({counts})"
    return Finding("cohort", "ok", found)


def _images(workspace: Workspace, studies: pl.DataFrame) -> tuple[Finding, list[SeriesRead]]:
    """Check that images are accessible and that a few series can be read; return the series read."""
    try:
        with needs_extra("imaging", "reading CT series"):
            from fmaudit_core.imaging.series import read_series
        if workspace.images_in_bucket:  # all were found when the cohort was read
            return Finding("images", "ok", f"{workspace.bucket_images.bucket}: every study has images"), []
        root = workspace.images_root
    except FmauditError as error:
        return Finding("images", "problem", error.what, error.fix), []
    sampled = workspace.study_images(studies.gather_every(max(1, studies.height // _SAMPLED_PATHS)))
    paths = [
        one.files() if isinstance(one, IndexedStudy) else one
        for one in sampled.values()
        if isinstance(one, Path | IndexedStudy)
    ]
    lost = sum(not all(os.access(file, os.R_OK) for file in _each(path)) for path in paths)
    if lost:
        message = f"{lost} of {len(paths)} sampled images in {root} cannot be read."
        return Finding("images", "problem", message, "Mount the disk, or grant read permission."), []
    read: list[SeriesRead] = []
    reasons = []
    for path in paths[:: max(1, len(paths) // _SAMPLED_SERIES)][:_SAMPLED_SERIES]:
        try:
            best = read_series(path, rules=workspace.series_rules)[0]
        except FmauditError:
            reasons.append("no_images")
            continue
        if best.status == "accepted":
            read.append(best)
        else:
            reasons.append(best.reason)
    if reasons:
        message = (
            f"{len(reasons)} of {len(read) + len(reasons)} sampled series are refused: "
            f"{', '.join(sorted(set(reasons)))}."
        )
        fix = "`fmaudit series PATH` gives details; the audit excludes such series and counts them."
        return Finding("images", "warning", message, fix), read
    return Finding(
        "images", "ok", f"{root}: all of {len(paths)} sampled images exist; {len(read)} series read completely"
    ), read


def _each(path: Path | Sequence[Path]) -> Sequence[Path]:
    return [path] if isinstance(path, Path) else path


def _disk(workspace: Workspace, specs: dict[str, EncoderSpec], n_studies: int, sample: list[SeriesRead]) -> Finding:
    """Check that the slices still to be written fit on the disk, assuming all series are like the sampled ones."""
    there = next(path for path in (workspace.home, *workspace.home.parents) if path.exists())
    free = shutil.disk_usage(there).free
    message = f"{free / 1e9:,.1f} GB free at {workspace.home}"
    if not os.access(there, os.W_OK):
        return Finding(
            "disk", "problem", f"{workspace.home} is not writable.", "Set FMAUDIT_HOME to a writable folder."
        )
    if (workspace.home / "slices").exists() or not sample or workspace.audit.compute.keep_slices == "none":
        return Finding("disk", "ok", message)
    views = {spec.view.key(): spec.view for spec in specs.values() if spec.sees_images}
    voxels = sum(_voxels(view, sample) for view in views.values()) / len(sample)
    needed = _PACKED * n_studies * voxels
    if needed > free:
        return Finding(
            "disk", "problem", f"{message}; slices of {n_studies:,} studies take about {needed / 1e9:,.1f} GB.",
            "Free some space, set FMAUDIT_HOME to a larger disk, or give the encoders a smaller view (size_px, stride).",
        )  # fmt: skip
    return Finding("disk", "ok", f"{message}; slices take about {needed / 1e9:,.1f} GB")


def _voxels(view: View, sample: list[SeriesRead]) -> float:
    """Return the uncompressed size of a view over some series, in bytes."""
    width = 2 if view.values == "int16" else 1
    if view.volume is not None:
        facts = [one.facts() for one in sample]
        shapes = [view.volume.shape_of(one["shape_zyx"], one["spacing_zyx_mm"]) for one in facts]
        return float(sum(z * y * x for z, y, x in shapes) * width)
    total = 0.0
    for one in sample:
        z, y, x = one.facts()["shape_zyx"]
        plane = view.size_px**2 if view.size_px else y * x
        total += len(view.chosen(z)) * plane * view.channels * width
    return total

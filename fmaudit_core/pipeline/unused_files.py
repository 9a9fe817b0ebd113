"""Files of a workspace that no step, page or command reads any more, for `fmaudit gc`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.config import PhantomCohort
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.claims import ClaimFolder
from fmaudit_core.storage.processes import lives


class InUseError(FmauditError):
    """Some step of the workspace is running."""


@dataclass(frozen=True)
class Unused:
    """Files of one kind that nothing reads.

    Parameters
    ----------
    kind : str
        What they are and why they are not used.
    paths : tuple of Path
        Files, and folders with all that is in them.
    """

    kind: str
    paths: tuple[Path, ...]

    @property
    def n_bytes(self) -> int:
        """Return their size on disk."""
        return sum(_size(file) for path in self.paths for file in ([path] if path.is_file() else path.rglob("*")))


def unused_files(workspace: Workspace) -> list[Unused]:
    """Return what is not used, by kind; kinds without files are left out.

    While a spec of the registry cannot be read, everything of encoders and views is kept: it may be of that spec.
    """
    found = [Unused("half-written files of processes that have ended", tuple(half_written(workspace.home)))]
    specs, problems = workspace.registry.read()
    if not problems:
        views = {spec.view.key() for spec in specs.values() if spec.sees_images}
        slices = _other_folders(workspace.home / "slices", {*views, "quality"})
        found.append(Unused("results of encoders that are not registered", tuple(_of_encoders(workspace, set(specs)))))
        found.append(Unused("slices in views of no registered encoder", tuple(slices)))
    found.append(Unused("results of tasks that are not in audit.yaml", tuple(_of_tasks(workspace))))
    drawn = {workspace.phantom.name} if isinstance(workspace.audit.cohort, PhantomCohort) else set[str]()
    phantoms = _other_folders(workspace.home / "phantom", drawn)
    found.append(Unused("phantom cohorts of other settings", tuple(phantoms)))
    return [one for one in found if one.paths]


def remove_unused(workspace: Workspace, unused: list[Unused]) -> None:
    """Remove files found by `unused_files`.

    Raises
    ------
    InUseError
        A step is running, here or on another machine: it may be writing, or know an encoder of before. Nothing is removed.
    """
    claims = ClaimFolder(workspace.home / "claims")
    for name in claims.names():
        holder = claims.read(name).holder
        if holder is not None and lives(holder.get("process", "")) is not False:
            raise InUseError(
                f"{name} is running on {holder.get('host', 'another machine')}; nothing was removed.",
                fix="Wait until it has ended. If that machine is gone, `fmaudit run` ends the run.",
            )
    for path in (path for one in unused for path in one.paths):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def half_written(folder: Path) -> list[Path]:
    """Return the temporary files of `written_beside` below a folder, sorted; those of living writers too."""
    return sorted(path for path in folder.rglob(".*.tmp") if path.is_file())


def _of_encoders(workspace: Workspace, registered: set[str]) -> Iterator[Path]:
    """Yield the tables, embeddings and shards of encoders that are not registered."""
    root = workspace.warehouse.root
    for folder in sorted(root.glob("*/encoder=*")):
        if folder.name.removeprefix("encoder=") not in registered:
            yield folder
    yield from (path for path in sorted((root / "embeddings").glob("*.duckdb")) if path.stem not in registered)
    yield from _other_folders(workspace.extraction_folder, registered)


def _of_tasks(workspace: Workspace) -> Iterator[Path]:
    for folder in sorted(workspace.warehouse.root.glob("*/encoder=*/task=*")):
        if folder.name.removeprefix("task=") not in workspace.audit.tasks:
            yield folder


def _other_folders(top: Path, names: set[str]) -> Iterator[Path]:
    """Yield the folders in a folder that have none of some names."""
    if top.is_dir():
        yield from (path for path in sorted(top.iterdir()) if path.is_dir() and path.name not in names)


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.lstat().st_size if not file.is_dir() else 0
    return 0

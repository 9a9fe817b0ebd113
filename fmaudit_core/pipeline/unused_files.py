"""Files of a workspace that no step, page or command reads any more, for `fmaudit gc`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.config import PhantomCohort
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.bucket import StoredObject
from fmaudit_core.storage.bucket_warehouse import BucketWarehouse
from fmaudit_core.storage.pointers import NAMES, named_cell, read_pointers
from fmaudit_core.storage.processes import lives
from fmaudit_core.storage.warehouse import Warehouse

_ENCODERS: Final = "results of encoders that are not registered"
_TASKS: Final = "results of tasks that are not in audit.yaml"
_OLD: Final = "old versions of tables and embeddings in the bucket"


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
    objects : tuple of StoredObject
        Objects of the bucket; names of cells before the objects they point to.
    """

    kind: str
    paths: tuple[Path, ...] = ()
    objects: tuple[StoredObject, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Return their size."""
        files = (file for path in self.paths for file in ([path] if path.is_file() else path.rglob("*")))
        return sum(map(_size, files)) + sum(one.n_bytes for one in self.objects)

    def named(self, home: Path) -> list[str]:
        """Return their paths, relative to `home` if they are below it, and the names of objects."""
        paths = [path.relative_to(home) if path.is_relative_to(home) else path for path in self.paths]
        return [*map(str, paths), *(one.name for one in self.objects)]


def unused_files(workspace: Workspace) -> list[Unused]:
    """Return what is not used, by kind; kinds without files are left out.

    While a spec of the registry cannot be read, everything of encoders and views is kept: it may be of that spec.
    """
    warehouse = workspace.warehouse
    folders = {workspace.home, warehouse.root} if isinstance(warehouse, Warehouse) else {workspace.home}
    torn = sorted({path for folder in folders for path in half_written(folder)})
    found = [Unused("half-written files of processes that have ended", tuple(torn))]
    copies = tuple(_other_folders(workspace.home / "scratch", set()))
    found.append(Unused("copies of studies of processes that have ended", copies))
    specs, problems = workspace.registry.read()
    objects = (
        {} if isinstance(warehouse, Warehouse) else _objects(warehouse, None if problems else set(specs), workspace)
    )
    if not problems:
        views = {spec.view.key() for spec in specs.values() if spec.sees_images}
        slices = _other_folders(workspace.home / "slices", {*views, "quality"})
        retired = [*_of_encoders(warehouse, set(specs)), *_other_folders(workspace.extraction_folder, set(specs))]
        found.append(Unused(_ENCODERS, tuple(retired), objects.get(_ENCODERS, ())))
        found.append(Unused("slices in views of no registered encoder", tuple(slices)))
    found.append(Unused(_TASKS, tuple(_of_tasks(workspace)), objects.get(_TASKS, ())))
    found.append(Unused(_OLD, (), objects.get(_OLD, ())))
    drawn = {workspace.phantom.name} if isinstance(workspace.audit.cohort, PhantomCohort) else set[str]()
    phantoms = _other_folders(workspace.home / "phantom", drawn)
    found.append(Unused("phantom cohorts of other settings", tuple(phantoms)))
    return [one for one in found if one.paths or one.objects]


def remove_unused(workspace: Workspace, unused: list[Unused]) -> None:
    """Remove files found by `unused_files`.

    Raises
    ------
    InUseError
        A step is running, here or on another machine: it may be writing, or know an encoder of before. Nothing is removed.
    """
    claims = workspace.root.claims
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
    if not isinstance(workspace.warehouse, Warehouse):
        # what was published between the look and the claims is in use
        pointers = read_pointers(workspace.warehouse.bucket)
        gone = [one.name for kind in unused for one in kind.objects]
        used = {name for cell, pointer in pointers.items() if cell not in gone for name in pointer.objects}
        workspace.warehouse.bucket.remove([name for name in gone if name not in used])


def half_written(folder: Path) -> list[Path]:
    """Return the temporary files of `written_beside` below a folder, sorted; those of living writers too."""
    return sorted(path for path in folder.rglob(".*.tmp") if path.is_file())


def _of_encoders(warehouse: Warehouse | BucketWarehouse, registered: set[str]) -> Iterator[Path]:
    """Yield the tables and embeddings of encoders that are not registered."""
    if not isinstance(warehouse, Warehouse):
        return
    for folder in sorted(warehouse.root.glob("*/encoder=*")):
        if folder.name.removeprefix("encoder=") not in registered:
            yield folder
    found = sorted((warehouse.root / "embeddings").glob("*.duckdb"))
    yield from (path for path in found if path.stem not in registered)


def _of_tasks(workspace: Workspace) -> Iterator[Path]:
    if not isinstance(workspace.warehouse, Warehouse):
        return
    for folder in sorted(workspace.warehouse.root.glob("*/encoder=*/task=*")):
        if folder.name.removeprefix("task=") not in workspace.audit.tasks:
            yield folder


def _objects(
    warehouse: BucketWarehouse, registered: set[str] | None, workspace: Workspace
) -> dict[str, tuple[StoredObject, ...]]:
    """Return the objects of a bucket that are not used, by kind; those of encoders only if all that are registered are known."""
    objects = {
        one.name: one for one in warehouse.objects()
    }  # before the names, so that none of them is too new to be named
    names = {one.name: one for one in warehouse.bucket.list(NAMES)}
    kinds: dict[str, list[StoredObject]] = {_ENCODERS: [], _TASKS: [], _OLD: []}
    for name, pointer in read_pointers(warehouse.bucket).items():
        cell, kind = named_cell(name)[1], None
        if cell.encoder and registered is not None and cell.encoder not in registered:
            kind = _ENCODERS
        elif cell.task and cell.task not in workspace.audit.tasks:
            kind = _TASKS
        found = [objects.pop(one) for one in pointer.objects if one in objects]
        if kind is not None and name in names:
            kinds[kind] += [names[name], *found]
    kinds[_OLD] = list(objects.values())
    return {kind: tuple(found) for kind, found in kinds.items()}


def _other_folders(top: Path, names: set[str]) -> Iterator[Path]:
    """Yield the folders in a folder that have none of some names."""
    if top.is_dir():
        yield from (path for path in sorted(top.iterdir()) if path.is_dir() and path.name not in names)


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.lstat().st_size if not file.is_dir() else 0
    return 0

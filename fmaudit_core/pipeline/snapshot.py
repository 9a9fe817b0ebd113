"""One look at a workspace: what is registered and published, each file read once. What follows from it: `stale_steps.py`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import polars as pl

from fmaudit_core.cohort.images import on_disk
from fmaudit_core.common.vocabulary import acquisition_column
from fmaudit_core.encoders.embeddings_reader import read_provenance
from fmaudit_core.encoders.errors import EncoderError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.window import View
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.digests import digest, files_digest, frame_digest
from fmaudit_core.storage.warehouse import WHOLE, Cell, WarehouseError, unreadable
from fmaudit_core.tables.cohort import CT_VIEWS
from fmaudit_core.tables.findings import UNAUDITED

_T = TypeVar("_T")
#: raised when the same CT would give other slices
SLICES_REVISION: Final = 1
#: key in `ct_views` where no encoder sees slices
NO_VIEW: Final = "none"
#: columns of a study that decide its slices
_CT_COLUMNS: Final = ("study_id", "image_path", "study_uid", "series_uid", "rescale_slope", "rescale_intercept")

#: (asset, cell) -> version that the run history records for it, None if it was never made
RunHistory = Callable[[str, Cell], str | None]


@dataclass(frozen=True)
class Snapshot:
    """A workspace as it stands at one moment; make a new one to see what changed.

    Parameters
    ----------
    workspace : Workspace
    encoders : mapping of name to EncoderSpec
        Every registered encoder.
    history : RunHistory, optional
        A published asset whose version the history does not confirm counts as stale.
    """

    workspace: Workspace
    encoders: Mapping[str, EncoderSpec]
    history: RunHistory | None = None
    _seen: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def version(self, table: str, cell: Cell = WHOLE) -> str | None:
        """Return the version of a published table, or of an encoder's embeddings; None if it is missing or torn."""
        return self.once(("version", table, cell), lambda: self._version(table, cell))

    def once(self, key: tuple[object, ...], make: Callable[[], _T]) -> _T:
        """Return what `make` returned for this key the first time."""
        if key not in self._seen:
            self._seen[key] = make()
        found: _T = self._seen[key]
        return found

    def without(self, names: Collection[str]) -> Snapshot:
        """Return the same moment with some encoders not registered."""
        kept = {name: spec for name, spec in self.encoders.items() if name not in names}
        read = {key: value for key, value in self._seen.items() if key[0] != "expected"}
        return Snapshot(self.workspace, kept, self.history, read)

    def studies(self, *columns: str) -> str:
        """Return the digest of some columns of the studies: another age leaves the probes alone."""
        return self.once(("studies", columns), lambda: frame_digest(self._study_columns(columns)))

    @cached_property
    def study_table(self) -> pl.DataFrame:
        """The published studies."""
        return self.workspace.warehouse.read("studies")

    @cached_property
    def levelled_study_table(self) -> pl.DataFrame:
        """The published studies with the levels of every audited attribute."""
        return self.workspace.levelled_studies()

    def tasks_of(self, encoder: str) -> list[str]:
        """Return the tasks that an encoder can be audited on; none if it is not registered."""
        spec = self.encoders.get(encoder)
        return spec.tasks_of(self.workspace.audit.tasks) if spec else []

    def audited_cells(self) -> list[Cell]:
        """Return the cells with statistics, of registered encoders and configured tasks."""
        return self._registered("fairness_gaps")

    def mitigated_cells(self) -> list[Cell]:
        """Return the cells with results of strategies, of registered encoders and configured tasks."""
        return [cell for cell in self._registered("mitigation_results") if self.encoders[cell.encoder].embeds]

    def baselines(self) -> list[str]:
        """Return the names of the models that are audited by their predictions alone, sorted."""
        return sorted(name for name, spec in self.encoders.items() if not spec.embeds)

    def retired(self) -> list[str]:
        """Return the encoders with kept results whose spec is no longer registered, sorted."""
        return sorted({cell.encoder for cell in self._cells("fairness_gaps")} - set(self.encoders))

    def unaudited(self) -> pl.DataFrame:
        """Return the registered encoders and tasks without statistics, and what they lack: a frame of `UNAUDITED`."""
        audited = set(self.audited_cells())
        every = [Cell(name, task) for name in self.encoders for task in self.tasks_of(name)]
        rows = [
            {"encoder": cell.encoder, "task": cell.task, "lacks": self._lacks(cell)}
            for cell in every
            if cell not in audited
        ]
        return UNAUDITED.frame(rows)

    def views_seen(self) -> dict[str, View]:
        """Return the views of the encoders that are run on CT, by key; none if all embeddings were computed elsewhere."""
        return {spec.view.key(): spec.view for spec in self.encoders.values() if spec.sees_images}

    def view_keys(self) -> list[str]:
        """Return the keys of the views to make: `NO_VIEW` if series are read for the facts of their headers only."""
        return sorted(self.views_seen()) or [NO_VIEW]

    def view_versions(self) -> dict[str, str]:
        """Return the version of the slices of every view, by its key: it costs a look at every image file, or at their index."""
        images = self._study_columns(_CT_COLUMNS)
        inputs = (
            self._images_digest(images),
            frame_digest(images),
            asdict(self.workspace.series_rules),
        )
        return {key: digest("ct_slices", SLICES_REVISION, inputs, key) for key in self.view_keys()}

    def _images_digest(self, images: pl.DataFrame) -> str:
        """Return the digest of the images of some studies: of the index of an archive, else of their files as they are."""
        if "study_uid" in images.columns:
            held = self.workspace.image_index.studies().select("study_uid", "digest")
            uids = images.select("study_uid")
            return frame_digest(uids.join(held, on="study_uid", how="left", maintain_order="left"))
        if self.workspace.images_in_bucket:
            studies = self.workspace.bucket_images.find(images.get_column("image_path"))
            return digest(sorted((name, study.digest) for name, study in studies.items()))
        root = self.workspace.images_root
        return files_digest(root, [str(on_disk(root, path)) for path in images.get_column("image_path")])

    def image_list(self) -> str:
        """Return the digest of which studies have which images, and of the rules for series; no image is looked at."""
        return digest(self.studies(*_CT_COLUMNS), asdict(self.workspace.series_rules))

    def view_table(self, views: Mapping[str, str]) -> pl.DataFrame:
        """Return `ct_views`: the version of each view, and in `of_studies` the list of studies and images it is of."""
        seen, listed = self.views_seen(), self.image_list()
        rows = [
            {
                "view": key,
                "version": version,
                "values": seen[key].values if key in seen else "",
                "windows": ",".join(window.name for window in seen[key].channel_windows) if key in seen else "",
                "of_studies": listed,
            }
            for key, version in views.items()
        ]
        return CT_VIEWS.frame(rows)

    def published_views(self) -> dict[str, str]:
        """Return the versions of the published slices by view.

        Raises
        ------
        WarehouseError
            No slices are published.
        """
        return self.once(("views",), self._published_views)

    def slices_version(self, view: View) -> str:
        """Return the version of the published slices of one view.

        Raises
        ------
        WarehouseError
            The slices of this view are not published.
        """
        found = self.published_views().get(view.key())
        if found is None:
            raise WarehouseError(
                "the slices of this encoder's view have not been made yet.",
                where=str(self.workspace.warehouse),
                fix="Materialise ct_slices, or run `fmaudit run`.",
            )
        return found

    def _version(self, table: str, cell: Cell) -> str | None:
        warehouse = self.workspace.warehouse
        path = warehouse.embeddings_path(cell.encoder)
        if table == "study_embeddings" and isinstance(path, Path):
            return embeddings_version(path)
        return self.once(("published",), warehouse.versions)(table, cell)

    def report_files(self) -> Collection[str]:
        """Return the published files of the report."""
        return self.once(("report",), self.workspace.root.report_files)

    def _study_columns(self, columns: tuple[str, ...]) -> pl.DataFrame:
        of_images = any(acquisition_column(name) is not None for name in columns)
        table = self.levelled_study_table if of_images else self.study_table
        return table.select(name for name in columns if name in table.columns)

    def _published_views(self) -> dict[str, str]:
        return dict(self.workspace.warehouse.read("ct_views").select("view", "version").iter_rows())

    def _registered(self, table: str) -> list[Cell]:
        return [cell for cell in self._cells(table) if cell.task in self.tasks_of(cell.encoder)]

    def _cells(self, table: str) -> list[Cell]:
        return self.once(("cells", table), lambda: self.workspace.warehouse.cells(table))

    def _lacks(self, cell: Cell) -> str:
        """How far an encoder came: what it lacks first."""
        if self.version("probe_predictions", cell) is not None:
            return "statistics"
        if not self.encoders[cell.encoder].embeds or self.version("probe_fits", Cell(cell.encoder)) is not None:
            return "scores"
        embedded = self.workspace.warehouse.embeddings_path(cell.encoder).exists()
        return "probes" if embedded else "embeddings"


def snapshot_of(workspace: Workspace) -> Snapshot:
    """Return the workspace as it stands, under the registry as it stands."""
    return Snapshot(workspace, workspace.registry.specs())


def embeddings_version(path: Path) -> str | None:
    """Return the version of a file of embeddings; None if it is missing or torn.

    Raises
    ------
    WarehouseError
        The file is there and cannot be read: taken for missing, hours of encoding would be repeated.
    """
    try:
        file = path.stat()
        return _version_in(path, (file.st_dev, file.st_ino, file.st_ctime_ns, file.st_size))
    except (EncoderError, FileNotFoundError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error


@lru_cache(maxsize=1024)
def _version_in(path: Path, _file: tuple[int, ...]) -> str | None:
    """Return the version in a file, read once for as long as the file is the same: opening a database takes most of a look."""
    return read_provenance(path).get("version")

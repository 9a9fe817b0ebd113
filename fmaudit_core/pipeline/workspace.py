"""One audit on disk: its config, and the paths of its tables. What is stale is `stale_steps.py`'s to say."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from fmaudit_core.cohort.acquisition_levels import check_levels, with_acquisition
from fmaudit_core.cohort.images import on_disk
from fmaudit_core.common.errors import needs_extra
from fmaudit_core.config import (
    Audit,
    ConfigError,
    InspectCohort,
    LocalTableCohort,
    PhantomCohort,
    TableCohort,
    load_audit,
)
from fmaudit_core.ehr.source import Record, record_of
from fmaudit_core.encoders.embeddings_reader import PoolingsInTurn, read_poolings
from fmaudit_core.encoders.pooling import IN_SEQUENCE, OF_SLICES, audited_poolings
from fmaudit_core.encoders.registry import Registry
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.engines.engine import Engine, opened_engine
from fmaudit_core.imaging.archive.index import INDEX_REVISION, ArchiveIndex
from fmaudit_core.imaging.rescale import Rescale
from fmaudit_core.imaging.rules import SeriesPattern, SeriesRules
from fmaudit_core.probes.primary_score_set import PRIMARY_PROBE
from fmaudit_core.probes.selection import Embeddings
from fmaudit_core.probes.training_cap import capped_training
from fmaudit_core.storage.bucket import Bucket
from fmaudit_core.storage.bucket_warehouse import BucketWarehouse
from fmaudit_core.storage.digests import digest
from fmaudit_core.storage.root import BucketRoot, FolderRoot, Root
from fmaudit_core.storage.warehouse import Warehouse

if TYPE_CHECKING:
    from fmaudit_core.imaging.bucket_images import BucketImages
    from fmaudit_core.imaging.slices import SliceStore, StudyImages

#: raised when the phantom is drawn or written in another way
PHANTOM_REVISION = 3
#: thicker slices of INSPECT are quarantined unless the audit says otherwise
INSPECT_MAX_SPACING_MM = 5.0


@dataclass(frozen=True)
class Workspace:
    """An audit.yaml and everything found through it.

    Parameters
    ----------
    audit : Audit
        The config, its paths absolute.
    audit_yaml : Path
        Where it was read from.
    """

    audit: Audit
    audit_yaml: Path

    @property
    def home(self) -> Path:
        """The folder that holds what a run makes on this machine; everything, unless there is a `root`."""
        return self.audit.home

    @cached_property
    def root(self) -> Root:
        """Where the tables, embeddings, claims and the report are: `home`, another folder, or a bucket."""
        if self.audit.bucket is None:
            return FolderRoot(self.home if self.audit.root is None else Path(self.audit.root))
        return BucketRoot(self.bucket(self.audit.bucket), self.home / "reports")

    def bucket(self, address: str) -> Bucket:
        """Return a bucket of the store of this audit."""
        return Bucket(address, self.audit.storage.endpoint, self.audit.storage.region)

    @property
    def warehouse(self) -> Warehouse | BucketWarehouse:
        """Tables and embeddings."""
        return self.root.warehouse

    @cached_property
    def slices(self) -> SliceStore:
        """Slices, one entry per study and view; `repairing_slice_store` also makes torn ones again."""
        with needs_extra("imaging", "reading CT series"):
            from fmaudit_core.imaging.slices import SliceStore
        return SliceStore(self.home / "slices", keep=self.audit.compute.keep_slices == "all")

    def repairing_slice_store(self) -> SliceStore:
        """Return the slice store with its source images, so that it can be built and a torn entry is recomputed on reading."""
        studies = self.warehouse.read("studies")
        images = self.study_images(studies)
        rescales: dict[str, Rescale] = {}
        if "rescale_slope" in studies.columns:
            known = studies.select("study_id", "rescale_slope", "rescale_intercept").drop_nulls()
            rescales = {study: (slope, intercept) for study, slope, intercept in known.iter_rows()}
        named: dict[str, str] = {}
        if "series_uid" in studies.columns:
            named = dict(studies.select("study_id", "series_uid").filter(pl.col("series_uid") != "").iter_rows())
        root = None if self.images_in_bucket else self.images_root
        return replace(self.slices, images=images, rescales=rescales, named=named, images_root=root)

    def opened_engine(self) -> AbstractContextManager[Engine]:
        """Return a context with the engine that reads and encodes slices."""
        return opened_engine(self.audit.compute, home=self.home, workers=self.audit.imaging.workers)

    def study_images(self, studies: pl.DataFrame) -> dict[str, StudyImages]:
        """Return where the CT of each study is: a path, or the study in the index of an archive."""
        if "study_uid" in studies.columns:
            index = self.image_index
            held = index.images_of(index.studies())
            uids = studies.select("study_id", "study_uid").iter_rows()
            return {study: held.get(uid) or index.without_images(uid) for study, uid in uids}
        if self.images_in_bucket:
            images = self.bucket_images
            found = images.find(studies.get_column("image_path"))
            named = studies.select("study_id", "image_path").iter_rows()
            return {study: found.get(path) or images.without_images(path) for study, path in named}
        root, paths = self.images_root, studies.select("study_id", "image_path").iter_rows()
        return {study: on_disk(root, path) for study, path in paths}

    @property
    def series_rules(self) -> SeriesRules:
        """What a series must be beyond readable, and which one is used where a study has several."""
        cohort, imaging = self.audit.cohort, self.audit.imaging
        inspect, usual = isinstance(cohort, InspectCohort), "any" if isinstance(cohort, PhantomCohort) else "chest"
        return SeriesRules(
            min_slices=imaging.min_slices,
            max_spacing_mm=imaging.max_spacing_mm or (INSPECT_MAX_SPACING_MM if inspect else None),
            chest_values=(imaging.values or usual) == "chest",
            require=SeriesPattern(**imaging.series.require.model_dump()),
            prefer=tuple(SeriesPattern(**one.model_dump()) for one in imaging.series.prefer),
        )

    @property
    def registry(self) -> Registry:
        """The encoder specs, read anew each time: a spec may land while a server runs."""
        return Registry(self.audit.encoders)

    @property
    def extraction_folder(self) -> Path:
        """Where unfinished extractions keep their shards."""
        return self.home / "extraction"

    @property
    def reports(self) -> Path:
        """The report's folder on this machine."""
        return self.root.reports

    @property
    def dagster_home(self) -> Path:
        """Dagster's own storage."""
        return self.home / "dagster"

    @property
    def phantom(self) -> Path:
        """The folder the phantom cohort is drawn in: another seed or size is another folder."""
        return self.home / "phantom" / digest(self.audit.cohort, self.audit.tasks, PHANTOM_REVISION)[:12]

    @property
    def table(self) -> LocalTableCohort:
        """The cohort as a table and its images; a phantom is read like anybody's once it is drawn.

        A table in a bucket is that of the copy that `run_cohort` makes; images in a bucket are `bucket_images`.
        """
        cohort = self.audit.cohort
        if isinstance(cohort, TableCohort):
            found = self.table_in_bucket
            copy = None if found is None else self.home / "cohort" / digest(cohort.table)[:12] / found[1]
            images = None if self.images_in_bucket else cohort.images
            return LocalTableCohort.model_construct(
                **{**dict(cohort), "table": copy or cohort.table, "images": images}  # fields as they were validated
            )
        if isinstance(cohort, InspectCohort):
            raise ConfigError("INSPECT is not a single table.", where=str(self.audit_yaml))
        return LocalTableCohort(
            kind="table",
            table=self.phantom / "studies.csv",
            images=self.phantom / "ct",
            events=self.phantom / "ehr_events.parquet",
        )

    @property
    def table_in_bucket(self) -> tuple[Bucket, str] | None:
        """The folder and name of the cohort's table in a bucket; None if it is on this machine."""
        cohort = self.audit.cohort
        if not isinstance(cohort, TableCohort) or isinstance(cohort.table, Path):
            return None
        folder, _, name = cohort.table.rpartition("/")
        return self.bucket(folder), name

    @property
    def images_in_bucket(self) -> bool:
        """Whether the cohort's images are in a bucket."""
        return self._images_bucket is not None

    @property
    def _images_bucket(self) -> Bucket | None:
        cohort = self.audit.cohort
        images = None if isinstance(cohort, PhantomCohort) else cohort.images
        return self.bucket(images) if isinstance(images, str) else None

    @cached_property
    def bucket_images(self) -> BucketImages:
        """The cohort's images in a bucket; they are listed when the cohort is read."""
        from fmaudit_core.imaging.bucket_images import BucketImages

        bucket = self._images_bucket
        if bucket is None:
            raise ConfigError("the CT is not in a bucket.", where=str(self.audit_yaml))
        return BucketImages(bucket, self.home / "index" / digest(bucket.address)[:12], self.home / "scratch")

    @cached_property
    def record(self) -> Record | None:
        """The cohort's medical record; None where it has none, or the audit is of imaging alone."""
        if "ehr" not in self.audit.probes.modalities:
            return None
        cohort = self.audit.cohort
        return record_of(cohort if isinstance(cohort, InspectCohort) else self.table)

    @property
    def images_root(self) -> Path:
        """The folder that the studies' image paths are relative to.

        Raises
        ------
        ConfigError
            The cohort names none, as one may whose encoders' embeddings were all computed elsewhere; or they are in a bucket.
        """
        cohort = self.audit.cohort
        if self.images_in_bucket:
            raise ConfigError("the CT is in a bucket, and a folder is needed.", where=str(self.audit_yaml))
        root = self.table.images if not isinstance(cohort, InspectCohort) else cohort.images or cohort.root
        if not isinstance(root, Path):
            raise ConfigError(
                "the cohort names no CT, and some encoder looks at it.",
                where=str(self.audit_yaml),
                fix="Set `cohort: images:` to the folder of CT series, or keep imported encoders only.",
            )
        return root

    def levelled_studies(self) -> pl.DataFrame:
        """Return the published studies with the levels of every audited attribute, those of the images' headers included.

        Raises
        ------
        WarehouseError
            The studies, or the facts of their images, are not published.
        """
        studies, asked = self.warehouse.read("studies"), self.audit.acquisition_levels
        if not asked:
            return studies
        acquisition, at_least = self.warehouse.read("acquisition"), self.audit.fairness.suppress_under
        return with_acquisition(studies, acquisition, asked, self.audit.acquisition, at_least=at_least)

    def probed_studies(self) -> pl.DataFrame:
        """Return the studies that probes are trained and evaluated on; of the largest cohorts, not all for training."""
        return self.capped(self.warehouse.read("studies"))

    def capped(self, studies: pl.DataFrame) -> pl.DataFrame:
        """Return studies without the training studies beyond `probes: max_training`."""
        return capped_training(studies, self.audit.probes.max_training)

    def audited_studies(self) -> pl.DataFrame:
        """Return `levelled_studies` if every attribute can be compared.

        Raises
        ------
        CohortError
            An attribute of the images has too many levels.
        """
        studies = self.levelled_studies()
        check_levels(studies, self.audit.acquisition_levels)
        return studies

    @property
    def image_index(self) -> ArchiveIndex:
        """The index of the images, where they are an archive in any layout; it is made when the cohort is read."""
        return index_of(self._images_bucket or self.images_root, self.home)

    @property
    def ehr_cache(self) -> Path:
        """Where an archived medical record is unpacked, and what is costly to read of it twice is kept."""
        return self.home / "ehr"

    def embeddings(self, encoder: str) -> Embeddings:
        """Study embeddings of one encoder by pooling, those that are audited; one pooling in memory at a time."""
        return PoolingsInTurn(self.warehouse.embeddings_path(encoder), self.poolings(encoder))

    def poolings(self, encoder: str) -> list[str]:
        """Poolings of one encoder that are audited: those configured, or all it has where it has none of them."""
        there = read_poolings(self.warehouse.embeddings_path(encoder))
        return audited_poolings(there, self.audit.probes.poolings)

    def primary_pooling(self, encoder: str) -> str:
        """Return the encoder's primary pooling: the configured one, or its only one if that is unavailable."""
        there, primary = self.poolings(encoder), self.audit.fairness.primary_pooling
        return primary if primary in there else there[0]

    def network_kinds(self, spec: EncoderSpec) -> list[str]:
        """Probes of one encoder that are networks: those configured and able to read what it gives.

        A control sets a bar, so it is read linearly only. Whole volumes and imported embeddings have no slices, and patches of
        volumes no sequence.
        """
        if spec.control or not spec.embeds:
            return []
        kinds = [kind for kind in self.audit.probes.kinds if kind != PRIMARY_PROBE]
        unable = () if spec.has_slices and not spec.view.of_patches else IN_SEQUENCE if spec.has_slices else OF_SLICES
        return [kind for kind in kinds if kind not in unable]

    def training_device(self) -> str:
        """Where networks are trained: as configured, else on a GPU where torch finds one."""
        if self.audit.extraction.device != "auto":
            return self.audit.extraction.device
        try:
            import torch
        except ModuleNotFoundError:
            return "cpu"  # who needs torch says so
        return "cuda" if torch.cuda.is_available() else "cpu"

    def usable_studies(self, spec: EncoderSpec) -> list[str]:
        """Studies an encoder can embed: those with slices; all of the cohort's where it looks at no CT."""
        if not spec.sees_images:
            return self.warehouse.read("studies").get_column("study_id").to_list()
        return self.warehouse.read("slice_quality").filter("used").get_column("study_id").to_list()


def index_of(images: Path | Bucket, home: Path) -> ArchiveIndex:
    """Return the index of a folder or bucket of images that a workspace keeps; another folder has another index."""
    where = str(images.resolve()) if isinstance(images, Path) else images.address
    return ArchiveIndex(images, home / "index" / digest(where, INDEX_REVISION)[:12], home / "scratch")


def open_workspace(audit_yaml: Path) -> Workspace:
    """Open the workspace of an audit.yaml; nothing is made until a step publishes.

    Raises
    ------
    ConfigError
        The file is missing or wrong.
    """
    return Workspace(audit=load_audit(audit_yaml), audit_yaml=audit_yaml.absolute())

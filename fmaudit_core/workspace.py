"""One audit on disk: its config, and where the rooms keep what they make. What is stale is `plan.py`'s to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from fmaudit_core.config import Audit, ConfigError, InspectCohort, TableCohort, load_audit
from fmaudit_core.ehr.design import Design, designs
from fmaudit_core.ehr.source import Record, record_of
from fmaudit_core.encoders.check import CohortSize
from fmaudit_core.encoders.pooling import OF_SLICES, audited_poolings
from fmaudit_core.encoders.registry import Registry
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.store import read_poolings, read_study_embeddings, read_study_ids
from fmaudit_core.imaging.rescale import Rescale
from fmaudit_core.imaging.rules import SeriesRules
from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.imaging.window import View
from fmaudit_core.lineage import digest
from fmaudit_core.probes.primary import PRIMARY_PROBE, of_primary_probe, of_primary_score_set
from fmaudit_core.probes.selection import Embeddings
from fmaudit_core.vocabulary import THRESHOLD_OF_VALIDATION, family_task
from fmaudit_core.warehouse import PREVIOUS, WHOLE, Cell, Warehouse

#: raised when the phantom is drawn or written in another way
PHANTOM_REVISION = 2
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
        """The folder that holds everything a run makes."""
        return self.audit.home

    @cached_property
    def warehouse(self) -> Warehouse:
        """Tables and embeddings."""
        return Warehouse(self.home / "warehouse")

    @cached_property
    def slices(self) -> SliceStore:
        """Slices, one entry per study and view; `mending_slices` also makes torn ones again."""
        return SliceStore(self.home / "slices")

    def mending_slices(self) -> SliceStore:
        """The slice store with the images it is made of, so that it is built, and a torn entry is made again when it is read."""
        studies = self.warehouse.read("studies")
        images = {
            study: self.images_root / path for study, path in studies.select("study_id", "image_path").iter_rows()
        }
        rescales: dict[str, Rescale] = {}
        if "rescale_slope" in studies.columns:
            known = studies.select("study_id", "rescale_slope", "rescale_intercept").drop_nulls()
            rescales = {study: (slope, intercept) for study, slope, intercept in known.iter_rows()}
        return SliceStore(self.slices.root, images, rescales)

    @property
    def series_rules(self) -> SeriesRules:
        """What a series must be beyond readable: INSPECT's volumes carry no modality and are told by their values."""
        inspect, imaging = isinstance(self.audit.cohort, InspectCohort), self.audit.imaging
        return SeriesRules(
            min_slices=imaging.min_slices,
            max_spacing_mm=imaging.max_spacing_mm or (INSPECT_MAX_SPACING_MM if inspect else None),
            chest_values=inspect,
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
        """The report's folder."""
        return self.home / "reports"

    @property
    def dagster_home(self) -> Path:
        """Dagster's own storage."""
        return self.home / "dagster"

    @property
    def phantom(self) -> Path:
        """The folder the phantom cohort is drawn in: another seed or size is another folder."""
        return self.home / "phantom" / digest(self.audit.cohort, self.audit.tasks, PHANTOM_REVISION)[:12]

    @property
    def table(self) -> TableCohort:
        """The cohort as a table and its images; a phantom is read like anybody's once it is drawn."""
        cohort = self.audit.cohort
        if isinstance(cohort, TableCohort):
            return cohort
        if isinstance(cohort, InspectCohort):
            raise ConfigError("INSPECT is no single table.", where=str(self.audit_yaml))
        return TableCohort(
            kind="table",
            table=self.phantom / "studies.csv",
            images=self.phantom / "ct",
            events=self.phantom / "ehr_events.parquet",
        )

    @cached_property
    def record(self) -> Record | None:
        """The cohort's medical record; None where it has none, or the audit is of imaging alone."""
        if "ehr" not in self.audit.probes.modalities:
            return None
        cohort = self.audit.cohort
        return record_of(cohort if isinstance(cohort, InspectCohort) else self.table)

    def score_tables(self, encoder: str) -> list[tuple[str, Cell]]:
        """Published scores that join those of the logistic probes on CT in an encoder's predictions, as they are configured."""
        tables = []
        if self.record is not None:
            tables.append(("ehr_fits", WHOLE))
            if "ct+ehr" in self.audit.probes.modalities:
                tables.append(("fusion_fits", Cell(encoder)))
        if self.network_kinds(self.registry.spec(encoder)):
            tables.append(("neural_fits", Cell(encoder)))
        return tables

    def designs(self) -> dict[str, Design]:
        """The matrices that probes take of the published features of the medical record, by cutoff."""
        settings = self.audit.ehr
        return designs(
            *(self.warehouse.read(name) for name in ("ehr_features", "ehr_rows", "ehr_vocabulary")),
            windows_days=settings.windows_days,
            most=settings.max_columns,
        )

    @property
    def images_root(self) -> Path:
        """The folder that the studies' image paths are relative to.

        Raises
        ------
        ConfigError
            The cohort names none, as one may whose encoders' embeddings were all computed elsewhere.
        """
        cohort = self.audit.cohort
        root = cohort.images or cohort.root if isinstance(cohort, InspectCohort) else self.table.images
        if root is None:
            raise ConfigError(
                "the cohort names no CT, and some encoder looks at it.",
                where=str(self.audit_yaml),
                fix="Set `cohort: images:` to the folder of CT series, or keep imported encoders only.",
            )
        return root

    @property
    def ehr_cache(self) -> Path:
        """Where an archived medical record is unpacked, and what is costly to read of it twice is kept."""
        return self.home / "ehr"

    def embeddings(self, encoder: str) -> Embeddings:
        """Study embeddings of one encoder by pooling, those that are audited."""
        path = self.warehouse.embeddings_path(encoder)
        return {pooling: read_study_embeddings(path, pooling) for pooling in self.poolings(encoder)}

    def poolings(self, encoder: str) -> list[str]:
        """Poolings of one encoder that are audited: those configured, or all it has where it has none of them."""
        there = read_poolings(self.warehouse.embeddings_path(encoder))
        return audited_poolings(there, self.audit.probes.poolings)

    def primary_pooling(self, encoder: str) -> str:
        """The pooling that speaks for an encoder: the audit's primary one, its own where it has none of that."""
        there, primary = self.poolings(encoder), self.audit.fairness.primary_pooling
        return primary if primary in there else there[0]

    def network_kinds(self, spec: EncoderSpec) -> list[str]:
        """Probes of one encoder that are networks: those configured and able to read what it gives.

        A control sets a bar, so it is read linearly only. Whole volumes and imported embeddings have no slices.
        """
        if spec.control or not spec.embeds:
            return []
        kinds = [kind for kind in self.audit.probes.kinds if kind != PRIMARY_PROBE]
        return [kind for kind in kinds if kind not in OF_SLICES or spec.has_slices]

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

    def predictions(self, cells: Sequence[Cell]) -> pl.DataFrame:
        """Scores of some cells with the attributes of their studies, as `fairness.assess` takes them."""
        attributes = self.warehouse.read("studies").select("study_id", *self.audit.attributes)
        scores = self.warehouse.read_cells("probe_predictions", cells)
        # all thresholds of an audit are chosen on validation
        sources = scores.with_columns(
            threshold_source=pl.when(pl.col("threshold").is_not_null()).then(pl.lit(THRESHOLD_OF_VALIDATION))
        )
        return sources.join(attributes, on="study_id", how="left", maintain_order="left")

    def confirmatory_predictions(self, cells: Sequence[Cell], encoders: Mapping[str, EncoderSpec]) -> pl.DataFrame:
        """Scores of the declared family, maybe none: its task, probe and pooling, encoders that are no controls or baselines."""
        task = family_task(self.audit.tasks)
        declared = {name for name, spec in encoders.items() if spec.embeds and not spec.control}
        family = [cell for cell in cells if cell.task == task and cell.encoder in declared]
        if not family:
            return pl.DataFrame()
        return of_primary_score_set(self.predictions(family), self.audit.fairness.primary_pooling)

    def compared_predictions(self, cells: Sequence[Cell]) -> pl.DataFrame:
        """Test scores of the primary probe and pooling: what encoders are compared by, two and two."""
        test = self.predictions(cells).filter(pl.col("split") == "test")
        return of_primary_score_set(test, self.audit.fairness.primary_pooling)

    def modality_predictions(self, cells: Sequence[Cell]) -> pl.DataFrame:
        """Test scores that tell what each modality adds: all on the record, and of CT those that the findings speak of."""
        test = self.warehouse.read_cells("probe_predictions", cells).filter(pl.col("split") == "test")
        with_record = test.filter(pl.col("modality").str.contains("ehr"))
        on_ct = of_primary_score_set(test, self.audit.fairness.primary_pooling)
        return pl.concat([on_ct, with_record])

    def previous_predictions(self, cells: Sequence[Cell]) -> pl.DataFrame:
        """Test scores of the primary probe and pooling from the audit before that of each cell; empty where there was none."""
        primary = self.audit.fairness.primary_pooling
        frames = [self.warehouse.read(PREVIOUS, cell) for cell in cells if self.warehouse.version(PREVIOUS, cell)]
        if not frames:
            return pl.DataFrame(schema=self.warehouse.read("probe_predictions", cells[0]).schema)
        before = pl.concat(frames, how="diagonal_relaxed").filter(pl.col("split") == "test")
        return of_primary_score_set(before, primary)

    def cohort_size(self, view: View) -> CohortSize | None:
        """Studies and slices, or volumes, an encoder with that view has to embed, as far as they are known."""
        warehouse = self.warehouse
        if warehouse.version("slice_quality") is not None:
            used = warehouse.read("slice_quality").filter(pl.col("used")).get_column("n_slices")
            return CohortSize(len(used), len(used) if view.volume else sum(len(view.chosen(n)) for n in used))
        if warehouse.version("studies") is not None:
            n_studies = warehouse.read("studies").height
            return CohortSize(n_studies, n_studies if view.volume else None)
        return None

    def unscored(self, cell: Cell) -> int:
        """Studies of val and test with a known label that lack a finite score in some score set that should have them.

        Those are the embedded studies; of score sets that read the medical record, the ones that have a time. What a baseline
        does not score is told in `baseline_joins`; of it only scores that are not finite count.
        """
        warehouse = self.warehouse
        spec = self.registry.specs().get(cell.encoder)
        if spec is not None and not spec.embeds:
            return warehouse.read("probe_predictions", cell).filter(~pl.col("y_score").is_finite()).height
        embedded = read_study_ids(warehouse.embeddings_path(cell.encoder))
        known = warehouse.read("labels").filter((pl.col("task") == cell.task) & pl.col("label").is_not_null())
        audited = warehouse.read("studies").filter(pl.col("split") != "train")
        expected = known.filter(pl.col("study_id").is_in(embedded)).join(audited, on="study_id", how="semi")
        finite = warehouse.read("probe_predictions", cell).filter(pl.col("y_score").is_finite())
        lacking = sum(
            expected.join(of_primary_probe(finite).filter(pooling=pooling), on="study_id", how="anti").height
            for pooling in self.poolings(cell.encoder)
        )
        for table, of in self.score_tables(cell.encoder):
            of_task = warehouse.read(table, of).filter(task=cell.task)
            for (probe, modality), _ in of_task.group_by("probe", "modality", maintain_order=True):
                scored = finite.filter((pl.col("probe") == probe) & (pl.col("modality") == modality))
                whom = expected
                if "ehr" in str(modality):
                    whom = expected.join(warehouse.read("ehr_rows"), on="study_id", how="semi")
                lacking += whom.join(scored, on="study_id", how="anti").height
        return lacking


def open_workspace(audit_yaml: Path) -> Workspace:
    """Open the workspace of an audit.yaml; nothing is made until a step publishes.

    Raises
    ------
    ConfigError
        The file is missing or wrong.
    """
    return Workspace(audit=load_audit(audit_yaml), audit_yaml=audit_yaml.absolute())

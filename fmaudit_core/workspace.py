"""One audit on disk: its config, and where the rooms keep what they make. What is stale is `plan.py`'s to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from fmaudit_core.config import Audit, TableCohort, load_audit
from fmaudit_core.encoders.registry import Registry
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.store import read_study_embeddings, read_study_ids
from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.lineage import digest
from fmaudit_core.probes.selection import Embeddings
from fmaudit_core.vocabulary import family_task
from fmaudit_core.warehouse import PREVIOUS, Cell, Warehouse


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
        """The slice store with the images it is made of, so that a torn entry is made again when it is read."""
        paths = self.warehouse.read("studies").select("study_id", "image_path").iter_rows()
        return SliceStore(self.slices.root, {study: self.table.images / path for study, path in paths})

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
        return self.home / "phantom" / digest(self.audit.cohort, self.audit.tasks)[:12]

    @property
    def table(self) -> TableCohort:
        """The cohort as a table and its images; a phantom is read like anybody's once it is drawn."""
        cohort = self.audit.cohort
        if isinstance(cohort, TableCohort):
            return cohort
        return TableCohort(kind="table", table=self.phantom / "studies.csv", images=self.phantom / "ct")

    def embeddings(self, encoder: str) -> Embeddings:
        """Study embeddings of one encoder by pooling."""
        path = self.warehouse.embeddings_path(encoder)
        return {pooling: read_study_embeddings(path, pooling) for pooling in self.audit.probes.poolings}

    def predictions(self, cells: Sequence[Cell]) -> pl.DataFrame:
        """Scores of some cells with the attributes of their studies, as `fairness.assess` takes them."""
        attributes = self.warehouse.read("studies").select("study_id", *self.audit.attributes)
        return self.warehouse.read_cells("probe_predictions", cells).join(
            attributes, on="study_id", how="left", maintain_order="left"
        )

    def confirmatory_predictions(self, cells: Sequence[Cell], encoders: Mapping[str, EncoderSpec]) -> pl.DataFrame:
        """Scores of the declared family: its task and pooling, encoders that are no controls; may be empty."""
        task = family_task(self.audit.tasks)
        family = [cell for cell in cells if cell.task == task and not encoders[cell.encoder].control]
        if not family:
            return pl.DataFrame()
        return self.predictions(family).filter(pl.col("pooling") == self.audit.fairness.primary_pooling)

    def compared_predictions(self, cells: Sequence[Cell]) -> pl.DataFrame:
        """Test scores of the primary pooling: what encoders are compared by, two and two."""
        primary = self.audit.fairness.primary_pooling
        return self.predictions(cells).filter((pl.col("pooling") == primary) & (pl.col("split") == "test"))

    def previous_predictions(self, cells: Sequence[Cell]) -> pl.DataFrame:
        """Test scores of the primary pooling that some cells had in the audit before theirs; empty where there was none."""
        primary = self.audit.fairness.primary_pooling
        frames = [self.warehouse.read(PREVIOUS, cell) for cell in cells if self.warehouse.version(PREVIOUS, cell)]
        if not frames:
            return pl.DataFrame(schema=self.warehouse.read("probe_predictions", cells[0]).schema)
        before = pl.concat(frames, how="diagonal_relaxed")
        return before.filter((pl.col("pooling") == primary) & (pl.col("split") == "test"))

    def unscored(self, cell: Cell) -> int:
        """Embedded studies of val and test with a known label that lack a finite score in some score set."""
        warehouse = self.warehouse
        scores = warehouse.read("probe_predictions", cell)
        embedded = read_study_ids(warehouse.embeddings_path(cell.encoder))
        known = warehouse.read("labels").filter((pl.col("task") == cell.task) & pl.col("label").is_not_null())
        audited = warehouse.read("studies").filter(pl.col("split") != "train")
        expected = known.filter(pl.col("study_id").is_in(embedded)).join(audited, on="study_id", how="semi")
        finite = scores.filter(pl.col("y_score").is_finite())
        return sum(
            expected.join(finite.filter(pl.col("pooling") == pooling), on="study_id", how="anti").height
            for pooling in self.audit.probes.poolings
        )


def open_workspace(audit_yaml: Path) -> Workspace:
    """Open the workspace of an audit.yaml; nothing is made until a step publishes.

    Raises
    ------
    ConfigError
        The file is missing or wrong.
    """
    return Workspace(audit=load_audit(audit_yaml), audit_yaml=audit_yaml.absolute())

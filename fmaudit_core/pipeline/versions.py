"""What each asset should be made of, as one digest: from the settings, and from what its inputs recorded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from fmaudit_core.cohort.schema import Cohort
from fmaudit_core.config.published import public_config
from fmaudit_core.encoders.embeddings_reader import read_provenance
from fmaudit_core.encoders.errors import EncoderError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.window import View
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.probes.baseline import JOINED_BY
from fmaudit_core.storage.digests import digest, files_digest, frame_digest, step_version
from fmaudit_core.storage.warehouse import PREVIOUS, WHOLE, Cell, WarehouseError
from fmaudit_core.tables.findings import UNAUDITED

COHORT_TABLES = ("studies", "labels", "cohort_flow", "label_flow", "cohort_notes")
FAIRNESS_TABLES = (
    "subgroup_metrics",
    "fairness_gaps",
    "threshold_sweep",
    "subgroup_calibration",
    "calibration_tests",
    "cross_group_auroc",
    "intersections",
    "score_warnings",
)

#: tables of mitigation that the report shows: of an encoder and task, of an encoder, of all together
MITIGATION_BY_CELL = ("mitigation_results", "mitigation_subgroups")
MITIGATION_BY_ENCODER = ("mitigation_leakage", "demographic_probes")
MITIGATION_WHOLE = ("mitigation_capacity", "mitigation_interactions", "mitigation_ladder")
#: whole tables that the report shows beside the findings
_SHOWN_WHOLE = ("studies", "cohort_flow", "label_flow", "cohort_notes", "slice_quality")


#: what of a study decides on its slices
_CT_COLUMNS = ("study_id", "image_path", "rescale_slope", "rescale_intercept")


def view_version(workspace: Workspace, view: View) -> str:
    """Version of the slices one view holds: what every encoder with that view is made of.

    Raises
    ------
    WarehouseError
        The slices of this view have not been made yet.
    """
    views = workspace.warehouse.read("ct_views")
    versions = views.filter(pl.col("view") == view.key()).get_column("version")
    if versions.is_empty():
        raise WarehouseError(
            "the slices of this encoder's view have not been made yet.",
            where=str(workspace.warehouse.root),
            fix="Materialise ct_slices, or run `fmaudit run`.",
        )
    return str(versions.item())


@dataclass(frozen=True)
class Versions:
    """Expected version of each asset, from the settings and from what its inputs recorded.

    Parameters
    ----------
    workspace : Workspace
    encoders : mapping of name to EncoderSpec
        The registry as it stands.
    """

    workspace: Workspace
    encoders: Mapping[str, EncoderSpec]

    def cohort(self, cohort: Cohort) -> dict[str, str]:
        """Versions of the cohort's tables: their content."""
        return {name: step_version(name, frame_digest(frame)) for name, frame in cohort.tables().items()}

    def views(self, studies: pl.DataFrame) -> dict[str, str]:
        """Versions of the slices of every view some encoder sees, by view key."""
        images = studies.select(name for name in _CT_COLUMNS if name in studies.columns)
        made_of = (
            files_digest(self.workspace.images_root, images.get_column("image_path").to_list()),
            frame_digest(images),
            asdict(self.workspace.series_rules),
        )
        return {key: step_version("ct_slices", made_of, key) for key in sorted(self.views_seen())}

    def views_seen(self) -> dict[str, View]:
        """Views of the encoders that are run on CT, by key; empty where all embeddings were computed elsewhere."""
        return {spec.view.key(): spec.view for spec in self.encoders.values() if spec.sees_images}

    def view_table(self, views: Mapping[str, str], studies: pl.DataFrame) -> pl.DataFrame:
        """`ct_views`, of the versions `views` gives: an encoder reads the version of its own view.

        `of_studies` tells which list of studies and images it was, without a look at any image.
        """
        seen = self.views_seen()
        listed = self.listed(studies)
        rows = [
            {
                "view": key,
                "version": version,
                "values": seen[key].values,
                "windows": ",".join(seen[key].windows),
                "of_studies": listed,
            }
            for key, version in views.items()
        ]
        return pl.DataFrame(
            rows, schema=dict.fromkeys(("view", "version", "values", "windows", "of_studies"), pl.String)
        )

    def listed(self, studies: pl.DataFrame) -> str:
        """Digest of which studies have which images, and of what is asked of a series."""
        images = studies.select(name for name in _CT_COLUMNS if name in studies.columns)
        return digest(frame_digest(images), asdict(self.workspace.series_rules))

    def ct_slices(self, views: Mapping[str, str]) -> str:
        """Version of the slice store as a whole, of the versions `views` gives: they cost a look at every image file."""
        return step_version("ct_slices", views)

    def study_embeddings(self, encoder: str) -> str:
        """Version of one encoder's embeddings: its weights and input, and the slices of its view.

        Embeddings computed elsewhere are made of their file and of which studies there are, whatever their CT.
        """
        spec = self.encoders[encoder]
        if not spec.sees_images:
            return step_version("study_embeddings", spec.digest(), self._studies("study_id"))
        return step_version("study_embeddings", spec.digest(), view_version(self.workspace, spec.view))

    def probe_fits(self, encoder: str, *, embeddings: str | None = None) -> str:
        """Version of one encoder's fitted probes, on the published embeddings or on those of a version to come."""
        warehouse, settings = self.workspace.warehouse, self.workspace.audit.probes
        return step_version(
            "probe_fits",
            embeddings or embeddings_version(warehouse.embeddings_path(encoder)),
            self._studies("study_id", "patient_id", "split"),
            warehouse.version("labels"),
            self.workspace.audit.tasks,
            settings.model_dump(include={"c_grid", "poolings"}),
        )

    def ehr_features(self) -> str:
        """Version of the features of the medical record, of which there must be one."""
        record, settings = self.workspace.record, self.workspace.audit.ehr
        # which of its two pasts a task may know is asked when probes are fitted
        made_of = settings.model_dump(exclude={"day_before", "max_columns", "leaves", "max_trees"})
        return step_version(
            "ehr_features",
            None if record is None else record.fingerprint(),
            self._studies("study_id", "patient_id", "split", "time", "time_source"),
            made_of,
        )

    def ehr_fits(self) -> str:
        """Version of the probes on the medical record."""
        warehouse, audit = self.workspace.warehouse, self.workspace.audit
        return step_version(
            "ehr_fits",
            warehouse.version("ehr_features"),
            self._studies("study_id", "patient_id", "split"),
            warehouse.version("labels"),
            audit.tasks,
            audit.probes.c_grid,
            audit.ehr,
        )

    def fusion_fits(self, encoder: str) -> str:
        """Version of one encoder's fusions with the medical record."""
        warehouse, audit = self.workspace.warehouse, self.workspace.audit
        return step_version(
            "fusion_fits",
            warehouse.version("probe_fits", Cell(encoder)),
            warehouse.version("ehr_fits"),
            audit.fairness.primary_pooling,
        )

    def network_kinds(self, encoder: str) -> list[str]:
        """Probes of one encoder that are networks: those configured and able to read what it gives; none of a control."""
        return self.workspace.network_kinds(self.encoders[encoder])

    def neural_fits(self, encoder: str) -> str:
        """Version of one encoder's probes that are networks."""
        warehouse, audit = self.workspace.warehouse, self.workspace.audit
        embedded = embeddings_version(warehouse.embeddings_path(encoder))
        return step_version(
            "neural_fits",
            embedded,
            self._studies("study_id", "patient_id", "split"),
            warehouse.version("labels"),
            audit.tasks,
            self.network_kinds(encoder),
            audit.probes.networks,
            embedded and self.workspace.primary_pooling(encoder),
            audit.fairness.seed,
        )

    def probe_predictions(self, cell: Cell) -> str:
        """Version of one encoder's scores for one task: of its probes on CT, and of every table of scores that joins them; of a
        baseline's: its file, and the cohort it is joined to.
        """
        spec, warehouse = self.encoders[cell.encoder], self.workspace.warehouse
        if not spec.embeds:
            studies = warehouse.read("studies")
            joined = frame_digest(studies.select(name for name in JOINED_BY if name in studies.columns))
            file, labels = spec.predictions_of(cell.task).sha256, warehouse.version("labels")
            return step_version("probe_predictions", file, cell.task, joined, labels, self._policy())
        fits = warehouse.version("probe_fits", Cell(cell.encoder))
        further = {
            table: warehouse.version(table, of) for table, of in queries.score_tables(self.workspace, cell.encoder)
        }
        return step_version("probe_predictions", fits, further, cell.task, self._policy())

    def fairness(self, cell: Cell) -> str:
        """Version of one cell's subgroup statistics."""
        audit = self.workspace.audit
        return step_version(
            "fairness",
            self.probe_predictions(cell),
            self._studies("study_id", *audit.attributes),
            audit.attributes,
            audit.fairness,
        )

    def demographic_probes(self, encoder: str) -> str:
        """Version of what one encoder's embeddings tell of every attribute."""
        audit = self.workspace.audit
        return step_version("demographic_probes", *self._mitigated(encoder), audit.mitigation.control_shuffles)

    def mitigation_scores(self, encoder: str) -> str:
        """Version of every strategy's scores of one encoder."""
        settings = self.workspace.audit.mitigation
        trained = settings.model_dump(
            exclude={"enabled", "n_bootstrap", "control_shuffles", "ladder_from", "ladder_encoder"}
        )
        return step_version("mitigation_scores", *self._mitigated(encoder), self._policy(), trained)

    def mitigation_results(self, cell: Cell) -> str:
        """Version of what the strategies did for one encoder and task."""
        audit, warehouse = self.workspace.audit, self.workspace.warehouse
        return step_version(
            "mitigation_results",
            warehouse.version("mitigation_scores", Cell(cell.encoder)),
            self._studies("study_id", *audit.attributes),
            audit.attributes,
            audit.fairness,
            audit.mitigation.n_bootstrap,
        )

    def mitigation_capacity(self) -> str:
        """Version of the comparison of encoders: every cell's results, and the embeddings of the ladder's."""
        audit, warehouse = self.workspace.audit, self.workspace.warehouse
        cells = self.mitigated_cells()
        names = sorted({cell.encoder for cell in cells})
        return step_version(
            "mitigation_capacity",
            {str(cell): warehouse.version("mitigation_results", cell) for cell in cells},
            {name: warehouse.version("demographic_probes", Cell(name)) for name in names},
            {name: (self.encoders[name].dim, self.encoders[name].control) for name in names},
            audit.fairness,
            audit.mitigation,
        )

    def mitigated_cells(self) -> list[Cell]:
        """Cells with published results of strategies, of encoders that are registered and tasks that are configured."""
        return [cell for cell in self._registered("mitigation_results") if self.encoders[cell.encoder].embeds]

    def audit_findings(self, *, pending: Collection[str] = ()) -> str:
        """Version of the findings: every fairness cell that exists for a registered encoder, and the audit before it.

        Parameters
        ----------
        pending : collection of str
            Encoders to take for not registered yet.
        """
        audit, warehouse = self.workspace.audit, self.workspace.warehouse
        cells = {str(cell): warehouse.version("fairness_gaps", cell) for cell in self.audited_cells()}
        before = {str(cell): warehouse.version(PREVIOUS, cell) for cell in self.audited_cells()}
        encoders = sorted(
            (name, spec.control, spec.label) for name, spec in self.encoders.items() if name not in pending
        )
        return step_version("audit_findings", cells, before, encoders, self.baselines(), audit.fairness, audit.reaudit)

    def audit_report(self, *, findings: str | None = None) -> str:
        """Version of the report: the findings, published or to come, and everything the page shows beside them."""
        warehouse = self.workspace.warehouse
        named = ("audit_findings", "model_comparisons", "modality_comparisons")
        of_findings = [findings or warehouse.version(name) for name in named]
        cells = {
            f"{name} {cell}": warehouse.version(name, cell) for cell in self.audited_cells() for name in FAIRNESS_TABLES
        }
        encoders = {
            name: (
                spec.digest(), spec.label, spec.licence, spec.source, spec.control,
                embeddings_version(warehouse.embeddings_path(name)),
            )
            for name, spec in self.encoders.items()
        }  # fmt: skip
        shown = [*of_findings, *(warehouse.version(name) for name in _SHOWN_WHOLE)]
        beside = self._shown_mitigation()
        return step_version("audit_report", shown, cells, beside, encoders, public_config(self.workspace.audit))

    def _shown_mitigation(self) -> dict[str, str | None]:
        """Versions of the tables of mitigation that the report shows; none where it is left out."""
        if not self.workspace.audit.mitigation.enabled:
            return {}
        cells = self.mitigated_cells()
        encoders = [Cell(name) for name in sorted({cell.encoder for cell in cells})]
        asked = [(name, cell) for name in MITIGATION_BY_CELL for cell in cells]
        asked += [(name, cell) for name in MITIGATION_BY_ENCODER for cell in encoders]
        asked += [(name, WHOLE) for name in MITIGATION_WHOLE if cells]
        return {f"{name} {cell}": self.workspace.warehouse.version(name, cell) for name, cell in asked}

    def audited_cells(self) -> list[Cell]:
        """Cells with published statistics of encoders that are registered, and of tasks that are configured."""
        return self._registered("fairness_gaps")

    def _registered(self, table: str) -> list[Cell]:
        return [cell for cell in self.workspace.warehouse.cells(table) if cell.task in self.tasks_of(cell.encoder)]

    def tasks_of(self, encoder: str) -> list[str]:
        """Of the audit's tasks those an encoder can be audited on; none where it is not registered."""
        spec = self.encoders.get(encoder)
        return spec.tasks_of(self.workspace.audit.tasks) if spec else []

    def baselines(self) -> list[str]:
        """Names of the models that are audited by their predictions alone, sorted."""
        return sorted(name for name, spec in self.encoders.items() if not spec.embeds)

    def unaudited(self) -> pl.DataFrame:
        """Registered encoders and tasks without statistics, and how far they came: a frame of `UNAUDITED`."""
        there, warehouse = set(self.audited_cells()), self.workspace.warehouse
        rows = []
        for name, spec in self.encoders.items():
            embedded = not spec.embeds or warehouse.embeddings_path(name).exists()
            fitted = spec.embeds and warehouse.version("probe_fits", Cell(name)) is not None
            first = "scores" if not spec.embeds else "probes" if embedded else "embeddings"
            for task in self.tasks_of(name):
                if Cell(name, task) not in there:
                    scored = warehouse.version("probe_predictions", Cell(name, task)) is not None
                    stage = "statistics" if scored else "scores" if fitted else first
                    rows.append({"encoder": name, "task": task, "lacks": stage})
        return UNAUDITED.frame(rows)

    def retired(self) -> list[str]:
        """Encoders with kept results whose spec is no longer in the registry, sorted."""
        return sorted({cell.encoder for cell in self.workspace.warehouse.cells("fairness_gaps")} - set(self.encoders))

    def _policy(self) -> tuple[object, ...]:
        """What chooses a threshold."""
        settings = self.workspace.audit.fairness
        return settings.threshold_policy, settings.fixed_fpr, settings.fixed_sensitivity

    def _mitigated(self, encoder: str) -> tuple[object, ...]:
        """What demographic probes and strategies of an encoder are made of."""
        audit, warehouse = self.workspace.audit, self.workspace.warehouse
        small = (audit.fairness.suppress_under, audit.fairness.test_from, audit.fairness.auroc_margin)
        return (
            warehouse.version("probe_fits", Cell(encoder)),
            self._studies("study_id", *audit.attributes),
            audit.attributes,
            audit.fairness.primary_pooling,
            audit.fairness.seed,
            audit.fairness.confidence,
            small,
        )

    def _studies(self, *columns: str) -> str:
        """Digest of some columns of the study table: another age leaves the probes alone."""
        studies = self.workspace.warehouse.read("studies")
        return frame_digest(studies.select(name for name in columns if name in studies.columns))


def embeddings_version(path: Path) -> str | None:
    """Return the version of a published file of embeddings; None if it is missing or torn.

    Raises
    ------
    WarehouseError
        It is there and cannot be read: taken for missing, hours of encoding would be repeated.
    """
    try:
        return read_provenance(path).get("version")
    except EncoderError:
        return None

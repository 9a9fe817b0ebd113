"""The steps of an audit, each declared once: its tables, partitions, inputs and settings.

The order, versions (`versions.py`), what is stale and what is next (`stale_steps.py`), the assets of Dagster, and the table of
steps in the documentation are all derived from `STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from fmaudit_core.common.vocabulary import ACQUISITION
from fmaudit_core.pipeline import facts
from fmaudit_core.pipeline.snapshot import SLICES_REVISION, Snapshot
from fmaudit_core.storage.report_layout import PAGE
from fmaudit_core.storage.warehouse import WHOLE, Cell


class By(StrEnum):
    """How a step is partitioned."""

    WHOLE = "-"
    ENCODER = "encoder"
    ENCODER_TASK = "encoder x task"

    def cell(self, cell: Cell) -> Cell:
        """Return the cell of this partitioning that a finer cell belongs to."""
        return {By.WHOLE: WHOLE, By.ENCODER: Cell(cell.encoder), By.ENCODER_TASK: cell}[self]


@dataclass(frozen=True)
class Columns:
    """The studies as an input of which only some columns matter."""

    names: tuple[str, ...]
    #: whether the columns of the audited attributes belong to them, and those of the covariates
    attributes: bool = False
    covariates: bool = False


@dataclass(frozen=True)
class Settings:
    """A section of audit.yaml as an input, without some of its keys."""

    section: str
    without: tuple[str, ...]


#: steps that read slices: one encoder at a time on one GPU, and in the memory of one machine
GPU: Final = "gpu"
#: steps that read the cohort's own files
SOURCES: Final = "sources"
#: whatever else decides what a step makes
Fact = Callable[[Snapshot, Cell], Sequence[object]]
#: whether a step has something to make for a cell
Condition = Callable[[Snapshot, Cell], bool]


def _always(_: Snapshot, __: Cell) -> bool:
    return True


@dataclass(frozen=True)
class Step:
    """A step of the audit.

    Parameters
    ----------
    name : str
    group : str
        The group of its assets in the UI.
    by : By
    inputs : tuple
        Names of steps, of tables of theirs that alone matter, or columns of the studies.
    after : tuple of str
        Inputs of which only what the facts tell matters.
    tables : tuple of str
        Every table it publishes; the first is published last, and a cell without it does not count as published.
        By default the one of its name.
    assets : tuple of str
        Its assets in Dagster; by default the one of its name.
    settings : tuple
        Keys of audit.yaml, dotted, that decide what it makes.
    facts : tuple of Fact
    when : Condition
    revision : int
        Raised by one when the step would make other rows of the same inputs.
    optional : tuple of str
        Inputs that it is made without where they could not be made; every other failed input keeps it from being made.
    long : bool
        Whether it may take hours: what gathers all cells does not wait for it.
    with_input : str
        An input in whose run it is made, where both are stale.
    last : bool
        Whether it waits until nothing else is left to make, unless it is made with its input.
    sources : bool
        Whether it reads files that are not published by a step.
    pool : str
        `GPU` or `SOURCES`: steps of one pool run one at a time; empty if it runs alongside any other.
    gpu : bool
        Whether a GPU makes it faster.
    files : tuple of str
        Files of the report that must be there.
    of_baselines, of_encoders : tuple of str
        Inputs and tables that only a baseline has, or only an encoder with embeddings.
    """

    name: str
    group: str
    by: By = By.WHOLE
    inputs: tuple[str | Columns, ...] = ()
    after: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()
    settings: tuple[str | Settings, ...] = ()
    facts: tuple[Fact, ...] = ()
    when: Condition = _always
    revision: int = 1
    optional: tuple[str, ...] = ()
    long: bool = False
    with_input: str = ""
    last: bool = False
    sources: bool = False
    pool: str = ""
    gpu: bool = False
    files: tuple[str, ...] = ()
    of_baselines: tuple[str, ...] = ()
    of_encoders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Fill in the defaults that follow from the name."""
        object.__setattr__(self, "assets", self.assets or (self.name,))
        object.__setattr__(self, "tables", self.tables or (self.name,))

    @cached_property
    def input_steps(self) -> dict[str, Step]:
        """Return the step behind every input, by the name of the input; attributes may be read from headers of images."""
        headers = [ACQUISITION for one in self.inputs if isinstance(one, Columns) and one.attributes]
        return {name: step_of(name) for name in (*map(input_name, self.inputs), *headers, *self.after)}

    @cached_property
    def input_assets(self) -> list[str]:
        """Return the assets it reads."""
        found: set[str] = set()
        for name, step in self.input_steps.items():
            found.update([name] if name in step.assets else step.assets)
        return sorted(found)

    @cached_property
    def ancestors(self) -> frozenset[str]:
        """Return the names of the steps that it is made from, directly or not."""
        return frozenset(name for one in self.input_steps.values() for name in (one.name, *one.ancestors))

    @property
    def gathers(self) -> bool:
        """Return whether it reads the cells of all encoders at once."""
        return any(one.by != By.WHOLE for one in self.input_steps.values()) and self.by == By.WHOLE

    def asset_of(self, table: str) -> str | None:
        """Return the asset whose recorded version a table must have; None for a table that is published with others."""
        if table in self.assets:
            return table
        return self.assets[0] if table == self.tables[0] else None

    def absent(self, look: Snapshot, cell: Cell) -> tuple[str, ...]:
        """Return the inputs and tables that it does not have for one cell."""
        spec = look.encoders.get(cell.encoder)
        return self.of_baselines if spec is None or spec.embeds else self.of_encoders

    def tables_of(self, look: Snapshot, cell: Cell) -> tuple[str, ...]:
        """Return the tables that it publishes for one cell."""
        absent = self.absent(look, cell)
        return tuple(name for name in self.tables if name not in absent)

    def cells(self, look: Snapshot, encoders: Iterable[str], tasks: Sequence[str]) -> list[Cell]:
        """Return the cells of some encoders and tasks for which there is something to make."""
        if self.by == By.WHOLE:
            found = [WHOLE]
        elif self.by == By.ENCODER:
            found = [Cell(name) for name in encoders]
        else:
            found = [Cell(name, task) for name in encoders for task in look.encoders[name].tasks_of(tasks)]
        return [cell for cell in found if self.when(look, cell)]


def input_name(one: str | Columns) -> str:
    """Return the name of the step or table behind an input."""
    return "studies" if isinstance(one, Columns) else one


def step_of(name: str) -> Step:
    """Return the step of a name, or the one that publishes a table of that name."""
    return next(step for step in STEPS if name == step.name or name in step.tables)


_PATIENTS: Final = Columns(("study_id", "patient_id", "split"))
_SUBGROUPS: Final = Columns(("study_id",), attributes=True)
_COVARIATES: Final = Columns(("study_id",), attributes=True, covariates=True)
#: what chooses a threshold
_POLICY: Final = ("fairness.threshold_policy", "fairness.fixed_fpr", "fairness.fixed_sensitivity")
_SMALL: Final = (
    "attributes", "fairness.primary_pooling", "fairness.seed", "fairness.confidence", "fairness.suppress_under",
    "fairness.test_from", "fairness.auroc_margin",
)  # fmt: skip
_TRAINED: Final = Columns(("study_id", "patient_id", "split"), attributes=True)
_EXPLORED: Final = (
    "fairness.primary_pooling", "fairness.seed", "fairness.confidence", "fairness.suppress_under", "fairness.test_from",
)  # fmt: skip
#: scores in addition to those of the logistic probes on CT, which do not wait for them if they fail
FURTHER_FITS: Final = ("ehr_fits", "fusion_fits", "neural_fits")
COHORT_TABLES: Final = ("studies", "labels", "cohort_flow", "label_flow", "cohort_notes")
FAIRNESS_TABLES: Final = (
    "subgroup_metrics",
    "fairness_gaps",
    "threshold_sweep",
    "subgroup_calibration",
    "calibration_tests",
    "cross_group_auroc",
    "intersections",
    "score_warnings",
)

STEPS: Final = (
    Step("cohort", "cohort", tables=COHORT_TABLES, assets=COHORT_TABLES, sources=True, pool=SOURCES),
    Step(
        "ct_slices", "imaging", inputs=("studies",), tables=("slice_quality", "ct_views", ACQUISITION), sources=True,
        assets=("ct_slices", ACQUISITION), pool=SOURCES, when=facts.reads_images, revision=SLICES_REVISION,
    ),
    Step(
        "study_embeddings", "embeddings", By.ENCODER, after=("ct_slices", "studies"), facts=(facts.encoder_input,),
        when=facts.embeds, long=True, pool=GPU, gpu=True, revision=2,
    ),
    Step(
        "probe_fits", "probes", By.ENCODER, inputs=("study_embeddings", _PATIENTS, "labels"),
        settings=("tasks", "probes.c_grid", "probes.poolings", "probes.max_training"), when=facts.embeds,
        with_input="study_embeddings",
    ),
    Step(
        "ehr_features", "cohort", facts=(facts.record_files,), when=facts.has_record, pool=SOURCES, revision=3,
        inputs=(Columns(("study_id", "patient_id", "split", "time", "time_source")),),
        tables=("ehr_features", "ehr_rows", "ehr_vocabulary", "ehr_dropped"),
        # which of its two pasts a task may know matters when probes are fitted
        settings=(Settings("ehr", without=("day_before", "max_columns", "leaves", "max_trees")),),
    ),
    Step(
        "ehr_fits", "probes", inputs=("ehr_features", _PATIENTS, "labels"), when=facts.has_record,
        tables=("ehr_fits", "ehr_selection", "ehr_coefficients"),
        settings=("tasks", "probes.c_grid", "probes.max_training", "ehr"),
    ),
    Step(
        "fusion_fits", "probes", By.ENCODER, inputs=("probe_fits", "ehr_fits", "ehr_features", _PATIENTS, "labels"),
        tables=("fusion_fits", "fusion_selection"), settings=("fairness.primary_pooling",), when=facts.is_fused,
    ),
    Step(
        "neural_fits", "probes", By.ENCODER, inputs=("study_embeddings", _PATIENTS, "labels"), facts=(facts.networks,),
        tables=("neural_fits", "probe_seeds", "equal_attention"), when=facts.has_networks, long=True, revision=2,
        settings=("tasks", "probes.networks", "probes.max_training", "fairness.seed"), pool=GPU, gpu=True,
    ),
    Step(
        "probe_predictions", "probes", By.ENCODER_TASK, facts=(facts.task_name, facts.baseline_file), settings=_POLICY,
        inputs=("probe_fits", *FURTHER_FITS, _PATIENTS, "labels"),
        tables=("probe_predictions", "probe_selection", "baseline_joins"),
        optional=FURTHER_FITS, of_baselines=("baseline_joins",), of_encoders=("probe_fits", *FURTHER_FITS, "probe_selection"),
    ),
    Step(
        "fairness", "fairness", By.ENCODER_TASK, inputs=("probe_predictions", _SUBGROUPS), tables=FAIRNESS_TABLES,
        assets=FAIRNESS_TABLES, settings=("attributes", "fairness"), with_input="probe_predictions", revision=4,
    ),
    Step(
        "adjusted_gaps", "fairness", By.ENCODER_TASK, inputs=("fairness_gaps", "probe_predictions", _COVARIATES),
        settings=("attributes", "covariates", "mediators", "fairness"), when=facts.has_covariates,
    ),
    Step(
        "training_counts", "fairness", By.ENCODER_TASK, inputs=("probe_predictions", "study_embeddings", "labels", _TRAINED),
        tables=("training_counts", "learning_curves"), settings=("attributes", *_EXPLORED, *_POLICY), when=facts.is_refitted,
    ),
    Step(
        "discovered_subgroups", "fairness", By.ENCODER_TASK,
        inputs=("probe_predictions", "study_embeddings", "labels", _TRAINED, _COVARIATES, ACQUISITION, "ehr_features"),
        optional=("ehr_features",),
        tables=("discovered_subgroups", "discovered_traits", "discovered_members"), when=facts.is_searched,
        settings=("attributes", "covariates", "acquisition", "ehr.day_before", "fairness.alpha", *_EXPLORED, *_POLICY),
        revision=2,
    ),
    Step(
        "demographic_probes", "probes", By.ENCODER, inputs=("probe_fits", _SUBGROUPS), when=facts.is_mitigated,
        settings=(*_SMALL, "mitigation.control_shuffles"), revision=2,
    ),
    Step(
        "mitigation_scores", "mitigation", By.ENCODER, inputs=("probe_fits", _SUBGROUPS, "labels"), when=facts.is_mitigated,
        tables=("mitigation_scores", "mitigation_runs", "mitigation_leakage"), gpu=True, revision=5,
        settings=(
            *_SMALL, *_POLICY,
            Settings("mitigation", without=("enabled", "n_bootstrap", "control_shuffles", "ladder_from", "ladder_encoder")),
        ),
    ),
    Step(
        "mitigation_results", "mitigation", By.ENCODER_TASK, inputs=("mitigation_scores", _SUBGROUPS), revision=5,
        tables=("mitigation_results", "mitigation_subgroups"), when=facts.is_mitigated,
        settings=("attributes", "fairness", "mitigation.n_bootstrap"),
    ),
    Step(
        "mitigation_capacity", "mitigation", inputs=("mitigation_results", "demographic_probes"),
        after=("mitigation_scores",),
        tables=("mitigation_capacity", "mitigation_interactions", "mitigation_ladder"), facts=(facts.widths,),
        settings=("fairness", "mitigation"), revision=4,
        when=facts.is_compared,
    ),
    Step(
        "audit_findings", "report", inputs=("fairness", "probe_predictions", _SUBGROUPS),
        tables=(
            "audit_findings", "model_comparisons", "modality_comparisons", "audit_changes", "spatial_aggregation",
            "unaudited",
        ),
        facts=(facts.audit_before, facts.family), settings=("fairness", "reaudit"), when=facts.is_audited, revision=8,
    ),
    Step(
        "audit_report", "report", with_input="audit_findings", last=True, files=(PAGE,), facts=(facts.shown,),
        inputs=(
            "audit_findings", "cohort", "ct_slices", "study_embeddings", "fairness", "adjusted_gaps", "training_counts",
            "discovered_subgroups", "probe_predictions", "demographic_probes", "mitigation_scores", "mitigation_results",
            "mitigation_capacity",
        ),
        tables=("report_files", "mitigation_recommendations", "paper_comparison"), optional=("mitigation_capacity",),
        settings=("report.dagster_url", "report.images"), when=facts.is_audited, revision=12,
    ),
)  # fmt: skip


def step_of_asset(name: str) -> Step:
    """Return the step that makes an asset."""
    return next(step for step in STEPS if name in step.assets)

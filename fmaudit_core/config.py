"""`audit.yaml`, typed once. The only place that reads the environment.

A config knows where things lie; what a cohort, encoder or statistic *is* lives in its own room.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fmaudit_core.errors import FmauditError
from fmaudit_core.vocabulary import ATTRIBUTES, DIAGNOSIS_TASK, TASKS

CONFIG_NAME = "audit.yaml"
HOME_NAME = ".fmaudit"
_NAME = re.compile(r"[a-z0-9_-]{1,64}")


class ConfigError(FmauditError):
    """audit.yaml is missing, malformed or contradicts itself."""

    exit_code = 2


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AgeBand(_Section):
    """One age band in completed years, both ends included."""

    low: int = Field(ge=0, le=130)
    high: int = Field(ge=0, le=130)

    @property
    def label(self) -> str:
        """The band as the tables spell it, for example ``18-40``."""
        return f"{self.low}-{self.high}"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", value)
            if match is None:
                raise ValueError(f"an age band reads like 18-40, not {value!r}")
            return {"low": int(match[1]), "high": int(match[2])}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"age band {self.label} ends before it begins")
        return self


DEFAULT_AGE_BANDS = tuple(AgeBand(low=a, high=b) for a, b in ((18, 40), (41, 60), (61, 74), (75, 90)))


class PhantomCohort(_Section):
    """The synthetic CT pulmonary angiogram cohort with planted disparities."""

    #: this kind of cohort
    kind: Literal["phantom"]
    #: studies that are drawn
    n_studies: int = Field(default=700, ge=60)
    #: slices of each
    n_slices: int = Field(default=12, ge=4)
    #: rows and columns of a slice
    matrix_px: int = Field(default=192, ge=64)
    #: another seed draws other patients
    seed: int = 20_26


class TableCohort(_Section):
    """Anybody's cohort: one CSV or Parquet with a row per study, and a folder of CT series."""

    #: this kind of cohort
    kind: Literal["table"]
    #: CSV or Parquet, a row per study
    table: Path
    #: folder with a series per study; not needed where every encoder's embeddings were computed elsewhere
    images: Path | None = None
    #: the medical record: a CSV or Parquet with a row per event (patient_id, time, code, and where known value); the table then
    #: needs a column `time`
    events: Path | None = None
    #: our column name -> the name in the table, where they differ
    columns: dict[str, str] = Field(default_factory=dict)


class InspectCohort(_Section):
    """The INSPECT release as it is downloaded; docs/inspect.md says what of it."""

    #: this kind of cohort
    kind: Literal["inspect"]
    #: the folder it was downloaded to
    root: Path
    #: the folder of volumes, where it is not in the download
    images: Path | None = None
    #: the folder of OMOP tables or of MEDS data, where it is not in the download
    ehr: Path | None = None
    #: a table of person_id, sex, race_ethnicity and birth_date or age, to be taken instead of the medical record's
    demographics: Path | None = None
    #: a person without a recorded ethnicity is of the race alone, or unknown
    unknown_ethnicity: Literal["as_race", "unknown"] = "as_race"


CohortSection = Annotated[PhantomCohort | TableCohort | InspectCohort, Field(discriminator="kind")]


class ImagingSection(_Section):
    """How CT series become slices."""

    #: processes that decode; 0 takes one per core
    workers: int = Field(default=0, ge=0)
    #: a series with fewer slices than this is quarantined by the cohort
    min_slices: int = Field(default=4, ge=1)
    #: slices further apart than this, in mm, are quarantined; where not given, 5 for INSPECT and no limit for others
    max_spacing_mm: float | None = Field(default=None, gt=0)


class ExtractionSection(_Section):
    """How slices become embeddings."""

    #: `auto` takes CUDA where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    #: overrides the batch size of every spec
    batch_size: int | None = Field(default=None, ge=1)


class NetworksSection(_Section):
    """How the probes that are networks are trained; every seed counts, none is chosen."""

    #: runs of each network; a score is the mean of their probabilities
    seeds: int = Field(default=5, ge=1, le=100)
    #: hidden layers of the perceptrons; validation chooses among them
    shapes: tuple[tuple[Annotated[int, Field(ge=1)], ...], ...] = ((256, 128), (512, 256), (512, 256, 128))
    #: a network trains for so many epochs at most
    epochs: int = Field(default=60, ge=1)
    #: epochs without a better validation AUROC before training stops
    patience: int = Field(default=10, ge=1)
    #: share of units left out in training
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    #: principal components a slice is turned into before attention or recurrence reads it; 0 keeps all
    components: int = Field(default=256, ge=0)
    #: a study with more slices gives so many, evenly spaced
    most_slices: int = Field(default=250, ge=2)

    @field_validator("shapes")
    @classmethod
    def _some(cls, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        if not shapes or not all(shapes) or len(set(shapes)) != len(shapes):
            raise ValueError("shapes needs distinct lists of hidden widths, each of one layer at least")
        return shapes


ProbeKind = Literal["logistic", "mlp", "abmil", "lrcn"]


Modality = Literal["ct", "ehr", "ct+ehr"]


class ProbesSection(_Section):
    """Probes on frozen embeddings, and on the medical record where the cohort has one."""

    #: the findings speak of the logistic probe; the networks beside it take minutes on a small cohort, hours on a large
    #: one without a GPU: mlp (perceptrons), abmil (gated attention over slices), lrcn (a recurrent network over slices)
    kinds: tuple[ProbeKind, ...] = ("logistic",)
    #: inverse strengths of regularisation; validation chooses one per task and pooling
    c_grid: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
    #: how slice embeddings become one vector per study
    poolings: tuple[Literal["mean", "max", "median"], ...] = ("mean", "max")
    #: what probes are fitted on; all but `ct` need a medical record and are passed over where there is none
    modalities: tuple[Modality, ...] = ("ct", "ehr", "ct+ehr")
    #: how the networks are trained
    networks: NetworksSection = NetworksSection()

    @field_validator("kinds")
    @classmethod
    def _with_logistic(cls, kinds: tuple[ProbeKind, ...]) -> tuple[ProbeKind, ...]:
        if "logistic" not in kinds or len(set(kinds)) != len(kinds):
            raise ValueError("kinds needs distinct names, logistic among them: the findings speak of it")
        return kinds

    @field_validator("c_grid")
    @classmethod
    def _positive(cls, grid: tuple[float, ...]) -> tuple[float, ...]:
        if not grid or any(c <= 0 for c in grid) or len(set(grid)) != len(grid):
            raise ValueError("c_grid needs distinct values above 0")
        return tuple(sorted(grid))

    @field_validator("modalities")
    @classmethod
    def _imaging_always(cls, modalities: tuple[Modality, ...]) -> tuple[Modality, ...]:
        if "ct" not in modalities or ("ct+ehr" in modalities and "ehr" not in modalities):
            raise ValueError("modalities needs ct, and ehr where it has ct+ehr: late fusion reads both")
        return modalities


class EhrSection(_Section):
    """Features of the medical record, known before each study."""

    #: `strict` is the audit's own rule; `inspect` is that of the INSPECT baseline, which sees more, and marks the run
    cutoff: Literal["strict", "inspect"] = "strict"
    #: tasks that the scan itself decides: their past ends a day earlier
    day_before: tuple[str, ...] = (DIAGNOSIS_TASK,)
    #: days before the cutoff in which days with a code are counted, beside all the past
    windows_days: tuple[int, ...] = (30, 365)
    #: whether gender, race and ethnicity are features
    demographics: bool = False
    #: whether flowsheets are: their times are known to be wrong in places
    flowsheets: bool = False
    #: training patients that a code needs
    min_patients: int = Field(default=10, ge=1)
    #: codes at most, the most frequent among training patients
    max_codes: int = Field(default=4_000, ge=1)
    #: columns that probes take at most
    max_columns: int = Field(default=1_024, ge=1, le=8_192)
    #: leaves of a tree in gradient boosting; one is chosen on validation
    leaves: tuple[int, ...] = (7, 31)
    #: trees at most; validation stops earlier
    max_trees: int = Field(default=300, ge=1)

    @field_validator("windows_days", "leaves")
    @classmethod
    def _distinct_counts(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if not given or any(one < 2 for one in given) or len(set(given)) != len(given):
            raise ValueError("needs distinct whole numbers from 2")
        return tuple(sorted(given))


Strategy = Literal["reweighting", "resampling", "adversarial", "leace", "dfr", "group_dro", "group_thresholds"]
STRATEGIES: tuple[Strategy, ...] = (
    "reweighting", "resampling", "adversarial", "leace", "dfr", "group_dro", "group_thresholds",
)  # fmt: skip


class MitigationSection(_Section):
    """Strategies that might close a gap, each held against the probe as it was."""

    #: `false` leaves mitigation out
    enabled: bool = True
    #: which are tried
    strategies: tuple[Strategy, ...] = STRATEGIES
    #: strengths of the adversary; one is chosen on validation
    alphas: tuple[float, ...] = (0.5, 1.0, 2.0)
    #: runs of each strategy that is drawn or trained at random
    seeds: int = Field(default=5, ge=1, le=100)
    #: width of the adversarial encoder
    hidden: int = Field(default=64, ge=2)
    #: how long it is trained at most; networks without an adversary tell on validation how long is best
    epochs: int = Field(default=100, ge=1)
    #: training ends after so many batches at the latest: of many studies a few passes are enough
    max_steps: int = Field(default=1_000, ge=1)
    #: studies of one step of its training
    batch_size: int = Field(default=256, ge=8)
    #: size of a step of its training (Adam); the adversary's own are ten times as large
    learning_rate: float = Field(default=3e-4, gt=0.0)
    #: runs of these seeds are read again by fresh probes for the attribute
    reprobed_seeds: int = Field(default=1, ge=0)
    #: draws of patients for the intervals
    n_bootstrap: int = Field(default=1_999, ge=99)
    #: labellings dealt at random beside every demographic probe
    control_shuffles: int = Field(default=3, ge=1)
    #: the narrowest rung of the ladder of random projections; 0 builds none
    ladder_from: int = Field(default=64, ge=0)
    #: the encoder of the ladder; the widest that is no control where not given
    ladder_encoder: str | None = None

    @field_validator("alphas")
    @classmethod
    def _above_zero(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not alphas or any(alpha <= 0 for alpha in alphas) or len(set(alphas)) != len(alphas):
            raise ValueError("alphas needs distinct values above 0")
        return tuple(sorted(alphas))


class FairnessSection(_Section):
    """The statistics of the audit; the defaults are those of the method."""

    #: permutations of each test; the smallest p there can be is 1 / (n + 1)
    n_permutations: int = Field(default=9_999, ge=99)
    #: same inputs and seed, same numbers
    seed: int = 20_26
    #: of every interval
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    #: level of the tests, after correction
    alpha: float = Field(default=0.05, gt=0.0, lt=0.5)
    #: under this many positives or negatives a subgroup is suppressed
    suppress_under: int = Field(default=10, ge=1)
    #: under this many it gets an interval but is never tested
    test_from: int = Field(default=25, ge=2)
    #: how validation chooses the operating threshold
    threshold_policy: Literal["fixed_fpr", "fixed_sensitivity", "youden"] = "fixed_fpr"
    #: with `fixed_fpr`: the share of healthy studies that may be called positive
    fixed_fpr: float = Field(default=0.20, gt=0.0, lt=1.0)
    #: with `fixed_sensitivity`: the share of diseased studies that must be called positive
    fixed_sensitivity: float = Field(default=0.80, gt=0.0, lt=1.0)
    #: whether intervals of rates tell how uncertain the threshold is too, by other validation patients drawn
    threshold_uncertainty: bool = False
    #: draws of validation patients for that
    n_bootstraps: int = Field(default=1_000, ge=100)
    #: equivalence margin on a gap; differences below it do not matter clinically
    margin: float = Field(default=0.05, gt=0.0, lt=1.0)
    #: margin of non-inferiority in AUROC, where two models are compared
    auroc_margin: float = Field(default=0.02, gt=0.0, lt=1.0)
    #: how many attributes are crossed at most; 1 crosses none
    intersection_depth: int = Field(default=2, ge=1, le=3)
    #: the metric of the declared family
    primary_metric: Literal["udr", "auroc", "fpr", "tpr"] = "udr"
    #: the pooling the findings speak of; the others are reported beside it
    primary_pooling: Literal["mean", "max", "median"] = "mean"

    @model_validator(mode="after")
    def _rule_ordered(self) -> Self:
        if self.test_from < self.suppress_under:
            raise ValueError("test_from must not lie below suppress_under")
        return self


class ReauditSection(_Section):
    """The gate: when a subgroup counts as worse off than in the audit before, and how much that weighs."""

    #: `error` also ends `fmaudit run` with exit code 1
    severity: Literal["warn", "error"] = "warn"
    #: a rate (UDR, FPR) must have got worse by more than this
    margin: float = Field(default=0.05, ge=0.0, lt=1.0)
    #: an AUROC must have got worse by more than this
    auroc_margin: float = Field(default=0.02, ge=0.0, lt=1.0)


class AutomationSection(_Section):
    """What `fmaudit ui` does by itself while its daemon runs."""

    #: audit what lands in the registry, and what descends from a changed spec
    landing: bool = True
    #: seconds between two looks at the registry
    landing_interval_s: int = Field(default=10, ge=1)
    #: look at the whole cohort and its images again by the clock, and when the cohort's table changed
    reaudit: bool = True
    #: when to look again: minute, hour, day of month, month, day of week
    reaudit_cron: str = "0 3 1 * *"
    #: seconds between two looks at whether the cohort's table changed
    cohort_interval_s: int = Field(default=3600, ge=1)

    @field_validator("reaudit_cron")
    @classmethod
    def _five_fields(cls, cron: str) -> str:
        if len(cron.split()) != 5:
            raise ValueError("a cron has five fields: minute, hour, day of month, month, day of week")
        return cron


class ClusterSection(_Section):
    """What a step that encodes asks of a Kubernetes cluster; without one it is harmless."""

    #: resource limits of its container
    gpu_limits: dict[str, str] = Field(default_factory=lambda: {"nvidia.com/gpu": "1"})
    #: labels of the nodes it may run on
    node_selector: dict[str, str] = Field(default_factory=dict)
    #: taints of nodes it tolerates
    tolerations: tuple[dict[str, str], ...] = ()

    @field_validator("gpu_limits", "node_selector", mode="before")
    @classmethod
    def _as_text(cls, given: Any) -> Any:
        return {key: str(value) for key, value in given.items()} if isinstance(given, dict) else given


class Audit(_Section):
    """A whole audit.yaml, with its paths resolved against the file's folder."""

    #: title of the report
    name: str = Field(default="audit", min_length=1, max_length=120)
    #: who is audited
    cohort: CohortSection
    #: outcomes; of a table, its columns
    tasks: tuple[str, ...] = TASKS
    #: what subgroups are formed by; of a table, its columns
    attributes: tuple[str, ...] = ATTRIBUTES
    #: completed years, both ends included; studies outside all of them are left out and counted
    age_bands: tuple[AgeBand, ...] = DEFAULT_AGE_BANDS
    #: the registry: a folder with one YAML per encoder
    encoders: Path = Path("encoders")
    #: the workspace: everything a run makes
    home: Path = Path(HOME_NAME)
    #: from CT series to slices
    imaging: ImagingSection = ImagingSection()
    #: from slices to embeddings
    extraction: ExtractionSection = ExtractionSection()
    #: from embeddings to predictions
    probes: ProbesSection = ProbesSection()
    #: from the medical record to features
    ehr: EhrSection = EhrSection()
    #: from predictions to findings
    fairness: FairnessSection = FairnessSection()
    #: whether something would help
    mitigation: MitigationSection = MitigationSection()
    #: the gate between this audit and the one before
    reaudit: ReauditSection = ReauditSection()
    #: what starts by itself
    automation: AutomationSection = AutomationSection()
    #: what encoding asks of Kubernetes
    cluster: ClusterSection = ClusterSection()

    @field_validator("tasks", "attributes")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("at least one is needed")
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name: use a-z, 0-9, _ and -, up to 64 characters")
        if len(set(names)) != len(names):
            raise ValueError("a name is given twice")
        return names

    @field_validator("age_bands")
    @classmethod
    def _apart(cls, bands: tuple[AgeBand, ...]) -> tuple[AgeBand, ...]:
        for below, above in itertools.pairwise(bands):
            if above.low <= below.high:
                raise ValueError(f"age bands {below.label} and {above.label} overlap or are out of order")
        return bands

    def anchored_at(self, folder: Path) -> Audit:
        """Copy with every relative path resolved against `folder`."""
        update: dict[str, Any] = {"encoders": folder / self.encoders, "home": folder / self.home}
        cohort = self.cohort
        given = {name: getattr(cohort, name) for name in type(cohort).model_fields}
        paths = {name: folder / value for name, value in given.items() if isinstance(value, Path)}
        update["cohort"] = cohort.model_copy(update=paths)
        return self.model_copy(update=update)


def load_audit(path: Path) -> Audit:
    """Read and validate an audit.yaml.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, or a key is unknown, missing or out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror or error}).",
            where=str(path),
            fix="Write one with `fmaudit init --phantom`, `--inspect DIR`, or `--table FILE --images DIR`.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text.", where=str(path)) from error
    try:
        raw = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"is not valid YAML: {error.problem}.", where=f"{path}{at}") from error
    except yaml.YAMLError as error:
        raise ConfigError("is not valid YAML.", where=str(path)) from error
    if not isinstance(raw, dict):
        raise ConfigError("holds no settings.", where=str(path), fix="It needs at least a `cohort:` section.")
    audit = validated(raw, where=str(path))
    home = os.environ.get("FMAUDIT_HOME")
    if home:
        audit = audit.model_copy(update={"home": Path(home).absolute()})
    return audit.anchored_at(path.absolute().parent)


def validated(raw: dict[str, Any], *, where: str) -> Audit:
    """An audit's settings from plain values, its paths as they stand.

    Raises
    ------
    ConfigError
        A key is unknown, missing or out of range.
    """
    try:
        return Audit.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_plain(error), where=where) from error


def audit_path_from_environment() -> Path:
    """Where the running process finds its audit.yaml: `FMAUDIT_CONFIG`, else the working directory."""
    return Path(os.environ.get("FMAUDIT_CONFIG", CONFIG_NAME)).absolute()


def report_url_from_environment() -> str | None:
    """Where the report is served: `FMAUDIT_REPORT_URL`, which `fmaudit ui` sets for the runs it starts; None elsewhere."""
    return os.environ.get("FMAUDIT_REPORT_URL")


def _plain(error: ValidationError) -> str:
    """Pydantic's complaints as sentences: the key, what is wrong with it, and what was given."""
    said = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"] if part not in ("phantom", "table", "inspect"))
        given = problem.get("input")
        shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
        said.append(f"{key or 'the file'}: {problem['msg']}{shown}")
    return "; ".join(said) + "."

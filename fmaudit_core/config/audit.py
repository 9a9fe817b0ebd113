"""The complete `audit.yaml`."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fmaudit_core.common.addresses import FolderOrBucket, bucket_address
from fmaudit_core.common.errors import did_you_mean
from fmaudit_core.common.local_paths import LocalPath
from fmaudit_core.common.vocabulary import (
    ACQUISITION,
    ACQUISITION_NUMBERS,
    ACQUISITION_TEXTS,
    ATTRIBUTES,
    TASKS,
    acquisition_column,
)
from fmaudit_core.config.acquisition import AcquisitionSection
from fmaudit_core.config.ages import DEFAULT_AGE_BANDS, TABLE_AGE_BANDS, AgeBand
from fmaudit_core.config.automation import AutomationSection
from fmaudit_core.config.cluster import ClusterSection
from fmaudit_core.config.cohort import CohortSection, TableCohort
from fmaudit_core.config.compute import ComputeSection
from fmaudit_core.config.ehr import EhrSection
from fmaudit_core.config.exploration import ExplorationSection
from fmaudit_core.config.extraction import ExtractionSection
from fmaudit_core.config.fairness import FairnessSection
from fmaudit_core.config.imaging import ImagingSection
from fmaudit_core.config.mitigation import MitigationSection
from fmaudit_core.config.probes import ProbesSection
from fmaudit_core.config.reaudit import ReauditSection
from fmaudit_core.config.report import ReportSection
from fmaudit_core.config.section import Section
from fmaudit_core.config.storage import StorageSection

HOME_NAME = ".fmaudit"
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_LONGEST_TITLE = 120


def _default_age_bands(given: dict[str, Any]) -> tuple[AgeBand, ...]:
    """Return the bands of an audit that names none."""
    return TABLE_AGE_BANDS if isinstance(given.get("cohort"), TableCohort) else DEFAULT_AGE_BANDS


def _title_of(column: str) -> str:
    """Return the name of a column as a title: as written, spaced, with a capital if it has none."""
    spaced = " ".join(column.replace("_", " ").split())[:_LONGEST_TITLE]
    return spaced[:1].upper() + spaced[1:] if spaced == spaced.lower() else spaced


class Audit(Section):
    """The complete `audit.yaml`, with paths resolved relative to the folder of the file."""

    #: title of the report
    name: str = Field(default="audit", min_length=1, max_length=120)
    #: the cohort to audit
    cohort: CohortSection
    #: outcomes; for a `table` cohort, names of columns
    tasks: tuple[str, ...] = TASKS
    #: task -> its title in the report. Without one, a task has the usual title, or the name of its column as written under
    #: `cohort: columns:`
    task_titles: dict[str, str] = Field(default_factory=dict, validate_default=True)
    #: attributes that define subgroups; for a `table` cohort, names of columns. `acquisition.<column>` is a column of the table
    #: `acquisition`, such as `acquisition.manufacturer`
    attributes: tuple[str, ...] = ATTRIBUTES
    #: covariates that gaps are standardised for, declared before looking: columns as under `attributes`
    covariates: tuple[str, ...] = ()
    #: those of the covariates that may follow from the subgroup, and are marked in the report
    mediators: tuple[str, ...] = ()
    #: bands in completed years, both ends included, or `over_90` for an open band; studies outside all bands are excluded and
    #: counted. The default of a `table` cohort ends with `over_90`
    age_bands: tuple[AgeBand, ...] = Field(default_factory=_default_age_bands)
    #: edges between the levels of numbers in `acquisition.<column>`
    acquisition: AcquisitionSection = AcquisitionSection()
    #: the registry of encoders: a folder with one YAML per encoder
    encoders: LocalPath = Path("encoders")
    #: the workspace: folder of all outputs of a run; with a `root`, only of what stays on this machine, such as slices
    home: LocalPath = Path(HOME_NAME)
    #: where tables, embeddings, claims and the report are, if not in `home`: a folder, or a bucket as `s3://bucket/prefix`
    root: FolderOrBucket | None = None
    #: the store of a bucket
    storage: StorageSection = StorageSection()
    #: from CT series to slices
    imaging: ImagingSection = ImagingSection()
    #: from slices to embeddings
    extraction: ExtractionSection = ExtractionSection()
    #: where both are done
    compute: ComputeSection = ComputeSection()
    #: from embeddings to predictions
    probes: ProbesSection = ProbesSection()
    #: from the medical record to features
    ehr: EhrSection = EhrSection()
    #: from predictions to findings
    fairness: FairnessSection = FairnessSection()
    #: exploratory steps after the findings
    exploration: ExplorationSection = ExplorationSection()
    #: strategies that may reduce gaps
    mitigation: MitigationSection = MitigationSection()
    #: the gate between this audit and the previous one
    reaudit: ReauditSection = ReauditSection()
    #: the page
    report: ReportSection = ReportSection()
    #: steps that start automatically
    automation: AutomationSection = AutomationSection()
    #: Kubernetes resources for encoding
    cluster: ClusterSection = ClusterSection()

    @property
    def bucket(self) -> str | None:
        """Return the address of the bucket that holds the results; None if they are in a folder."""
        return bucket_address(self.root) if self.root is not None else None

    @property
    def cohort_attributes(self) -> tuple[str, ...]:
        """Return the attributes that the cohort's table gives."""
        return tuple(name for name in self.attributes if acquisition_column(name) is None)

    @property
    def cohort_covariates(self) -> tuple[str, ...]:
        """Return the covariates that the cohort's table gives and that are no attributes."""
        further = [name for name in self.covariates if name not in self.attributes]
        return tuple(name for name in further if acquisition_column(name) is None)

    @property
    def acquisition_levels(self) -> tuple[str, ...]:
        """Return the attributes and covariates that the headers of the images give, with their prefix."""
        asked = dict.fromkeys((*self.attributes, *self.covariates))
        return tuple(name for name in asked if acquisition_column(name) is not None)

    @field_validator("attributes", "covariates")
    @classmethod
    def _recorded(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [*ACQUISITION_TEXTS, *ACQUISITION_NUMBERS]
        for name in names:
            column = acquisition_column(name)
            if column is not None and column not in known:
                near = did_you_mean(column, known)
                raise ValueError(f"{ACQUISITION}.{near} is not a fact of the images; these are {', '.join(known)}")
        return names

    @model_validator(mode="after")
    def _with_images(self) -> Audit:
        if self.acquisition_levels and isinstance(self.cohort, TableCohort) and self.cohort.images is None:
            one = self.acquisition_levels[0]
            what = "attribute" if one in self.attributes else "covariate"
            raise ValueError(
                f"the {what} {one} is read from the headers of the images, but `cohort: images:` is not set: name their folder "
                f"there, or remove the {what}"
            )
        return self

    @field_validator("mediators")
    @classmethod
    def _among_covariates(cls, names: tuple[str, ...], known: ValidationInfo) -> tuple[str, ...]:
        covariates = known.data.get("covariates", ())
        if others := [did_you_mean(name, covariates) for name in names if name not in covariates]:
            raise ValueError(f"{', '.join(others)} is not listed under `covariates:`; add it there too")
        return names

    @field_validator("tasks", "attributes", "covariates")
    @classmethod
    def _distinct(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not names and info.field_name != "covariates":
            raise ValueError("at least one is needed")
        for name in names:
            of_images = info.field_name != "tasks" and acquisition_column(name) is not None
            if not of_images and not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a valid name: use a-z, 0-9, _ and -, up to 64 characters")
        if len(set(names)) != len(names):
            raise ValueError("a name appears twice")
        return names

    @field_validator("task_titles")
    @classmethod
    def _with_columns(cls, titles: dict[str, str], known: ValidationInfo) -> dict[str, str]:
        tasks, cohort = known.data.get("tasks", ()), known.data.get("cohort")
        unknown = [name for name in titles if name not in tasks]
        if unknown and tasks:
            raise ValueError(f"{', '.join(unknown)} is not a task; the tasks are {', '.join(tasks)}")
        if any(not title.strip() or len(title) > _LONGEST_TITLE for title in titles.values()):
            raise ValueError(f"a title has 1 to {_LONGEST_TITLE} characters")
        columns = cohort.columns if isinstance(cohort, TableCohort) else {}
        written = {task: columns[task] for task in tasks if task in columns and task not in TASKS}
        return {task: _title_of(column) for task, column in written.items()} | titles

    @field_validator("age_bands")
    @classmethod
    def _apart(cls, bands: tuple[AgeBand, ...]) -> tuple[AgeBand, ...]:
        for below, above in itertools.pairwise(bands):
            if below.high is None or above.low <= below.high:
                raise ValueError(f"age bands {below.label} and {above.label} overlap or are out of order")
        return bands

    @model_validator(mode="after")
    def _past_of_known_tasks(self) -> Audit:
        unknown = [name for name in self.ehr.day_before if name not in (*self.tasks, *TASKS)]
        if unknown:
            raise ValueError(
                f"ehr.day_before names {', '.join(unknown)}, which is not a task; the tasks are {', '.join(self.tasks)}"
            )
        return self

    def anchored_at(self, folder: Path) -> Audit:
        """Return a copy with every relative path resolved against `folder`."""
        update: dict[str, Any] = {"encoders": folder / self.encoders, "home": folder / self.home}
        if self.root is not None and self.bucket is None:
            update["root"] = str(folder / self.root)
        cohort = self.cohort
        given = {name: getattr(cohort, name) for name in type(cohort).model_fields}
        paths = {name: folder / value for name, value in given.items() if isinstance(value, Path)}
        update["cohort"] = cohort.model_copy(update=paths)
        return self.model_copy(update=update)

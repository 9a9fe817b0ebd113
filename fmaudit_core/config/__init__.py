"""Typed settings of `audit.yaml`, one module per section. Only `environment.py` reads the environment.

Settings hold locations and parameters. Cohorts, encoders and statistics are defined in their own packages.
"""

from fmaudit_core.config.acquisition import AcquisitionSection
from fmaudit_core.config.ages import DEFAULT_AGE_BANDS, TABLE_AGE_BANDS, AgeBand
from fmaudit_core.config.audit import HOME_NAME, Audit
from fmaudit_core.config.automation import AutomationSection
from fmaudit_core.config.cluster import ClusterSection
from fmaudit_core.config.cohort import (
    CohortSection,
    InspectCohort,
    LabelWords,
    LevelRules,
    LocalTableCohort,
    PhantomCohort,
    TableCohort,
)
from fmaudit_core.config.compute import ComputeSection
from fmaudit_core.config.ehr import EhrSection
from fmaudit_core.config.environment import CONFIG_NAME, audit_path_from_environment, report_url_from_environment
from fmaudit_core.config.errors import ConfigError
from fmaudit_core.config.exploration import ExplorationSection
from fmaudit_core.config.extraction import ExtractionSection
from fmaudit_core.config.fairness import FairnessSection
from fmaudit_core.config.imaging import ImagingSection
from fmaudit_core.config.mitigation import STRATEGIES, MitigationSection, Strategy
from fmaudit_core.config.networks import NetworksSection
from fmaudit_core.config.probes import Modality, ProbeKind, ProbesSection
from fmaudit_core.config.reading import load_audit, validated
from fmaudit_core.config.reaudit import ReauditSection
from fmaudit_core.config.report import ReportSection
from fmaudit_core.config.storage import StorageSection

__all__ = [
    "CONFIG_NAME",
    "DEFAULT_AGE_BANDS",
    "HOME_NAME",
    "STRATEGIES",
    "TABLE_AGE_BANDS",
    "AcquisitionSection",
    "AgeBand",
    "Audit",
    "AutomationSection",
    "ClusterSection",
    "CohortSection",
    "ComputeSection",
    "ConfigError",
    "EhrSection",
    "ExplorationSection",
    "ExtractionSection",
    "FairnessSection",
    "ImagingSection",
    "InspectCohort",
    "LabelWords",
    "LevelRules",
    "LocalTableCohort",
    "MitigationSection",
    "Modality",
    "NetworksSection",
    "PhantomCohort",
    "ProbeKind",
    "ProbesSection",
    "ReauditSection",
    "ReportSection",
    "StorageSection",
    "Strategy",
    "TableCohort",
    "audit_path_from_environment",
    "load_audit",
    "report_url_from_environment",
    "validated",
]

"""One audit on disk: its config, and where the rooms keep what they make. What is stale is `plan.py`'s to say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fmaudit_core.config import Audit, TableCohort, load_audit
from fmaudit_core.encoders.registry import Registry
from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.lineage import digest
from fmaudit_core.warehouse import Warehouse


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
        """8-bit slices, one entry per series and view."""
        return SliceStore(self.home / "slices")

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


def open_workspace(audit_yaml: Path) -> Workspace:
    """Open the workspace of an audit.yaml; nothing is made until a step publishes.

    Raises
    ------
    ConfigError
        The file is missing or wrong.
    """
    return Workspace(audit=load_audit(audit_yaml), audit_yaml=audit_yaml.absolute())

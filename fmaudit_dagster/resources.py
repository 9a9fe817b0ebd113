"""What assets are given: the workspace of the audit this process serves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.pipeline.workspace import Workspace, open_workspace
from fmaudit_dagster.run_leases import run_lease


class AuditWorkspace(dg.ConfigurableResource[Workspace]):
    """The workspace of one audit.yaml: warehouse, slice store, registry and settings."""

    audit_yaml: str

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Any]:
        """Hold the lease of the run that this process executes, by which others can tell whether it still does."""
        try:
            root = self.open().root if context.run is not None else None
        except FmauditError:  # the step reports it
            root = None
        if root is None or context.run is None or context.instance is None:
            yield self
            return
        with run_lease(context.instance, root, context.run.run_id):
            yield self

    def open(self) -> Workspace:
        """Read the config and open the workspace; cheap, so that each step sees the files as they are."""
        return open_workspace(Path(self.audit_yaml))

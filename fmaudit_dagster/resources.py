"""What assets are given: the workspace of the audit this process serves."""

from pathlib import Path

import dagster as dg

from fmaudit_core.pipeline.workspace import Workspace, open_workspace
from fmaudit_dagster.processes import PROCESS_TAG, this_process


class AuditWorkspace(dg.ConfigurableResource[Workspace]):
    """The workspace of one audit.yaml: warehouse, slice store, registry and settings."""

    audit_yaml: str

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Note which process executes the run, so that a later one can tell when this one was killed."""
        run = context.run
        if run is not None and PROCESS_TAG not in run.tags and context.instance is not None:
            context.instance.add_run_tags(run.run_id, {PROCESS_TAG: this_process()})

    def open(self) -> Workspace:
        """Read the config and open the workspace; cheap, so that each step sees the files as they are."""
        return open_workspace(Path(self.audit_yaml))

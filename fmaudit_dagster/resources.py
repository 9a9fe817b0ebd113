"""What assets are given: the workspace of the audit this process serves."""

import dagster as dg

from fmaudit_core.config import audit_path_from_environment
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.errors import FmauditError
from fmaudit_core.plan import Versions
from fmaudit_core.workspace import Workspace, open_workspace


class AuditWorkspace(dg.ConfigurableResource):  # type: ignore[type-arg]  # generic only for IO of its own type
    """The workspace of one audit.yaml: warehouse, slice store, registry and settings."""

    audit_yaml: str

    def open(self) -> Workspace:
        """Read the config and open the workspace; cheap, so that each step sees the file as it is."""
        from pathlib import Path

        return open_workspace(Path(self.audit_yaml))

    def versions(self, workspace: Workspace) -> Versions:
        """Expected versions under the registry as it stands."""
        return Versions(workspace, workspace.registry.specs())

    def spec(self, workspace: Workspace, encoder: str) -> EncoderSpec:
        """Spec of one registered encoder, or a clear error when its file has left the registry."""
        specs = workspace.registry.specs()
        if encoder not in specs:
            raise FmauditError(
                f"no spec in the registry is named {encoder}.",
                where=str(workspace.audit.encoders),
                fix="Put its YAML back, or delete the partition.",
            )
        return specs[encoder]


def served_audit() -> AuditWorkspace:
    """Resource for the audit that the environment names."""
    return AuditWorkspace(audit_yaml=str(audit_path_from_environment()))

"""The section `cluster`."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from fmaudit_core.config.section import Section


class ClusterSection(Section):
    """Kubernetes resources requested by steps that encode. Without a cluster they have no effect."""

    #: resource limits of the container
    gpu_limits: dict[str, str] = Field(default_factory=lambda: {"nvidia.com/gpu": "1"})
    #: labels of the nodes allowed for the step
    node_selector: dict[str, str] = Field(default_factory=dict)
    #: node taints that the step tolerates
    tolerations: tuple[dict[str, str], ...] = ()

    @field_validator("gpu_limits", "node_selector", mode="before")
    @classmethod
    def _as_text(cls, given: Any) -> Any:
        return {key: str(value) for key, value in given.items()} if isinstance(given, dict) else given

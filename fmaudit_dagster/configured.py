"""What definitions take from the audit.yaml of the process that loads them; each has its default while there is none yet."""

import json
from typing import Any

from fmaudit_core.common.vocabulary import TASKS
from fmaudit_core.config import (
    AutomationSection,
    ClusterSection,
    audit_path_from_environment,
    load_audit,
)

_path = audit_path_from_environment()
_audit = load_audit(_path) if _path.exists() else None


def tasks() -> tuple[str, ...]:
    """Tasks of the audit; the field's eight by default."""
    return _audit.tasks if _audit else TASKS


def automation() -> AutomationSection:
    """Return the settings of automation."""
    return _audit.automation if _audit else AutomationSection()


def gpu_tags(cluster: ClusterSection | None = None) -> dict[str, Any]:
    """`dagster-k8s/config` of a step that encodes, empty where nothing is asked of a cluster."""
    cluster = cluster or (_audit.cluster if _audit else ClusterSection())
    container = {"resources": {"limits": dict(cluster.gpu_limits)}} if cluster.gpu_limits else {}
    pod: dict[str, Any] = {}
    if cluster.node_selector:
        pod["node_selector"] = dict(cluster.node_selector)
    if cluster.tolerations:
        pod["tolerations"] = [dict(one) for one in cluster.tolerations]
    config = {"container_config": container, "pod_spec_config": pod}
    asked = {key: value for key, value in config.items() if value}
    return {"dagster-k8s/config": asked} if asked else {}


def gpu_run_tags(cluster: ClusterSection | None = None) -> dict[str, str]:
    """Return the same for a whole run, as text: a run that encodes is one pod, whose launcher reads the tags of the run."""
    return {key: json.dumps(value, sort_keys=True) for key, value in gpu_tags(cluster).items()}

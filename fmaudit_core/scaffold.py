"""`fmaudit init`: a first audit.yaml and registry, checked before they are written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fmaudit_core.config import CONFIG_NAME, Audit, ConfigError
from fmaudit_core.encoders.registry import shipped_specs

#: of a phantom, small as it is, attention over slices takes seconds; elsewhere networks are asked for
PHANTOM_PROBES = ("logistic", "abmil")
#: a real pretrained encoder, and the control that every audit carries
FIRST_ENCODERS = ("efficientnet_lite0", "hu_histogram")


def write_audit(folder: Path, cohort: Mapping[str, Any], *, name: str, tasks: Sequence[str] | None = None) -> Path:
    """Write audit.yaml and the first encoders' specs into a folder.

    Parameters
    ----------
    cohort : mapping
        The `cohort:` section.
    tasks : sequence of str, optional
        Where not given, the field's eight.

    Raises
    ------
    ConfigError
        There is an audit.yaml already, or the section is wrong.
    """
    target = folder / CONFIG_NAME
    if target.exists():
        raise ConfigError("there is one already.", where=str(target), fix="Change it, or move it away first.")
    content: dict[str, Any] = {"name": name, "cohort": dict(cohort)}
    if tasks:
        content["tasks"] = list(tasks)
    if cohort.get("kind") == "phantom":
        content["probes"] = {"kinds": list(PHANTOM_PROBES)}
    Audit.model_validate(content)
    registry = folder / "encoders"
    registry.mkdir(parents=True, exist_ok=True)
    for encoder in FIRST_ENCODERS:
        if not (registry / f"{encoder}.yaml").exists():
            shutil.copyfile(shipped_specs()[encoder], registry / f"{encoder}.yaml")
    head = "# What is audited. Every other setting has the method's default; the README lists them.\n"
    target.write_text(head + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return target

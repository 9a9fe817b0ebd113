"""Writing of a first audit.yaml and registry for `fmaudit init`, validated before they are written.

Proposals from a folder come from `propose_config.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fmaudit_core.config import ConfigError, PhantomCohort, validated
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.setup.propose_config import Proposal

#: what `--phantom` audits: attention over slices, gaps standardised for the scanner, and fewer tasks and networks than the
#: defaults, so that it takes minutes
PHANTOM_AUDIT = {
    "tasks": ["pe", "mortality_12m", "readmission_12m", "pulmonary_hypertension_12m"],
    "covariates": ["acquisition.model"],
    "probes": {"kinds": ["logistic", "abmil"]},
    "mitigation": {"alphas": [1.0], "seeds": 2},
}
#: a pretrained encoder, and the control of every audit
FIRST_ENCODERS = ("efficientnet_lite0", "hu_histogram")


def write_audit(target: Path, cohort: Mapping[str, Any], *, name: str, tasks: Sequence[str] | None = None) -> None:
    """Write an audit.yaml, and the specs of the first encoders in its registry.

    Parameters
    ----------
    cohort : mapping
        The `cohort:` section.
    tasks : sequence of str, optional
        Defaults to the eight of the config.

    Raises
    ------
    ConfigError
        There is an audit.yaml already, or the section is invalid.
    """
    content: dict[str, Any] = {"name": name, "cohort": dict(cohort)}
    if tasks:
        content["tasks"] = list(tasks)
    head = "# What is audited. Every other setting has the method's default; the README lists them.\n"
    if cohort.get("kind") == "phantom":
        content = {**content, **PHANTOM_AUDIT, **({"tasks": list(tasks)} if tasks else {})}
        head += "# Fewer tasks, alphas and seeds than the defaults, so that the phantom is audited in minutes.\n"
    _written(target, head + yaml.safe_dump(content, sort_keys=False), sees_images=True)


def write_proposal(target: Path, proposal: Proposal) -> None:
    """Write a proposed audit.yaml and a registry: encoders of CT if there is CT, and the embeddings found.

    Raises
    ------
    ConfigError
        There is an audit.yaml already, or the proposal is invalid.
    """
    registry = _written(target, proposal.text, sees_images=proposal.sees_images)
    for one in proposal.embeddings:
        path = registry / f"{one.name}.yaml"
        if not path.exists():
            path.write_text(one.spec(registry), encoding="utf-8")


def at_own_size(spec: str, cohort: PhantomCohort) -> str:
    """Return a shipped spec, as text, for slices as large as the phantom's: they are not interpolated, and cost less."""
    return re.sub(r"size_px: \d+", f"size_px: {cohort.matrix_px}", spec)


def _written(target: Path, text: str, *, sees_images: bool) -> Path:
    """Write the text, and the first encoders if there is CT; return the registry's folder."""
    if target.exists():
        raise ConfigError("there is one already.", where=str(target), fix="Change it, or move it away first.")
    audit = validated(yaml.safe_load(text), where=str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    registry = audit.anchored_at(target.parent).encoders
    registry.mkdir(parents=True, exist_ok=True)
    for encoder in FIRST_ENCODERS if sees_images else ():
        if not (registry / f"{encoder}.yaml").exists():
            spec = shipped_specs()[encoder].read_text(encoding="utf-8")
            if isinstance(audit.cohort, PhantomCohort):
                spec = at_own_size(spec, audit.cohort)
            (registry / f"{encoder}.yaml").write_text(spec, encoding="utf-8")
    target.write_text(text, encoding="utf-8")
    return registry

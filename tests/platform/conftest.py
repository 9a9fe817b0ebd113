"""One small phantom audit, run once for all tests of the platform."""

from __future__ import annotations

import os
import shutil

import pytest
import yaml

from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.pipeline.workspace import open_workspace
from tests.made_once import made_once

AUDIT = {
    "name": "A small phantom",
    "cohort": {"kind": "phantom", "n_studies": 150, "n_slices": 6, "matrix_px": 64},
    "tasks": ["pe", "mortality_12m"],
    "fairness": {"n_permutations": 199, "suppress_under": 3, "test_from": 5},
    "imaging": {"workers": 1},
    "ehr": {"min_patients": 5, "leaves": [7], "max_trees": 40},
    "mitigation": {
        "seeds": 2,
        "epochs": 3,
        "n_bootstrap": 99,
        "control_shuffles": 1,
        "alphas": [1.0],
        "ladder_from": 512,
    },
}


#: the same with one task and no mitigation; without `efficientnet_lite0`, of few steps
SMALL = {
    "tasks": ["pe"],
    "probes": {"c_grid": [0.01, 1.0], "poolings": ["mean"]},
    "mitigation": {"enabled": False},
    "cohort": {"kind": "phantom", "n_studies": 120, "n_slices": 4, "matrix_px": 64},
}


#: exploratory steps, which read nearly everything
EXPLORED = {"training_counts", "discovered_subgroups"}
#: side of the slices: a network of real weights in a tenth of the time
SIZE_PX = 64


def write_audit(folder, **changes):
    """An audit.yaml with the control, and a real encoder of small slices, beside it."""
    (folder / "encoders").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shipped_specs()["hu_histogram"], folder / "encoders" / "hu_histogram.yaml")
    spec = yaml.safe_load(shipped_specs()["efficientnet_lite0"].read_text())
    for part in ("view", "input"):
        spec[part]["size_px"] = SIZE_PX
    (folder / "encoders" / "efficientnet_lite0.yaml").write_text(yaml.safe_dump(spec))
    (folder / "audit.yaml").write_text(yaml.safe_dump(AUDIT | changes))
    return open_workspace(folder / "audit.yaml")


@pytest.fixture(scope="session")
def audited(tmp_path_factory):
    """A workspace whose audit was run whole, by the command line's runner, in this process or another of pytest."""
    from fmaudit_dagster.execution.instance import prepare

    folder, outcome = made_once(tmp_path_factory, "audited", lambda folder: run_prepared(write_audit(folder)))
    workspace = open_workspace(folder / "audit.yaml")
    prepare(workspace)
    assert os.environ["FMAUDIT_CONFIG"] == str(workspace.audit_yaml)
    return workspace, outcome


@pytest.fixture
def copied(audited, tmp_path):
    """A copy of the audited workspace that a test may change."""
    return copy_of(audited[0], tmp_path)


@pytest.fixture(scope="session")
def small_source(tmp_path_factory):
    """A small audited workspace: one encoder, one task, no mitigation; every step forced, on an empty workspace."""

    def make(folder):
        workspace = write_audit(folder, **SMALL)
        (workspace.audit.encoders / "efficientnet_lite0.yaml").unlink()
        assert run_prepared(workspace, everything=True).failures == {}

    return open_workspace(made_once(tmp_path_factory, "small", make)[0] / "audit.yaml")


@pytest.fixture
def small(small_source, tmp_path):
    """A copy of it that a test may change."""
    return copy_of(small_source, tmp_path)


def copy_of(workspace, folder):
    """A copy of a workspace, with all it has made, in a folder."""
    shutil.copytree(workspace.audit_yaml.parent, folder / "copy", copy_function=shutil.copy2)
    return open_workspace(folder / "copy" / "audit.yaml")


def reconfigured(workspace, **changes):
    """The workspace with other settings in its audit.yaml."""
    raw = yaml.safe_load(workspace.audit_yaml.read_text()) | changes
    workspace.audit_yaml.write_text(yaml.safe_dump(raw))
    return open_workspace(workspace.audit_yaml)


def run(workspace, **options):
    """What `fmaudit run` does, without its bars."""
    from fmaudit_dagster.execution.instance import opened
    from fmaudit_dagster.execution.runner import run_audit

    with opened(workspace) as instance:
        from fmaudit_dagster.definitions import ASSETS, CHECKS, definitions_for

        assert ASSETS
        assert CHECKS
        return run_audit(workspace, instance, definitions_for(workspace.audit_yaml), **options)


def run_prepared(workspace, **options):
    """A first run: definitions are of this workspace from here on."""
    from fmaudit_dagster.execution.instance import prepare

    prepare(workspace)
    return run(workspace, **options)


def made(outcome):
    """Assets and cells of a run, as text."""
    return sorted(f"{asset} {step.cell}" for step in outcome.made for asset in step.assets)

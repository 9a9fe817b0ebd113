"""What `fmaudit gc` finds and removes, and what it leaves alone."""

from __future__ import annotations

import shutil

import pytest
import yaml
from click.testing import CliRunner

from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import load_spec
from fmaudit_core.pipeline.unused_files import InUseError, remove_unused, unused_files
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.claims import ClaimFolder
from fmaudit_core.storage.processes import process_space, this_process
from fmaudit_dagster.cli.main import main

VIEW = load_spec(shipped_specs()["hu_histogram"]).view.key()
USED = [
    "warehouse/studies/part.parquet",
    "warehouse/fairness_gaps/_schema.parquet",
    "warehouse/fairness_gaps/encoder=hu_histogram/task=pe/part.parquet",
    "warehouse/previous_predictions/encoder=hu_histogram/task=pe/part.parquet",
    "warehouse/probe_fits/encoder=hu_histogram/part.parquet",
    "warehouse/embeddings/hu_histogram.duckdb",
    "warehouse/fmaudit.duckdb",
    f"slices/{VIEW}/ab/one.slices",
    "slices/quality/ab/one.json",
    "extraction/hu_histogram/v1/shard-000000.npz",
    "reports/index.html",
    "dagster/history/runs.db",
    "ehr/part.parquet",
]
UNUSED = {
    "warehouse/fairness_gaps/encoder=gone/task=pe/part.parquet": "results of encoders that are not registered",
    "warehouse/probe_fits/encoder=gone/part.parquet": "results of encoders that are not registered",
    "warehouse/embeddings/gone.duckdb": "results of encoders that are not registered",
    "extraction/gone/v1/shard-000000.npz": "results of encoders that are not registered",
    "warehouse/fairness_gaps/encoder=hu_histogram/task=mortality_12m/part.parquet": "results of tasks that are not in audit.yaml",
    "slices/other/ab/one.slices": "slices in views of no registered encoder",
    "phantom/0123456789ab/studies.csv": "phantom cohorts of other settings",
    "scratch/study.0123456789ab.77.abc/study/1.dcm": "copies of studies of processes that have ended",
    "warehouse/studies/.part.parquet.0123456789ab.77.0badc0de.tmp": "half-written files of processes that have ended",
    "reports/.index.html.0123456789ab.77.0badc0de.tmp": "half-written files of processes that have ended",
}


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "encoders").mkdir()
    shutil.copyfile(shipped_specs()["hu_histogram"], tmp_path / "encoders/hu_histogram.yaml")
    settings = {"cohort": {"kind": "phantom"}, "tasks": ["pe"]}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(settings))
    found = open_workspace(tmp_path / "audit.yaml")
    for name in (*USED, *UNUSED, found.phantom.relative_to(found.home) / "studies.csv"):
        (found.home / name).parent.mkdir(parents=True, exist_ok=True)
        (found.home / name).write_bytes(b"x" * 1000)
    return found


def files(workspace):
    return {path.relative_to(workspace.home).as_posix() for path in workspace.home.rglob("*") if path.is_file()}


def test_what_nothing_reads_is_found_by_kind_and_removed(workspace):
    found = unused_files(workspace)
    below = {
        path.relative_to(workspace.home).as_posix(): one.kind
        for one in found
        for top in one.paths
        for path in ([top] if top.is_file() else top.rglob("*"))
        if path.is_file()
    }
    assert below == UNUSED
    assert sum(one.n_bytes for one in found) == 1000 * len(UNUSED)
    remove_unused(workspace, found)
    phantom = workspace.phantom.relative_to(workspace.home).as_posix()
    assert files(workspace) == {*USED, f"{phantom}/studies.csv"}
    assert unused_files(workspace) == []


def test_while_a_spec_cannot_be_read_nothing_of_encoders_is_removed(workspace):
    (workspace.audit.encoders / "gone.yaml").write_text("{")
    kinds = {one.kind for one in unused_files(workspace)}
    assert kinds == {
        "copies of studies of processes that have ended",
        "half-written files of processes that have ended",
        "results of tasks that are not in audit.yaml",
        "phantom cohorts of other settings",
    }


@pytest.mark.parametrize("process", [this_process(), "anotherhost0:17:99"], ids=["of this machine", "of another"])
def test_while_a_step_is_running_nothing_is_removed(workspace, process):
    ClaimFolder(workspace.home / "claims").replace(
        "fairness/encoder=gone/task=pe", 0, {"process": process, "host": "node-7"}
    )
    before = files(workspace)
    with pytest.raises(InUseError, match=r"fairness/encoder=gone/task=pe is running on node-7; nothing was removed"):
        remove_unused(workspace, unused_files(workspace))
    assert files(workspace) == before


def test_claims_that_are_free_or_of_a_killed_process_hold_nothing_up(workspace):
    claims = ClaimFolder(workspace.home / "claims")
    claims.replace("a", 0, None)
    claims.replace("b", 0, {"process": f"{process_space()}:{2**22 + 1}:1", "host": "here"})
    remove_unused(workspace, unused_files(workspace))
    assert unused_files(workspace) == []


def test_the_command_lists_first_and_removes_only_when_told(workspace):
    def call(*more):
        said = CliRunner().invoke(main, ["-c", str(workspace.audit_yaml), "gc", *more])
        assert said.exit_code == 0, said.output
        return said.output

    before = files(workspace)
    said = call()
    assert "warehouse/embeddings/gone.duckdb" in said
    assert "0.0 MB can be freed. `fmaudit gc --yes` removes these files." in said
    assert files(workspace) == before
    assert "Freed 0.0 MB." in call("--yes")
    assert "Nothing to remove." in call("--yes")

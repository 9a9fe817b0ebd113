"""What the landing asks for, without a daemon: levels in order, nothing at work twice, no heavy file read."""

from __future__ import annotations

import pytest
import yaml

from fmaudit_core.pipeline import changed_sources
from fmaudit_core.pipeline.changed_sources import usable_specs
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.stale_steps import next_steps
from fmaudit_core.pipeline.steps import FAIRNESS_TABLES
from fmaudit_core.storage.warehouse import PREVIOUS, Cell
from tests.platform.conftest import run


def land(workspace, name, **changes):
    spec = yaml.safe_load((workspace.audit.encoders / "hu_histogram.yaml").read_text())
    spec |= {"name": name, "control": False} | changes
    (workspace.audit.encoders / f"{name}.yaml").write_text(yaml.safe_dump(spec))


def asked(workspace, *, busy=(), spent=()):
    specs, usable, _ = usable_specs(workspace.registry)
    found = next_steps(
        Snapshot(workspace, specs),
        encoders=list(usable),
        tasks=workspace.audit.tasks,
        is_running=lambda step: step.name in busy,
        failure_reason=lambda step: "it failed" if step.name in spent else None,
    )
    return {step.name: step.assets for step in found.steps}, found


def fingerprint(workspace):
    return changed_sources.fingerprint(workspace, usable_specs(workspace.registry)[1].values())


def test_nothing_is_asked_where_all_is_fresh(copied):
    assert asked(copied)[1].idle


def test_a_new_view_asks_for_slices_and_waits_for_them(copied):
    land(copied, "second", view={"values": "int16", "stride": 2})
    assert asked(copied)[0] == {"ct_slices": ("ct_slices", "acquisition")}
    steps, found = asked(copied, busy=("ct_slices",))
    assert steps == {}
    assert [step.name for step in found.pending] == ["ct_slices"]


def test_a_new_encoder_of_a_known_view_asks_for_its_embeddings_with_its_probes(copied):
    land(copied, "second", variant="other")
    steps, _ = asked(copied)
    assert steps == {"study_embeddings/second": ("study_embeddings", "probe_fits")}
    steps, found = asked(copied, spent=("study_embeddings/second",))
    # the findings go on without it, and name it
    assert steps == {"audit_findings": ("audit_findings", "audit_report")}
    assert found.failure_reasons == {"study_embeddings/second": "it failed"}


def test_while_one_encoder_encodes_the_findings_of_another_come_out(copied):
    land(copied, "second", variant="other")
    assert asked(copied, busy=("study_embeddings/second",))[0] == {}
    cell = Cell("hu_histogram", "pe")
    copied.warehouse.path("fairness_gaps", cell).unlink()
    steps, _ = asked(copied, busy=("study_embeddings/second",))
    assert steps == {"fairness/hu_histogram/pe": ("fairness_gaps",)}


def test_a_failed_encoder_is_named_once_and_makes_no_findings_again_while_another_encodes(copied):
    land(copied, "failing", dim=81)
    land(copied, "second", variant="other")
    waiting = {"busy": ("study_embeddings/second",), "spent": ("study_embeddings/failing",)}
    assert asked(copied, **waiting)[0] == {}  # not named yet: that waits for the next findings
    (copied.audit.encoders / "second.yaml").unlink()
    assert list(asked(copied, spent=("study_embeddings/failing",))[0]) == ["audit_findings"]
    assert run(copied).failures
    assert asked(copied, spent=("study_embeddings/failing",))[1].idle
    land(copied, "second", variant="other")
    assert asked(copied, **waiting)[0] == {}


def test_a_version_is_of_the_inputs_and_the_same_for_any_assets_that_are_lost(copied):
    cell = Cell("hu_histogram", "pe")
    copied.warehouse.path("fairness_gaps", cell).unlink()
    one = asked(copied)[1].steps[0]
    for name in FAIRNESS_TABLES:
        copied.warehouse.path(name, cell).unlink(missing_ok=True)
    two = asked(copied)[1].steps[0]
    assert (one.version, one.name) == (two.version, two.name)
    assert one.assets != two.assets


def test_a_look_reads_neither_checkpoints_nor_images_nor_the_cohort(copied, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a look at the registry read a heavy file")

    monkeypatch.setattr("fmaudit_core.encoders.checksums._sha256", never)
    monkeypatch.setattr("fmaudit_core.pipeline.snapshot.files_digest", never)
    monkeypatch.setattr("fmaudit_core.pipeline.changed_sources.read_cohort", never)
    land(copied, "second", variant="other")
    before = fingerprint(copied)
    assert asked(copied)[0]
    assert fingerprint(copied) == before
    land(copied, "second", variant="another")
    assert fingerprint(copied) != before


def test_a_checkpoint_that_is_not_there_is_told_by_the_encoders_name(copied):
    land(copied, "second", weights={"path": "nowhere.pt", "sha256": "0" * 64})
    _, usable, problems = usable_specs(copied.registry)
    assert "second" not in usable
    assert "the checkpoint does not exist" in problems["second"]
    assert asked(copied)[0] == {"audit_findings": ("audit_findings", "audit_report")}


def test_predictions_keep_their_predecessor_and_never_themselves(copied):
    warehouse, cell = copied.warehouse, Cell("hu_histogram", "pe")
    first, version = warehouse.read("probe_predictions", cell), warehouse.version("probe_predictions", cell)
    warehouse.keep("probe_predictions", PREVIOUS, cell, before=version)
    assert warehouse.version(PREVIOUS, cell) is None
    for _ in range(2):  # killed before it was published, then run again
        warehouse.keep("probe_predictions", PREVIOUS, cell, before="next")
    warehouse.publish("probe_predictions", first.head(3), version="next", cell=cell)
    warehouse.keep("probe_predictions", PREVIOUS, cell, before="next")
    assert warehouse.read(PREVIOUS, cell).equals(first)
    assert warehouse.version(PREVIOUS, cell) == version


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}),
        ({"gpu_limits": {}}, None),
        (
            {"gpu_limits": {"amd.com/gpu": 2}, "node_selector": {"pool": "a100"}},
            {
                "container_config": {"resources": {"limits": {"amd.com/gpu": "2"}}},
                "pod_spec_config": {"node_selector": {"pool": "a100"}},
            },
        ),
    ],
)
def test_a_cluster_is_asked_for_what_the_audit_says(section, expected):
    from fmaudit_core.config import ClusterSection
    from fmaudit_dagster.configured import gpu_tags

    assert gpu_tags(ClusterSection.model_validate(section)).get("dagster-k8s/config") == expected


def test_what_reads_slices_waits_in_one_pool_and_what_may_run_on_a_gpu_asks_a_cluster_for_one():
    from fmaudit_dagster.definitions import ASSETS
    from fmaudit_dagster.execution.sensors import ON_GPU

    tagged = [one for one in ASSETS if any("fmaudit/compute" in tags for tags in one.tags_by_key.values())]
    assert {one.key.to_user_string() for one in tagged} == ON_GPU
    # the small networks of mitigations may share a GPU; what reads slices waits for it
    assert {one.key.to_user_string() for one in tagged if one.op.pool != "gpu"} == {"mitigation_scores"}
    assert all("dagster-k8s/config" in one.op.tags for one in tagged)

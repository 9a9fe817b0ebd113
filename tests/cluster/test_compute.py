"""The section `compute`, the check of a cluster, and the engine's errors: nothing here starts a server."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fmaudit_core.common.errors import MissingExtraError
from fmaudit_core.config import ComputeSection, ConfigError, validated
from fmaudit_core.config.published import public_config
from fmaudit_core.encoders.errors import WeightsError
from fmaudit_core.engines.engine import opened_engine
from fmaudit_core.engines.errors import ClusterError
from fmaudit_core.setup.cluster_doctor import judged_cluster

AUDIT = {"cohort": {"kind": "phantom"}}


def test_a_section_without_settings_is_this_machine():
    compute = validated(AUDIT, where="audit.yaml").compute
    assert (compute.engine, compute.keep_slices, compute.shard_studies) == ("local", "all", 16)


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "head.ray.svc:6379", "[fd00::1]:6379"])
def test_addresses_of_nodes_are_accepted(address):
    assert validated({**AUDIT, "compute": {"address": address}}, where="x").compute.address == address


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"address": "ray://head:10001"}, "compute.address"),
        ({"address": "head"}, "`auto`, or `host:port`"),
        ({"address": "redis://user:secret@head:6379"}, "compute.address"),
        ({"gpus": 1.5}, "must be a whole number"),
        ({"gpus": -1}, "compute.gpus"),
        ({"encoders": 0}, "compute.encoders"),
        ({"shard_studies": 0}, "compute.shard_studies"),
        ({"keep_slices": "components"}, "compute.keep_slices"),
        ({"engine": "dask"}, "compute.engine"),
        ({"workers": 2}, "workers"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_wrong_settings_are_named(given, message):
    with pytest.raises(ConfigError) as error:
        validated({**AUDIT, "compute": given}, where="audit.yaml")
    assert message in str(error.value)
    assert "secret" not in str(error.value)


def test_where_it_is_computed_is_not_published_and_makes_nothing_stale():
    on_ray = validated({**AUDIT, "compute": {"engine": "ray", "address": "10.0.0.1:6379"}}, where="x")
    assert public_config(on_ray) == public_config(validated(AUDIT, where="x"))


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "fmaudit_core.engines.ray_cluster", raising=False)
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'fmaudit\[ray\]'"),
        opened_engine(ComputeSection(engine="ray"), home=tmp_path),
    ):
        pass


def test_an_address_where_nothing_listens_is_named_at_once(tmp_path):
    pytest.importorskip("ray")
    with (
        pytest.raises(ClusterError, match=r"address: 127\.0\.0\.1:1: the Ray cluster cannot be used \(.*refused\)"),
        opened_engine(ComputeSection(engine="ray", address="127.0.0.1:1"), home=tmp_path),
    ):
        pass


def test_a_workspace_that_a_node_does_not_have_is_named(tmp_path):
    pytest.importorskip("ray")
    from fmaudit_core.engines.ray_results import check_shared

    check_shared(tmp_path)
    with pytest.raises(ClusterError, match="not the same folder on all nodes"):
        check_shared(tmp_path / "home")


@pytest.mark.parametrize(
    "error",
    [WeightsError("is wrong.", where="a.pt", fix="Copy it."), MissingExtraError("encoders", "the adapter timm")],
)
def test_errors_travel_between_processes(error):
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), str(there), there.where, there.fix) == (type(error), str(error), error.where, error.fix)


class TestNodes:
    @pytest.fixture
    def look(self):
        nodes = pytest.importorskip("fmaudit_core.engines.ray_nodes", exc_type=ImportError)
        versions = {"fmaudit": "0.1", "python": "3.12.1", "ray": "2.60.0", "torch": "2.9.0"}
        both = tuple(nodes.NodeLook(f"10.0.0.{at}", versions, 0.0, (7, 8)) for at in (1, 2))
        return nodes.ClusterLook(both, cpus=64, gpus=8)

    def judged(self, look, **settings):
        compute = ComputeSection.model_validate({"engine": "ray", "encoders": 4, "slicing_cpus": 16} | settings)
        return list(judged_cluster(look, compute, [Path("/shared/home"), Path("/shared/ct")], (7, 8)))

    def of(self, look, about, **settings):
        return [one for one in self.judged(look, **settings) if one.about == about and one.status != "ok"]

    def changed(self, look, **values):
        return replace(look, nodes=(look.nodes[0], replace(look.nodes[1], **values)))

    def test_a_cluster_that_covers_the_settings_is_ok(self, look):
        assert {one.status for one in self.judged(look)} == {"ok"}

    def test_other_versions_of_a_node_are_named(self, look):
        other = self.changed(look, versions=look.nodes[0].versions | {"torch": "2.8.0"})
        (found,) = self.of(other, "versions")
        assert found.message == "torch is 2.8.0 on 10.0.0.2; 2.9.0 on 10.0.0.1."

    @pytest.mark.parametrize(
        ("settings", "status"),
        [({"encoders": 8}, "warning"), ({"gpus": 9}, "problem"), ({"gpus": 0, "encoders": 64}, "problem")],
        ids=["more", "too large", "no CPU left"],
    )
    def test_settings_beyond_the_cluster_are_named(self, look, settings, status):
        (found,) = self.of(look, "resources", **settings)
        assert found.status == status
        assert found.message.startswith("2 nodes with 64 CPUs and 8 GPUs; the settings use up to")

    @pytest.mark.parametrize(
        ("seen", "status", "message"),
        [
            ((7, None), "problem", "/shared/ct is not there on 10.0.0.2."),
            ((9, 8), "warning", "/shared/home seems to be another folder on 10.0.0.2."),
        ],
        ids=["missing", "another"],
    )
    def test_folders_that_are_not_shared_are_named(self, look, seen, status, message):
        (found,) = self.of(self.changed(look, folders=seen), "folders")
        assert (found.status, found.message) == (status, message)

    def test_a_clock_that_is_off_is_named(self, look):
        (found,) = self.of(self.changed(look, clock_s=-61.0), "clocks")
        assert found.message == "differ from this machine's: 10.0.0.2 by -61 s."

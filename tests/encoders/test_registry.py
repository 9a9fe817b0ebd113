"""Specs and their registry: what is wrong is named, and hides nothing else."""

from __future__ import annotations

import hashlib

import pytest
import yaml

from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.registry import Registry, shipped_specs
from fmaudit_core.encoders.spec import load_spec

GOOD = {"name": "one", "adapter": "hu_histogram", "dim": 80, "view": {"values": "int16"}}


def write(path, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({key: value for key, value in (GOOD | changes).items() if value is not None}))
    return path


def test_shipped_specs_are_valid_and_named_as_their_files():
    names = {"efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "hu_histogram"}
    names |= {"astra", "astra_small", "biomedclip", "medimageinsight", "medsiglip", "medsiglip_three_windows"}
    names |= {"merlin", "ct_fm", "pillar0_chest_ct", "colipri", "spectre", "ct_clip"}
    names |= {"curia", "curia_2", "meddinov3", "medgemma", "medgemma_1_5"}
    assert {name: load_spec(path).name for name, path in shipped_specs().items()} == {name: name for name in names}


def test_one_bad_spec_is_told_and_hides_no_other(tmp_path):
    write(tmp_path / "a.yaml")
    write(tmp_path / "b.yaml", name="bad name")
    (tmp_path / "c.yaml").write_text("{")
    write(tmp_path / "d.yaml")
    registry = Registry(tmp_path)
    assert list(registry.specs()) == ["one"]
    problems = registry.problems()
    assert list(problems) == ["b.yaml", "c.yaml", "d.yaml"]
    assert "cannot be a partition key" in problems["b.yaml"]
    assert "not valid YAML" in problems["c.yaml"]
    assert "already taken" in problems["d.yaml"]


@pytest.mark.parametrize("name", ["", "a/b", "a b", "é", "a|b", "A", "x" * 65])
def test_a_name_that_cannot_be_a_partition_key_is_refused(tmp_path, name):
    with pytest.raises(SpecError, match="partition key"):
        load_spec(write(tmp_path / "a.yaml", name=name))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dim": None}, "dim: is missing"),
        ({"colour": "red"}, "colour: unknown setting"),
        ({"view": {"windows": ["brain"]}}, "unknown window brain"),
        ({"weights": {"path": "w.bin", "sha256": "abc"}}, "sha256"),
        ({"weights": {"package": "p", "sha256": "0" * 64}}, "`file` requires `package`"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, changes, said):
    with pytest.raises(SpecError, match=said):
        load_spec(write(tmp_path / "a.yaml", **changes))


def test_titles_and_batches_do_not_change_the_digest_and_views_do(tmp_path):
    plain = load_spec(write(tmp_path / "a.yaml")).digest()
    assert load_spec(write(tmp_path / "a.yaml", title="x", notes="y", batch_size=3)).digest() == plain
    assert load_spec(write(tmp_path / "a.yaml", view={"values": "int16", "stride": 2})).digest() != plain


def test_adding_copies_a_valid_spec_and_refuses_a_taken_name(tmp_path):
    registry = Registry(tmp_path / "encoders")
    registry.add(write(tmp_path / "x" / "spec.yaml"))
    registry.add(write(tmp_path / "x" / "spec.yaml", title="better"))
    assert registry.specs()["one"].title == "better"
    write(tmp_path / "encoders" / "other.yaml", name="two")
    with pytest.raises(SpecError, match="two is taken"):
        registry.add(write(tmp_path / "x" / "spec.yaml", name="two"))


def test_an_unknown_encoder_and_an_unknown_adapter_say_what_there_is(tmp_path):
    write(tmp_path / "a.yaml")
    with pytest.raises(SpecError, match="unknown encoder two; the encoders are one"):
        Registry(tmp_path).spec("two")
    spec = load_spec(write(tmp_path / "a.yaml", adapter="magic"))
    with pytest.raises(
        SpecError, match="unknown adapter magic; the adapters are astra, efficientnet, exported, hu_histogram"
    ):
        load_encoder(spec)


def test_weights_are_proved_by_their_hash(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    spec = load_spec(write(tmp_path / "a.yaml", weights={"path": "w.bin", "sha256": right}))
    assert spec.weights.verified() == tmp_path / "w.bin"
    (tmp_path / "w.bin").write_bytes(b"weighty")
    with pytest.raises(WeightsError, match="not the one named in the spec"):
        spec.weights.verified()
    (tmp_path / "w.bin").unlink()
    with pytest.raises(WeightsError, match="does not exist"):
        spec.weights.verified()


def test_weights_of_a_package_that_is_not_installed(tmp_path):
    weights = {"package": "no_such_package", "file": "w.pth", "sha256": "0" * 64}
    spec = load_spec(write(tmp_path / "a.yaml", weights=weights))
    with pytest.raises(WeightsError, match=r"no-such-package, which is not installed.*fmaudit\[encoders\]"):
        spec.weights.verified()

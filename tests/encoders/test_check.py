"""`encoders check`: a fit encoder passes and is timed; one that is not frozen, or says nothing, does not."""

from __future__ import annotations

import importlib.metadata
import logging
import re
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from fmaudit_core.encoders import check as check_module
from fmaudit_core.encoders.adapter import ENTRY_POINT_GROUP, load_encoder
from fmaudit_core.encoders.check import CohortSize, check_encoder, probe_slices
from fmaudit_core.encoders.errors import EncoderError, SpecError, WeightsError
from fmaudit_core.encoders.registry import Registry, shipped_specs
from fmaudit_core.encoders.similarity import cosines
from fmaudit_core.encoders.spec import EncoderSpec, load_spec
from fmaudit_core.encoders.torch_network import Placement, channels_last, placed
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_dagster.cli.main import main
from tests.encoders import checkpoints


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(check_module, "_TIMED_SECONDS", 0.05)


class Network:
    """A third party's encoder: features of a torch network, in whatever mode it was left."""

    device = "cpu"

    def __init__(self, network):
        self.network = network

    def encode(self, slices):
        with torch.inference_mode():
            grey = torch.from_numpy(slices[:, :1, ::8, ::8].astype(np.float32)) / 255
            return self.network(grey.flatten(1)).numpy()


def layers(*more):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64 * 64, 16), *more)


#: statistics of the batch, of a slice alone too
ACROSS = (torch.nn.Unflatten(1, (4, 4)), torch.nn.BatchNorm1d(4), torch.nn.Flatten())


class Same:
    device = "cpu"

    def encode(self, slices):
        return np.ones((len(slices), 16), np.float32)


class Distribution(importlib.metadata.Distribution):
    """An installed package that offers an adapter."""

    def read_text(self, filename):
        return {
            "METADATA": "Name: someones-encoders\nVersion: 1.0\n",
            "entry_points.txt": f"[{ENTRY_POINT_GROUP}]\nsomeones = tests.encoders.test_check:load_someones\n",
        }.get(filename)

    def locate_file(self, path):
        raise FileNotFoundError(path)


LOADED = {}


def load_someones(spec, device):
    """The entry point."""
    return LOADED["encoder"]


@pytest.fixture
def third_party(monkeypatch):
    """A package with an entry point, found as an installed one is; returns what makes it give an encoder."""
    finder = type("Finder", (importlib.metadata.DistributionFinder,), {
        "find_distributions": lambda self, context=None: [Distribution()],
        "find_spec": lambda self, *_: None,
    })()  # fmt: skip
    monkeypatch.setattr("sys.meta_path", [finder, *sys.meta_path])

    def giving(encoder):
        LOADED["encoder"] = encoder
        return EncoderSpec(name="third", adapter="someones", dim=16)

    return giving


def test_an_adapter_by_entry_point_is_found_and_checked(third_party):
    found = check_encoder(third_party(Network(layers())))
    assert found.problems == []
    assert found.facts["parameters"] == "not reported by the adapter"
    with pytest.raises(SpecError, match=r"the adapters are .*someones"):
        load_encoder(EncoderSpec(name="x", adapter="magic", dim=1))


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (lambda: Network(layers(torch.nn.Dropout(0.2))), "two passes over the same slices differ"),
        (lambda: Network(layers(*ACROSS)), "depends on the other slices of its batch"),
        (Same, "different slices have the same embedding"),
        (
            lambda: Network(layers(torch.nn.BatchNorm1d(16))),
            "it fails on synthetic slices: ValueError: Expected more than 1",
        ),
        (
            lambda: Network(layers(torch.nn.Linear(16, 3))),
            r"output has shape \(4, 3\) for 4 slices, but its spec has dim 16",
        ),
        (lambda: Network(layers(torch.nn.Threshold(1e9, 0.0))), "all-zero"),
        (lambda: Network(layers(torch.nn.Threshold(1e9, float("nan")))), "NaN"),
    ],
)
def test_what_is_not_frozen_or_says_nothing_is_a_problem(third_party, encoder, said):
    found = check_encoder(third_party(encoder()))
    (problem,) = found.problems
    assert re.search(said, problem), problem


def test_the_same_networks_in_eval_mode_are_fit(third_party):
    for more in ((torch.nn.Dropout(0.2),), ACROSS):
        assert check_encoder(third_party(Network(layers(*more).eval()))).problems == []


def test_a_torch_adapter_left_in_training_mode_would_be_caught(tmp_path, monkeypatch):
    """MedImageInsight's own loader does that: stochastic depth makes embeddings random."""
    case = checkpoints.medimageinsight(tmp_path)
    spec = case.spec(batch_size=2)
    assert check_encoder(spec).problems == []
    from fmaudit_core.encoders import medimageinsight

    real = medimageinsight.TorchEncoder

    def left_training(*args):
        encoder = real(*args)
        encoder._network.train()
        for module in encoder._network.modules():
            if type(module).__name__ == "DropPath":
                module.drop_prob = 0.2
        return encoder

    monkeypatch.setattr(medimageinsight, "TorchEncoder", left_training)
    torch.manual_seed(0)
    monkeypatch.setattr(
        medimageinsight.timm, "create_model",
        lambda *args, real=medimageinsight.timm.create_model, **kwargs: real(*args, **kwargs, drop_path_rate=0.5),
    )  # fmt: skip
    (problem,) = check_encoder(spec).problems
    assert "not in eval mode" in problem


def test_the_probe_goes_through_the_spec_own_view():
    for name in ("efficientnet_lite0", "hu_histogram"):
        spec = load_spec(shipped_specs()[name])
        slices = probe_slices(spec)
        assert slices.dtype == spec.view.values
        assert slices.shape[1] == spec.view.channels
        assert np.array_equal(slices, probe_slices(spec))
    whole = load_spec(shipped_specs()["astra_small"])
    assert probe_slices(whole).shape == (2, 80, 1, 112, 112)
    strided = EncoderSpec(name="x", adapter="y", dim=1, view={"stride": 5})
    assert len(probe_slices(strided)) == 4


def test_the_time_of_the_cohort_is_told(tmp_path):
    case = checkpoints.timm_model(tmp_path)
    known = check_encoder(case.spec(), cohort=CohortSize(40, 9_000)).facts
    assert "40 studies (9,000 slices)" in known["this cohort"]
    assumed = check_encoder(case.spec(), cohort=CohortSize(40, None)).facts
    assert "10,000 slices, assuming 250 per study" in assumed["this cohort"]
    rate = float(known["throughput"].split()[0].replace(",", ""))
    number, unit = known["this cohort"].split()[1:3]
    seconds = float(number) * {"seconds": 1, "minutes": 60, "hours": 3600}[unit]
    assert seconds == pytest.approx(9_000 / rate, rel=0.05)
    assert "million" in known["parameters"]
    assert "GiB" in known["peak memory"]


def test_an_imported_encoder_is_its_file(tmp_path):
    np.savez(tmp_path / "theirs.npz", study_id=np.array(["a", "b"]), embedding=np.ones((2, 3), np.float32))
    given = {"path": tmp_path / "theirs.npz", "sha256": checkpoints.sha256(tmp_path / "theirs.npz")}
    found = check_encoder(EncoderSpec(name="theirs", adapter="imported", dim=3, embeddings=given))
    assert found.facts == {"embeddings": "2 studies, 3-d, imported: there is no network to check"}
    with pytest.raises(EncoderError, match="but the spec needs 2 x 4"):
        check_encoder(EncoderSpec(name="theirs", adapter="imported", dim=4, embeddings=given))


def call(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture
def audit(tmp_path):
    path = tmp_path / "audit" / "audit.yaml"
    path.parent.mkdir()
    path.write_text("cohort: {kind: phantom, n_studies: 60}\n")
    return path


def test_check_on_the_command_line(audit):
    result = call("-c", audit, "encoders", "check", "efficientnet_lite0")
    assert result.exit_code == 0, result.output
    assert "fit for use" in result.output
    assert "3.4 million" in result.output
    result = call("-c", audit, "encoders", "check", "medsiglip")
    assert result.exit_code == 1
    assert "google/medsiglip-448" in result.stderr
    result = call("-c", audit, "encoders", "check", "magic")
    assert result.exit_code == 2


def small_shipped(tmp_path, monkeypatch, sha256=None, size=None):
    """MedSigLIP's shipped spec at a size a test can run, and a download of it."""
    case_folder = tmp_path / "download"
    case_folder.mkdir()
    case = checkpoints.siglip(case_folder)
    text = (
        shipped_specs()["medsiglip"].read_text().replace("dim: 1152", "dim: 32").replace("size_px: 448", "size_px: 32")
    )
    if sha256:
        text = text.replace("  gate:", f"  sha256: {sha256}\n  size_bytes: {size}\n  gate:")
    spec = tmp_path / "medsiglip.yaml"
    spec.write_text(text)
    monkeypatch.setattr("fmaudit_core.encoders.registry.shipped_specs", lambda: {"medsiglip": spec})
    return case


def test_published_weights_are_added_by_their_path_and_their_sha256_is_recorded(audit, tmp_path, monkeypatch):
    case = small_shipped(tmp_path, monkeypatch)
    listed = call("-c", audit, "encoders", "list")
    assert "medsiglip                needs weights: model.safetensors of google/medsiglip-448" in listed.output
    without = call("-c", audit, "encoders", "add", "medsiglip")
    assert without.exit_code == 1
    assert "--weights PATH" in without.stderr
    added = call("-c", audit, "encoders", "add", "medsiglip", "--weights", case.path.parent)
    assert added.exit_code == 0, added.output
    sha256 = checkpoints.sha256(case.path)
    assert f"No published sha256 is known; recorded that of this file: {sha256}" in added.output
    spec = open_workspace(audit).registry.spec("medsiglip")
    assert (spec.weights.path, spec.weights.sha256, spec.weights.sha256_from) == (case.path, sha256, "first_seen")
    assert spec.weights.config_sha256 == checkpoints.sha256(case.path.parent / "config.json")
    assert "no published digest is known" in (audit.parent / "encoders" / "medsiglip.yaml").read_text()
    checked = call("-c", audit, "encoders", "check", "medsiglip")
    assert checked.exit_code == 0, checked.output
    assert "as when it was added" in checked.output
    case.path.write_bytes(case.path.read_bytes() + b" ")
    assert "not the one named in the spec" in call("-c", audit, "encoders", "check", "medsiglip").stderr


def test_other_files_than_the_published_ones_are_refused(tmp_path, monkeypatch):
    case = small_shipped(tmp_path, monkeypatch, sha256="a" * 64, size=case_size(tmp_path))
    registry, spec = Registry(tmp_path / "encoders"), tmp_path / "medsiglip.yaml"
    with pytest.raises(WeightsError, match="not the published weights"):
        registry.add(spec, case.path)
    case.path.write_bytes(case.path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="truncated"):
        registry.add(spec, case.path)
    with pytest.raises(WeightsError, match=r"found no model\.safetensors"):
        registry.add(spec, tmp_path / "encoders")
    (case.path.parent / "config.json").unlink()
    assert not (tmp_path / "encoders").exists()


def case_size(tmp_path):
    folder = tmp_path / "measured"
    folder.mkdir()
    return checkpoints.siglip(folder).path.stat().st_size


def test_a_spec_that_names_its_weights_takes_no_others(tmp_path):
    with pytest.raises(SpecError, match="--weights cannot be used with it"):
        Registry(tmp_path / "encoders").add(shipped_specs()["efficientnet_lite0"], tmp_path)


def test_a_relative_path_still_leads_to_the_weights_from_the_registry(tmp_path):
    (tmp_path / "download").mkdir()
    case = checkpoints.timm_model(tmp_path / "download")
    case.spec(weights={"path": "model.safetensors"})
    added = Registry(tmp_path / "encoders").add(tmp_path / "download" / "spec.yaml")
    assert added.weights.verified() == case.path
    assert Registry(tmp_path / "encoders").spec("timm").weights.path == case.path


def test_a_landed_spec_without_weights_is_told_and_blocks_no_other(tmp_path):
    for name in ("medimageinsight", "hu_histogram"):
        (tmp_path / f"{name}.yaml").write_text(shipped_specs()[name].read_text())
    registry = Registry(tmp_path)
    assert list(registry.specs()) == ["hu_histogram"]
    assert "2,464,060,700 bytes; sha256 5eeda63b" in registry.problems()["medimageinsight.yaml"]


def test_an_encoder_meant_for_cuda_falls_back_only_where_its_spec_allows_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    case = checkpoints.timm_model(tmp_path)
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder(case.spec(device="cuda", dtype="bfloat16"))
    assert encoder.device == "cpu (fell back: this encoder is meant for CUDA)"
    assert "falls back to the CPU, in float32, as its spec allows" in caplog.text
    with pytest.raises(EncoderError, match="needs CUDA, but there is no GPU"):
        load_encoder(case.spec(device="cuda", cpu_fallback=False))


def test_a_cpu_computes_in_float32_and_cuda_in_the_specs_precision(monkeypatch):
    spec = EncoderSpec(name="x", adapter="timm", dim=1, dtype="bfloat16")
    assert str(placed(spec, "cpu")) == "cpu"
    assert placed(spec, "cpu").dtype == torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert str(placed(spec, "auto")) == "cuda, bfloat16"
    assert placed(spec, "cpu").dtype == torch.float32


def test_a_gpu_without_bfloat16_computes_in_float32_and_says_so(monkeypatch, caplog):
    spec = EncoderSpec(name="x", adapter="timm", dim=1, dtype="bfloat16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    with caplog.at_level(logging.WARNING):
        assert str(placed(spec, "auto")) == "cuda, float32"
    assert "this GPU has no bfloat16" in caplog.text
    assert str(placed(spec.model_copy(update={"dtype": "float16"}), "auto")) == "cuda, float16"


@pytest.mark.parametrize(
    ("layers", "shape"), [((torch.nn.Conv2d(3, 4, 3),), (2, 3, 8, 8)), ((torch.nn.Conv3d(1, 4, 3),), (2, 1, 6, 8, 8))]
)
def test_channels_last_changes_the_layout_alone(layers, shape):
    network = torch.nn.Sequential(*layers, torch.nn.Flatten(1), torch.nn.LazyLinear(5)).eval()
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want = network(values)
        got = channels_last(network)(values)
    assert torch.allclose(got, want, atol=1e-6)
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    assert network[0].weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_float32_embeddings_close_to_those_of_full_precision(dtype):
    """As on CUDA: the placement decides the precision, here on the CPU."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(1)).eval()
    values = torch.randn(3, 1, 6, 8, 8)
    exact, lower = (
        Placement(torch.device("cpu"), one, fell_back=False).embedded(network, values) for one in (torch.float32, dtype)
    )
    assert lower.dtype == np.float32
    assert not np.array_equal(exact, lower)
    assert cosines(exact, lower).min() > check_module.PRECISION_COSINE

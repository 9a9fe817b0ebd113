"""Exported files: what they may not do, and what they must give."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from fmaudit_core.encoders import check as check_module
from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.check import CohortSize, check_encoder
from fmaudit_core.encoders.errors import EncoderError, SpecError, WeightsError
from tests.encoders import checkpoints
from tests.encoders.checkpoints import IMAGENET, Case

THREE = {"windows": ["lung", "pe", "mediastinal"]}


def slices(n=3, size=32):
    return np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


class Saves(torch.nn.Module):
    def forward(self, images):
        torch.save(images, "a-program-wrote-this")
        return images.mean(dim=(2, 3))


class Maps(torch.nn.Module):
    def forward(self, images):
        return images.mean(dim=(2, 3)) + torch.from_file("a-program-wrote-this", shared=True, size=3)


class Image(torch.nn.Module):
    def forward(self, images):
        return images


class Fails(torch.nn.Module):
    def forward(self, images):
        return images.reshape(-1, 7)


def script(folder, module, dim=3):
    checkpoints.scripted(module, folder / "one.ts")
    raw = {
        "name": "script", "adapter": "exported", "variant": "torchscript", "dim": dim, "view": THREE,
        "input": {"size_px": 32, **IMAGENET},
    }  # fmt: skip
    return Case(folder / "one.ts", raw, {}, None, "", None)


@pytest.mark.parametrize("module", [Saves(), Maps()])
def test_a_program_that_writes_files_is_refused_before_it_is_loaded(tmp_path, module):
    with pytest.raises(WeightsError, match=r"uses torch\.(save|from_file).*was not run"):
        load_encoder(script(tmp_path, module).spec(), "cpu")


def test_a_program_that_uses_another_library_is_refused(tmp_path):
    case = script(tmp_path, Image())
    path = case.path
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data.replace(b"return images", b"return ops.mylib.run(images)"))
    with pytest.raises(WeightsError, match=r"uses ops\.mylib"):
        load_encoder(case.spec(), "cpu")


def test_a_program_that_gives_no_vectors_or_fails_is_told(tmp_path):
    with pytest.raises(SpecError, match="does not return one vector per slice"):
        load_encoder(script(tmp_path, Image()).spec(), "cpu")
    with pytest.raises(EncoderError, match="the TorchScript program failed"):
        load_encoder(script(tmp_path, Fails()).spec(), "cpu")


def test_a_graph_with_tensors_in_another_file_is_refused(tmp_path, monkeypatch):
    weight = np.eye(3, 5, dtype=np.float32)
    (tmp_path / "outside.bin").write_bytes(weight.tobytes())
    case = checkpoints.onnx_graph(tmp_path)
    case.path.write_bytes(checkpoints.onnx_bytes(weight, external="outside.bin"))
    monkeypatch.chdir(tmp_path)  # where onnxruntime would look for it
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_encoder(case.spec(view=THREE), "cpu")


def test_a_graph_for_one_batch_size_embeds_any_number(tmp_path):
    case = checkpoints.onnx_graph(tmp_path, batch=2)
    got = load_encoder(case.spec(view=THREE), "cpu").encode(slices(5))
    assert np.abs(got - case.wanted(slices(5))).max() < 1e-5


def test_a_graph_of_another_size_is_told(tmp_path):
    case = checkpoints.onnx_graph(tmp_path)
    with pytest.raises(SpecError, match=r"the spec's slice is \(3, 48, 48\)"):
        load_encoder(case.spec(view=THREE, input={"size_px": 48, **IMAGENET}), "cpu")


def test_the_variant_says_which_kind_of_file(tmp_path):
    case = checkpoints.onnx_graph(tmp_path)
    with pytest.raises(SpecError, match="`variant: torchscript` or `variant: onnx`"):
        load_encoder(case.spec(variant=""), "cpu")
    with pytest.raises(WeightsError, match="not a complete TorchScript archive"):
        load_encoder(case.spec(view=THREE, variant="torchscript"), "cpu")


class Volumes(torch.nn.Module):
    """A network of whole volumes, as its owner exports it: clips HU, orders the axes, pools."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 5, 3)

    def forward(self, hu):
        values = (hu.clamp(-1000.0, 1000.0) / 1000.0).permute(0, 1, 4, 3, 2)
        return self.conv(values).relu().mean(dim=(2, 3, 4))


VOLUMES = {
    "values": "int16",
    "volume": {"shape_zyx": [6, 8, 10], "spacing_zyx_mm": [3, 1.5, 1.5], "orientation": "RAS"},
}


def volumes(n=2):
    return np.random.default_rng(0).integers(-1024, 1500, (n, 6, 1, 8, 10), dtype=np.int16)


def of_volumes(folder, module, variant, dim=5):
    path = folder / f"volumes.{variant}"
    if variant == "torchscript":
        checkpoints.scripted(module, path)
    else:
        checkpoints.exported_onnx(module, torch.zeros(1, 1, 6, 8, 10), path)
    raw = {"name": "volumes", "adapter": "exported", "variant": variant, "dim": dim, "view": VOLUMES}
    return Case(path, raw, {}, module, "", None)


@pytest.mark.parametrize("variant", ["torchscript", "onnx"])
def test_a_program_of_volumes_gets_hu_and_gives_what_the_network_gives(tmp_path, variant):
    module = checkpoints.randomise(Volumes()).eval()
    with torch.inference_mode():
        wanted = module(torch.from_numpy(volumes().swapaxes(1, 2).astype(np.float32))).numpy()
    got = load_encoder(of_volumes(tmp_path, module, variant).spec(), "cpu").encode(volumes())
    assert got.dtype == np.float32
    assert np.abs(got - wanted).max() < 1e-5


def test_a_program_of_volumes_that_does_not_fit_its_spec_is_told(tmp_path):
    case = of_volumes(tmp_path, Volumes().eval(), "onnx")
    with pytest.raises(SpecError, match="`input` does not apply"):
        load_encoder(case.spec(input={"size_px": 32, **IMAGENET}), "cpu")
    other = VOLUMES | {"volume": VOLUMES["volume"] | {"shape_zyx": [6, 8, 12]}}
    with pytest.raises(SpecError, match=r"the spec's volume is \(1, 6, 8, 12\)"):
        load_encoder(case.spec(view=other), "cpu")
    with pytest.raises(SpecError, match="dim is 7, but the network's output has 5"):
        load_encoder(case.spec(dim=7), "cpu")
    with pytest.raises(SpecError, match="does not return one vector per volume"):
        load_encoder(of_volumes(tmp_path, Image(), "torchscript").spec(), "cpu").encode(volumes())


PATCHES = {
    "values": "int16",
    "volume": {"shape_zyx": [9, 16, 20], "patch_zyx": [6, 8, 10], "overlap": 0.5, "spacing_zyx_mm": [3, 1.5, 1.5]},
}


@pytest.mark.parametrize("variant", ["torchscript", "onnx"])
def test_a_program_of_patches_has_their_size(tmp_path, monkeypatch, variant):
    monkeypatch.setattr(check_module, "_TIMED_SECONDS", 0.05)
    spec = of_volumes(tmp_path, checkpoints.randomise(Volumes()).eval(), variant).spec(view=PATCHES)
    assert spec.poolings == ("mean", "max", "median")
    assert spec.has_slices
    stored = np.random.default_rng(0).integers(-1024, 1500, (9, 1, 16, 20), dtype=np.int16)
    patches = np.concatenate(list(spec.view.items(stored)))
    assert patches.shape == (2 * 3 * 3, 6, 1, 8, 10)
    assert load_encoder(spec, "cpu").encode(patches).shape == (18, 5)
    found = check_encoder(spec, device="cpu", cohort=CohortSize(3, None))
    assert found.problems == []
    assert "patches per second" in found.facts["throughput"]
    assert "this cohort" not in found.facts  # their number is known once series were read


def test_a_graph_for_patches_of_another_size_is_told(tmp_path):
    other = PATCHES | {"volume": PATCHES["volume"] | {"patch_zyx": [6, 8, 8]}}
    spec = of_volumes(tmp_path, Volumes().eval(), "onnx").spec(view=other)
    with pytest.raises(SpecError, match=r"the spec's patch is \(1, 6, 8, 8\)"):
        load_encoder(spec, "cpu")


class Tokens(torch.nn.Module):
    def forward(self, hu):
        return hu.flatten(2)


class Gone(torch.nn.Module):
    """Divides by zero, as a normalisation without a guard does."""

    def forward(self, hu):
        found = hu.mean(dim=(2, 3, 4)).repeat(1, 5)
        return found / (found - found)


@pytest.mark.parametrize("variant", ["torchscript", "onnx"])
def test_a_program_that_gives_tokens_instead_of_a_vector_is_refused(tmp_path, variant):
    spec = of_volumes(tmp_path, Tokens(), variant).spec()
    with pytest.raises(SpecError, match="does not return one vector per volume"):
        load_encoder(spec, "cpu").encode(volumes())


@pytest.mark.parametrize("variant", ["torchscript", "onnx"])
def test_a_program_that_gives_nan_fails_its_check(tmp_path, variant):
    found = check_encoder(of_volumes(tmp_path, Gone(), variant).spec(), device="cpu")
    assert found.problems == ["its output has NaN, infinite or all-zero embeddings."]


def test_a_graph_of_another_rank_is_refused(tmp_path):
    """A graph of slices given for volumes, and of volumes for slices."""
    of_slices = checkpoints.onnx_graph(tmp_path)
    raw = {"name": "x", "adapter": "exported", "variant": "onnx", "dim": 5, "view": VOLUMES}
    with pytest.raises(SpecError, match=r"input is \['n', 3, 32, 32\], but the spec's volume is \(1, 6, 8, 10\)"):
        load_encoder(Case(of_slices.path, raw, {}, None, "", None).spec(), "cpu")
    of_volume = of_volumes(tmp_path, Volumes().eval(), "onnx")
    raw = {"name": "x", "adapter": "exported", "variant": "onnx", "dim": 5, "input": {"size_px": 32, **IMAGENET}}
    with pytest.raises(SpecError, match=r"the spec's slice is \(3, 32, 32\)"):
        load_encoder(Case(of_volume.path, raw, {}, None, "", None).spec(view=THREE), "cpu")


def test_a_program_of_slices_fails_on_volumes_in_words(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    spec = of_volumes(tmp_path, module, "torchscript").spec()
    with pytest.raises(EncoderError, match="the TorchScript program failed"):
        load_encoder(spec, "cpu").encode(volumes())


@pytest.mark.parametrize("variant", ["torchscript", "onnx"])
def test_a_pickled_network_is_no_export_and_is_not_opened(tmp_path, variant):
    path = tmp_path / "pickled"
    torch.save({"network": Volumes()}, path)
    raw = {"name": "x", "adapter": "exported", "variant": variant, "dim": 5, "view": VOLUMES}
    with pytest.raises(WeightsError, match=r"holds no TorchScript program|the ONNX graph cannot be loaded"):
        load_encoder(Case(path, raw, {}, None, "", None).spec(), "cpu")


def test_a_graph_with_an_operator_of_another_library_is_refused(tmp_path):
    import onnx

    graph = onnx.load_from_string(checkpoints.onnx_bytes(np.eye(3, 5, dtype=np.float32)))
    graph.graph.node[0].op_type, graph.graph.node[0].domain = "Run", "my.library"
    graph.opset_import.append(onnx.helper.make_opsetid("my.library", 1))
    case = checkpoints.onnx_graph(tmp_path)
    case.path.write_bytes(graph.SerializeToString())
    with pytest.raises(WeightsError, match="the ONNX graph cannot be loaded"):
        load_encoder(case.spec(view=THREE), "cpu")

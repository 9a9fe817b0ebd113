"""Convolutional networks on a CPU give the embeddings of torch, whatever computes them."""

import logging
import sys

import numpy as np
import pytest
import torch

from fmaudit_core.common.errors import MissingExtraError
from fmaudit_core.encoders import convolutional
from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.convolutional import TOLERANCE, mostly_convolutions, slice_encoder
from fmaudit_core.encoders.errors import EncoderError, SpecError
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.encoders.torch_network import TorchEncoder
from tests.encoders import checkpoints

WINDOWS = {"windows": ["lung", "pe", "mediastinal"]}


def drawn(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def distance(ours, theirs):
    along = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    return float((1 - along).max())


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return checkpoints.timm_model(tmp_path_factory.mktemp("resnet"), "resnet18")


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_convolutional_network_runs_on_onnxruntime_and_gives_the_same_embeddings(resnet, batch):
    fast = load_encoder(resnet.spec(view=WINDOWS), "cpu")
    slow = load_encoder(resnet.spec(view=WINDOWS, runtime="torch"), "cpu")
    assert (fast.device, slow.device) == ("cpu, onnxruntime", "cpu")
    assert fast.n_parameters == slow.n_parameters
    slices = drawn(batch, 256)
    assert distance(fast.encode(slices), slow.encode(slices)) < TOLERANCE


def test_a_transformer_stays_on_torch(tmp_path):
    case = checkpoints.timm_model(tmp_path)
    assert isinstance(load_encoder(case.spec(view=WINDOWS), "cpu"), TorchEncoder)
    assert not mostly_convolutions(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.Linear(2, 9)))


def test_onnxruntime_where_it_is_asked_for(tmp_path):
    case = checkpoints.timm_model(tmp_path)
    fast, slow = (load_encoder(case.spec(view=WINDOWS, runtime=one), "cpu") for one in ("onnxruntime", "torch"))
    assert fast.device == "cpu, onnxruntime"
    slices = drawn(2, 160)
    assert distance(fast.encode(slices), slow.encode(slices)) < TOLERANCE


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_library_auto_means_torch_and_onnxruntime_names_the_extra(resnet, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert load_encoder(resnet.spec(view=WINDOWS), "cpu").device == "cpu"
    with pytest.raises(MissingExtraError, match="encoders"):
        load_encoder(resnet.spec(view=WINDOWS, runtime="onnxruntime"), "cpu")


class Spoilt(torch.nn.Module):
    """A network whose convolution is not the exported one: it depends on whether it is being traced."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)

    def forward(self, images):
        found = self.conv(images).mean(dim=(2, 3))
        return found + torch.arange(8.0) if torch.jit.is_tracing() else found


class Unconvertible(Spoilt):
    def forward(self, images):
        return torch.linalg.eigvals(self.conv(images).mean(dim=(2, 3)).T @ images.mean(dim=(1, 2, 3))[:, None]).real


@pytest.mark.parametrize(("network", "why"), [(Spoilt, "differ from torch's"), (Unconvertible, "cannot be converted")])
def test_a_network_that_cannot_be_converted_runs_on_torch_and_says_why(resnet, network, why, caplog):
    def spec(**changed):
        return EncoderSpec.model_validate(
            {"name": "own", "adapter": "timm", "dim": 8, "view": WINDOWS, "input": resnet.raw["input"], **changed}
        )

    built, auto, asked = network(), spec(), spec(runtime="onnxruntime")
    with caplog.at_level(logging.WARNING):
        assert isinstance(slice_encoder(built, auto, auto.input, "cpu"), TorchEncoder)
    assert why in caplog.text
    with pytest.raises(EncoderError, match=why):
        slice_encoder(built, asked, asked.input, "cpu")


def test_on_cuda_torch_is_used(resnet, monkeypatch):
    placed = convolutional.placed
    monkeypatch.setattr(
        convolutional,
        "placed",
        lambda spec, device: type(placed(spec, "cpu"))(torch.device("cuda"), torch.float32, fell_back=False),
    )
    spec = resnet.spec(view=WINDOWS)
    assert isinstance(slice_encoder(torch.nn.Conv2d(3, 3, 1), spec, spec.input, "cpu"), TorchEncoder)


def test_the_runtime_changes_no_digest_and_is_refused_where_it_does_nothing(resnet, tmp_path):
    assert resnet.spec(view=WINDOWS).digest() == resnet.spec(view=WINDOWS, runtime="torch").digest()
    with pytest.raises(SpecError, match="runtime` applies to"):
        checkpoints.torchscript(tmp_path).spec(view=WINDOWS, runtime="torch")

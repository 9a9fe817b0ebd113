"""Merlin: the input equals MONAI's pipeline, and the tower is read out of the published checkpoint's layout."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from fmaudit_core.encoders import i3_resnet
from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.errors import SpecError, WeightsError
from fmaudit_core.encoders.merlin import GRID
from tests.encoders import checkpoints
from tests.encoders.checkpoints import Case

VIEW = {"values": "int16", "volume": GRID.model_dump(mode="json")}


@pytest.fixture
def small(monkeypatch):
    """A backbone of four blocks in place of fifty."""
    monkeypatch.setattr(i3_resnet, "I3ResNet", partial(i3_resnet.I3ResNet, (1, 1, 1, 1)))


def published(folder, **left_out):
    """A checkpoint in the published layout: the tower among the heads and the text tower."""
    network = checkpoints.randomise(i3_resnet.I3ResNet())
    state = {f"encode_image.i3_resnet.{name}": tensor for name, tensor in network.state_dict().items()}
    state |= {
        "encode_image.i3_resnet.classifier.weight": torch.ones(3, 2048, 1, 1, 1),
        "encode_image.i3_resnet.contrastive_head.bias": torch.ones(512),
        "encode_text.text_encoder.embeddings.word_embeddings.weight": torch.ones(4, 4),
    }
    path = folder / "merlin.pt"
    torch.save({name: tensor for name, tensor in state.items() if name not in left_out.get("names", ())}, path)
    raw = {"name": "merlin", "adapter": "merlin", "dim": 2048, "view": VIEW}
    return network, Case(path, raw, {}, None, "", None)


def scan(shape=(30, 60, 70), seed=0):
    coarse = np.random.default_rng(seed).uniform(-1100, 1500, (1, 1, 6, 6, 7))
    fine = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=shape, mode="trilinear")
    return fine.numpy()[0, 0].astype(np.int16)


def test_the_input_is_that_of_the_authors_pipeline(tmp_path, small):
    from monai.data import MetaTensor
    from monai.transforms import CenterSpatialCrop, Compose, Orientation, ScaleIntensityRange, Spacing, SpatialPad

    volume, (z, y, x) = scan(), (5.0, 0.9, 0.8)
    theirs = Compose([
        Orientation(axcodes="RAS", labels=None),
        Spacing(pixdim=(1.5, 1.5, 3.0), mode="bilinear"),
        ScaleIntensityRange(a_min=-1000, a_max=1000, b_min=0.0, b_max=1.0, clip=True),
        SpatialPad(spatial_size=(224, 224, 160)),
        CenterSpatialCrop(roi_size=(224, 224, 160)),
    ])  # fmt: skip
    # columns to the left, rows to the back, slices to the head
    affine = torch.diag(torch.tensor([-x, -y, z, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.from_numpy(volume.astype(np.float32).transpose(2, 1, 0))[None], affine=affine)
    wanted = theirs(image).numpy()[0]  # (x, y, z)
    _, case = published(tmp_path)
    spec = case.spec()
    encoder = load_encoder(spec, "cpu")
    got = encoder.prepared(spec.view.apply(volume, (z, y, x))[None]).numpy()[0, 0]  # (z, x, y)
    assert np.abs(got - wanted.transpose(2, 0, 1)).max() < 0.5 / 2000 + 1e-6  # ours are whole HU


def test_the_embedding_is_the_towers_mean_and_the_heads_are_left_out(tmp_path, small):
    network, case = published(tmp_path)
    volumes = scan((16, 32, 32))[None, :, None]
    grey = torch.from_numpy(volumes.astype(np.float32)).add(1000).div(2000).clamp(0, 1)
    with torch.inference_mode():
        wanted = network.eval()(grey.permute(0, 2, 1, 4, 3).expand(-1, 3, -1, -1, -1)).numpy()
    got = load_encoder(case.spec(), "cpu").encode(volumes)
    assert got.shape == (1, 2048)
    assert np.abs(got - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_another_view_or_a_missing_tensor_is_refused(tmp_path, small):
    _, case = published(tmp_path)
    other = VIEW | {"volume": VIEW["volume"] | {"anchor": "centre"}}
    with pytest.raises(SpecError, match="needs the whole volumes that it was trained on"):
        load_encoder(case.spec(view=other), "cpu")
    _, case = published(tmp_path, names=("encode_image.i3_resnet.conv1.weight",))
    with pytest.raises(WeightsError, match="does not fit the network"):
        load_encoder(case.spec(), "cpu")

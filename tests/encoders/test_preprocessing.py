"""Slices become a network's input as the models were published with: against PIL and torchvision, and tf's formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from fmaudit_core.encoders.errors import SpecError
from fmaudit_core.encoders.preprocessing import Preparation
from fmaudit_core.encoders.spec import EncoderSpec, Input

PLAIN = {"scale": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def prepared(grey, view=("lung",), **changes):
    spec = EncoderSpec(name="x", adapter="y", dim=1, view={"windows": view})
    inputs = Input(**PLAIN | changes)
    return Preparation(inputs, spec, torch.device("cpu"))(grey[None, None]).numpy()[0]


def picture(rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (rows // 8, columns // 8), dtype=np.uint8))
    return np.array(coarse.resize((columns, rows), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("resize", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [480, 224, 600])
def test_with_antialias_it_is_what_pil_does(resize, size):
    grey = picture(512, 512)
    kind = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[resize]
    want = np.asarray(Image.fromarray(grey).resize((size, size), kind), dtype=np.float32)
    got = prepared(grey, size_px=size, resize=resize)
    assert got.shape == (3, size, size)
    assert np.abs(got[0] - want).max() <= 2.0  # torch has fewer bits for its weights: one pixel in 100,000
    assert np.abs(got[0] - want).mean() < 0.03
    assert np.array_equal(got[0], got[2])


def test_without_antialias_it_is_bilinear_between_half_pixel_centres():
    """tf.image.resize(method="bilinear", antialias=False): four neighbours, pixel centres at halves."""
    grey, size = picture(512, 512), 448
    at = (np.arange(size) + 0.5) * 512 / size - 0.5
    low = np.clip(np.floor(at).astype(int), 0, 511)
    high, part = np.minimum(low + 1, 511), np.clip(at - low, 0, 1)
    rows = grey[low].astype(np.float64) * (1 - part)[:, None] + grey[high] * part[:, None]
    want = rows[:, low] * (1 - part) + rows[:, high] * part
    got = prepared(grey, size_px=size, resize="bilinear", antialias=False)
    assert np.abs(got[0] - want).max() < 5e-3
    smoothed = prepared(grey, size_px=size, resize="bilinear")
    assert np.abs(got - smoothed).max() > 1.0


@pytest.mark.parametrize("shape", [(512, 384), (400, 512), (512, 512), (224, 300)])
def test_centre_crop_is_open_clips(shape):
    grey = picture(*shape)
    theirs = Compose([Resize(224, InterpolationMode.BICUBIC, antialias=True), CenterCrop(224)])
    want = np.asarray(theirs(Image.fromarray(grey)), dtype=np.float32)
    got = prepared(grey, size_px=224, fit="centre_crop")
    assert got.shape == (3, 224, 224)
    assert np.abs(got[0] - want).max() <= 2.0
    assert np.abs(got[0] - want).mean() < 0.03


def test_every_channel_has_its_own_mean_and_is_never_clipped_beyond_grey():
    grey = picture(64, 64)
    got = prepared(grey, size_px=64, scale=255.0, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    want = [(grey / 255 - m) / s for m, s in ((0.1, 0.5), (0.2, 0.25), (0.3, 1.0))]
    assert np.abs(got - np.stack(want)).max() < 1e-5
    sharp = np.kron(np.eye(8, dtype=np.uint8), np.full((8, 8), 255, np.uint8))
    assert prepared(sharp, size_px=256).max() <= 255.0


@pytest.mark.parametrize("view", [{"windows": ["lung", "pe"]}, {"values": "int16"}])
def test_a_view_the_network_does_not_take_is_refused(view):
    spec = EncoderSpec(name="x", adapter="y", dim=1, view=view)
    with pytest.raises(SpecError, match="takes 8-bit slices of 1 or 3 windows"):
        Preparation(Input(size_px=32, **PLAIN), spec, torch.device("cpu"))

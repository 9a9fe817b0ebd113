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


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"windows": ["lung", "pe"]}, "takes slices in HU, or 8-bit slices of 1 or 3 windows"),
        ({"values": "int16"}, "published for 8-bit slices"),  # the input is the checkpoint's own
    ],
)
def test_a_view_the_network_does_not_take_is_refused(view, message):
    spec = EncoderSpec(name="x", adapter="y", dim=1, view=view)
    with pytest.raises(SpecError, match=message):
        Preparation(Input(size_px=32, **PLAIN), spec, torch.device("cpu"))


def of_hu(hu, **changes):
    inputs = Input(**{"mean": (0.0,), "std": (1.0,)} | changes)
    spec = EncoderSpec(name="x", adapter="y", dim=1, view={"values": "int16"}, input=inputs)
    return Preparation(inputs, spec, torch.device("cpu"))(inputs.of_study(hu[:, None])).numpy()


def scan(n=3, size=64):
    return np.random.default_rng(0).integers(-1500, 2000, (n, size, size)).astype(np.int16)


def test_hu_are_clipped_resized_and_normalised_by_numbers():
    """MedDINOv3's input: clipped to +-1000 HU, (x - 65.108) / 178.017 (their code), three equal channels."""
    hu = scan(size=32)
    got = of_hu(hu, size_px=32, clip_hu=(-1000, 1000), mean=(65.108,) * 3, std=(178.017,) * 3)
    assert got.shape == (3, 3, 32, 32)
    want = (np.clip(hu, -1000, 1000).astype(np.float64) - 65.108) / 178.017
    assert np.abs(got - want[:, None]).max() < 1e-5


def test_hu_are_resized_as_pil_resizes_floats():
    hu = picture(512, 512).astype(np.int16) * 8 - 1000
    got = of_hu(hu[None], size_px=224)[0, 0]
    want = np.asarray(Image.fromarray(hu.astype(np.float32)).resize((224, 224), Image.Resampling.BICUBIC))
    assert np.abs(got - want).max() < 0.05


def test_slices_are_standardised_each_or_by_their_study():
    hu = scan() // np.array([1, 2, 4], dtype=np.int16)[:, None, None]
    each = of_hu(hu, size_px=64, zscore="slice", clip_hu=(-1000, 1000))
    assert np.abs(each.mean(axis=(1, 2, 3))).max() < 1e-5
    assert np.abs(each.std(axis=(1, 2, 3)) - 1).max() < 1e-5
    together = of_hu(hu, size_px=64, zscore="study", clip_hu=(-1000, 1000))
    clipped = np.clip(hu, -1000, 1000).astype(np.float64)
    assert np.abs(together[:, 0] - (clipped - clipped.mean()) / clipped.std()).max() < 1e-4
    assert not of_hu(np.full((2, 16, 16), 40, np.int16), size_px=16, zscore="study").any()


@pytest.mark.parametrize(
    ("view", "inputs", "message"),
    [
        ({"windows": ["lung"]}, {"clip_hu": [-1000, 1000]}, "set `values: int16`"),
        ({"windows": ["lung"]}, {"zscore": "slice"}, "set `values: int16`"),
        ({"values": "int16"}, {"scale": 255}, "are not 8-bit"),
        ({"values": "int16"}, {"clip_hu": [100, 100]}, "must ascend"),
    ],
)
def test_an_input_that_contradicts_its_view_is_refused(view, inputs, message):
    with pytest.raises(ValueError, match=message):
        EncoderSpec(
            name="x", adapter="y", dim=1, view=view, input={"size_px": 32, "mean": [0.5], "std": [0.5]} | inputs
        )


def test_keys_that_were_added_later_leave_the_digest_of_a_spec_as_it_was():
    plain = Input(size_px=32, mean=(0.5,), std=(0.5,))
    assert plain.key() == {
        "size_px": 32, "scale": 255.0, "mean": [0.5], "std": [0.5], "resize": "bicubic", "antialias": True, "fit": "squash",
    }  # fmt: skip
    assert plain.model_copy(update={"zscore": "slice"}).key() != plain.key()

"""Resized slices are Pillow's, pixel by pixel: up and down, grey and HU, noise and bodies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fmaudit_core.imaging.resize import resized_hu, resized_windows
from fmaudit_core.imaging.window import View, to_window

IDENTITY = np.arange(65536).astype(np.uint8)[None]


def pillow(plane, size):
    return np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC))


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(-1100, 1600, shape).astype(np.int16)


def body(n_px, seed=0):
    """Air, lungs, tissue and bone with the noise of a scan."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[-1 : 1 : n_px * 1j, -1 : 1 : n_px * 1j]
    hu = np.full((n_px, n_px), -1000.0)
    for value, size, at in ((40, 0.9, 0), (-820, 0.7, 0.1), (60, 0.3, -0.2), (900, 0.08, 0.6)):
        hu[(row - at) ** 2 + (column + at / 2) ** 2 < size**2] = value
    return np.rint(hu + rng.normal(0, 25, hu.shape)).astype(np.int16)


@pytest.mark.parametrize(("n_px", "size"), [(512, 224), (512, 480), (300, 224), (128, 224), (97, 64), (64, 384)])
@pytest.mark.parametrize("draw", [lambda n: body(n)[None], lambda n: noise((2, n, n))])
def test_slices_through_windows_are_pillows(n_px, size, draw):
    volume = draw(n_px)
    view = View(windows=("lung", "pe", "mediastinal"), size_px=size)
    got = view.apply(volume)
    assert got.dtype == np.uint8
    for channel, window in enumerate(view.channel_windows):
        grey = to_window(volume, centre_hu=window.centre_hu, width_hu=window.width_hu)
        assert np.array_equal(got[:, channel], np.stack([pillow(one, size) for one in grey]))


@pytest.mark.parametrize(("n_px", "size"), [(512, 224), (96, 224), (97, 64)])
@pytest.mark.parametrize("draw", [lambda n: body(n)[None], lambda n: noise((2, n, n))])
def test_slices_in_hu_are_pillows_floats_rounded(n_px, size, draw):
    volume = draw(n_px)
    got = View(values="int16", size_px=size).apply(volume)
    assert got.dtype == np.int16
    want = np.stack([np.rint(pillow(one.astype(np.float32), size)).astype(np.int16) for one in volume])
    assert np.array_equal(got[:, 0], want)


@settings(max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(16, 80), st.integers(0, 99))
def test_any_size_and_shape_is_pillows(rows, columns, size, seed):
    """Taps that would leave the image, remainders of blocks, one axis that grows while the other shrinks."""
    volume = noise((1, rows, columns), seed)
    grey = volume[0].astype(np.uint8)
    assert np.array_equal(resized_windows(grey.astype(np.int16)[None], IDENTITY, size)[0, 0], pillow(grey, size))
    want = np.rint(pillow(volume[0].astype(np.float32), size)).astype(np.int16)
    assert np.array_equal(resized_hu(volume, size)[0], want)


def test_extreme_hu_stay_within_16_bits():
    edge = np.full((1, 40, 40), -32768, np.int16)
    edge[:, :, 20:] = 32767
    got = resized_hu(edge, 64)
    assert (got.min(), got.max()) == (-32768, 32767)


def test_chosen_slices_are_resized_alone():
    volume = noise((9, 30, 40))
    some = View(size_px=16, stride=2, max_slices=3)
    assert np.array_equal(some.apply(volume), View(size_px=16).apply(volume[some.chosen(9)]))

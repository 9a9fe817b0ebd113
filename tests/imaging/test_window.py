"""Windows and views."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fmaudit_core.imaging.errors import WindowError
from fmaudit_core.imaging.window import WINDOWS, View, to_window

volumes = hnp.arrays(np.int16, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=st.integers(-2000, 3000))


def linear_by_the_standard(hu: float, centre: float, width: float) -> float:
    """DICOM PS3.3 C.11.2.1.2.1 read aloud, one value at a time."""
    if hu <= centre - 0.5 - (width - 1) / 2:
        return 0.0
    if hu > centre - 0.5 + (width - 1) / 2:
        return 255.0
    return ((hu - (centre - 0.5)) / (width - 1) + 0.5) * 255.0


@given(volumes, st.sampled_from(sorted(WINDOWS)))
def test_a_window_is_the_standards_linear_function_rounded(volume, name):
    window = WINDOWS[name]
    grey = to_window(volume, centre_hu=window.centre_hu, width_hu=window.width_hu)
    want = [linear_by_the_standard(float(hu), window.centre_hu, window.width_hu) for hu in volume.ravel()]
    assert np.abs(grey.ravel() - np.array(want)).max() <= 0.5 + 1e-9


@given(volumes)
def test_brighter_hu_are_never_darker_grey(volume):
    grey = to_window(volume, centre_hu=40, width_hu=400)
    order = np.argsort(volume, axis=None)
    assert np.all(np.diff(grey.ravel()[order].astype(int)) >= 0)


def test_a_window_without_width_is_refused():
    with pytest.raises(WindowError, match="no grey values"):
        to_window(np.zeros((1, 2, 2), np.int16), centre_hu=0, width_hu=1)


def test_a_stack_of_windows_is_its_windows():
    volume = np.arange(-1024, 1024, dtype=np.int16).reshape(2, 32, 32)
    stack = View(windows=("lung", "pe", "mediastinal")).apply(volume)
    assert stack.shape == (2, 3, 32, 32)
    assert np.array_equal(stack[:, 1], to_window(volume, centre_hu=400, width_hu=1000))


def test_windows_by_numbers_equal_the_named_ones_and_share_their_slices():
    volume = np.arange(-1024, 1024, dtype=np.int16).reshape(2, 32, 32)
    lung = View(windows=({"centre_hu": -600, "width_hu": 1500},))
    assert np.array_equal(lung.apply(volume), View(windows=("lung",)).apply(volume))
    assert lung.key() == View(windows=("lung",)).key()


def test_a_window_from_black_to_white_is_linear_between():
    volume = np.array([[[-300, -135, 40, 215, 900]]], np.int16)
    assert View(windows=({"hu": (-135, 215)},)).apply(volume).ravel().tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ("bone", "unknown window bone"),
        ({"hu": (40, 40)}, "must ascend"),
        ({"centre_hu": 40}, "either `centre_hu` and `width_hu`, or"),
        ({"centre_hu": 40, "width_hu": 400, "hu": (0, 1)}, "either `centre_hu` and `width_hu`, or"),
        ({"centre_hu": 40, "width_hu": 1}, "greater than 1"),
    ],
)
def test_a_window_that_is_none_is_refused(window, message):
    with pytest.raises(ValueError, match=message):
        View(windows=(window,))


def test_stride_and_maximum_choose_evenly():
    assert View(stride=3).chosen(10).tolist() == [0, 3, 6, 9]
    assert View(max_slices=3).chosen(11).tolist() == [0, 5, 10]
    assert View(max_slices=20).chosen(4).tolist() == [0, 1, 2, 3]


def test_sixteen_bit_views_keep_hu():
    volume = np.array([[[-1000, 40], [400, 3000]]], np.int16)
    assert np.array_equal(View(values="int16").apply(volume)[:, 0], volume)


def test_equal_views_share_their_key_and_others_do_not():
    assert View().key() == View(windows=("lung",)).key()
    assert len({View().key(), View(windows=("pe",)).key(), View(size_px=224).key(), View(stride=2).key()}) == 4
    assert View(values="int16").key() == View(values="int16", windows=("pe",)).key()

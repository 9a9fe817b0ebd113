"""Screenshots, colour images and objects without a position leave a series; a series of such images is refused by its reason."""

from __future__ import annotations

import numpy as np
import pytest

from fmaudit_core.imaging.series import read_series
from tests.ct_files import volume_hu, write_series, write_slice

COLOUR = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
INTRUDERS = {
    "colour": (COLOUR | {"ImagePositionPatient": None}, "not_hounsfield"),
    "colour with a position": (COLOUR, "not_hounsfield"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "not_hounsfield"),
    "8 bits": ({"BitsStored": 8, "HighBit": 7}, "not_hounsfield"),
    "screenshot": ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "not_hounsfield"),
    "no position": ({"ImagePositionPatient": None}, "missing_geometry"),
    "MIP": ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]}, "projection"),
}


@pytest.mark.parametrize("name", INTRUDERS)
@pytest.mark.parametrize("size", [32, 64])
def test_an_intruder_leaves_the_series(tmp_path, name, size):
    changes, reason = INTRUDERS[name]
    volume = write_series(tmp_path)
    write_slice(tmp_path / "zz.dcm", volume_hu(1, size)[0], z_mm=5.0, number=99, **changes)
    series, stranger = read_series(tmp_path)
    assert series.flags == ("intruder_removed",)
    assert np.array_equal(series.volume_hu, volume)
    assert (stranger.reason, stranger.n_files) == (reason, 1)


@pytest.mark.parametrize("name", INTRUDERS)
def test_where_most_are_such_images_the_series_is_refused(tmp_path, name):
    changes, reason = INTRUDERS[name]
    write_series(tmp_path, **changes)
    (series,) = read_series(tmp_path)
    assert (series.reason, series.flags) == (reason, ())


def test_a_slice_without_a_position_in_the_middle_is_missed(tmp_path):
    for index, hu in enumerate(volume_hu(8)):
        changes = {"ImagePositionPatient": None} if index == 4 else {}
        write_slice(tmp_path / f"{index}.dcm", hu, z_mm=2.0 * index, number=index, **changes)
    assert {one.reason for one in read_series(tmp_path)} == {"missing_slices", "missing_geometry"}

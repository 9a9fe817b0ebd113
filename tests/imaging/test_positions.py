"""Positions of slices: on one line, at plausible distances, the shear of a tilted gantry constant."""

from __future__ import annotations

import numpy as np
import pytest

from fmaudit_core.imaging.series import read_series
from tests.ct_files import volume_hu, write_slice


def read_at(folder, positions, **changes):
    volume = volume_hu(len(positions))
    for index, (hu, position) in enumerate(zip(volume, positions, strict=True)):
        write_slice(folder / f"{index}.dcm", hu, z_mm=0, number=index, **{"ImagePositionPatient": position, **changes})
    (series,) = read_series(folder)
    assert series.reason or np.array_equal(series.volume_hu, volume)
    return series


def at(offsets):
    return [[x, y, 2.0 * index] for index, (x, y) in enumerate(offsets)]


@pytest.mark.parametrize(
    "offsets",
    [
        [(0, 0)] * 4 + [(24, 0)] * 4 + [(0, 0)] * 4,
        [(0, 0)] * 7 + [(0, 6)] + [(0, 0)] * 4,
        [(0, 0)] * 6 + [(3, 0)] * 6,
        [(0.05 * index**2, 0) for index in range(12)],
        [(0, 0), (24, 0)],
        [(0, 6)] + [(0, 0)] * 11,
        [(0, tilt) for tilt in (0, 1, 2, 3, 4, 6, 7, 8, 9)],
    ],
)
def test_positions_off_their_line_refuse_the_series(tmp_path, offsets):
    assert read_at(tmp_path, at(offsets)).reason == "inconsistent_geometry"


@pytest.mark.parametrize(
    ("offsets", "flags"),
    [
        ([(0, 0.6 * index) for index in range(8)], ("gantry_tilt",)),
        ([(0.1 * (index % 2), 0) for index in range(8)], ()),
        ([(0, 0)] * 8, ()),
    ],
)
def test_a_constant_shear_is_a_tilt_and_rounding_is_none(tmp_path, offsets, flags):
    series = read_at(tmp_path, at(offsets))
    assert series.flags == flags
    assert series.spacing_zyx_mm == (2.0, 0.8, 0.8)


@pytest.mark.parametrize("thickness", [-2.5, 0, "", "2,5", None])
def test_one_slice_without_a_valid_thickness_is_one_mm_thick(tmp_path, thickness):
    (tmp_path / "ct").mkdir()
    write_slice(tmp_path / "ct" / "1.dcm", volume_hu(1)[0], z_mm=0, number=1, SliceThickness=None)
    if thickness is not None:
        with_text(tmp_path / "ct" / "1.dcm", 0x00180050, str(thickness))
    (series,) = read_series(tmp_path)
    assert (series.flags, series.spacing_zyx_mm) == (("assumed_thickness",), (1.0, 0.8, 0.8))


@pytest.mark.parametrize(
    ("tag", "text", "detail"),
    [
        (0x00280030, "0,8\\0,8", "PixelSpacing"),
        (0x00280030, "0.8", "PixelSpacing"),
        (0x00200032, "0\\0", "ImagePositionPatient"),
        (0x00200037, "1\\0\\0\\0\\1\\nan", "ImageOrientationPatient"),
        (0x00281053, "1,0", "RescaleSlope"),
        (0x00281052, "about -1024", "RescaleIntercept"),
    ],
)
def test_a_number_that_cannot_be_read_is_named_as_such(tmp_path, tag, text, detail):
    write_slice(tmp_path / "1.dcm", volume_hu(1)[0], z_mm=0, number=1)
    with_text(tmp_path / "1.dcm", tag, text)
    (series,) = read_series(tmp_path)
    assert (series.reason, series.detail) == ("unreadable_number", detail)
    assert text not in series.explained()


def with_text(path, tag, text):
    """Write a number as an exporter with a fault does, past pydicom's checks."""
    import pydicom
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    dataset = pydicom.dcmread(path)
    data = text.encode() + b" " * (len(text) % 2)
    dataset._dict[Tag(tag)] = RawDataElement(Tag(tag), "DS", len(data), data, 0, False, True)
    dataset.save_as(path)


@pytest.mark.parametrize("spacing", [[0.0008, 0.0008], [800.0, 800.0]])
def test_pixels_of_a_size_that_no_ct_has_are_refused(tmp_path, spacing):
    positions = [[0, 0, 2.0 * index] for index in range(4)]
    assert read_at(tmp_path, positions, PixelSpacing=spacing).reason == "implausible_spacing"


def test_padding_of_two_values_is_an_unreadable_number(tmp_path):
    positions = [[0, 0, 2.0 * index] for index in range(4)]
    series = read_at(tmp_path, positions, PixelPaddingValue=[0, 4095])
    assert (series.reason, series.detail) == ("unreadable_number", "PixelPaddingValue")

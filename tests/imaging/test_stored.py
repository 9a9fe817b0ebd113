"""Stored bits after every decoder, and the declared transfer syntax against the bytes."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from fmaudit_core.imaging.series import read_series
from tests.ct_files import volume_hu, write_series, write_slice

OVERLAY = 0xA000  # bits 13 and 15


def only(path):
    (series,) = read_series(path)
    return series


def cells_of(hu, *, stored, high, signed, overlay):
    """Cells of 16 bits that hold HU the way the header declares, everything else in the other bits."""
    values = hu.astype(np.int64) + (0 if signed else 1024)
    cells = (values & ((1 << stored) - 1)) << (high + 1 - stored)
    free = 0xFFFF & ~(((1 << stored) - 1) << (high + 1 - stored))
    return (cells | (overlay & free)).astype("<u2")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian,
                                    ExplicitVRBigEndian, RLELossless], ids=lambda one: one.keyword)  # fmt: skip
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("stored", "high"), [(12, 11), (12, 15), (13, 12), (14, 14), (16, 15)])
@pytest.mark.parametrize("overlay", [0, OVERLAY])
def test_only_the_stored_bits_are_the_value(tmp_path, syntax, signed, stored, high, overlay):
    volume = volume_hu(3)
    for index, hu in enumerate(volume):
        cells = cells_of(hu, stored=stored, high=high, signed=signed, overlay=overlay)
        changes = {"BitsStored": stored, "HighBit": high, "PixelRepresentation": int(signed)}
        changes |= {"RescaleIntercept": 0 if signed else -1024, "PixelData": cells.tobytes()}
        path = tmp_path / f"{index}.dcm"
        write_slice(path, hu, z_mm=2.0 * index, number=index, **changes)
        written_as(path, syntax, cells)
    assert np.array_equal(only(tmp_path).volume_hu, volume)


def written_as(path, syntax, cells):
    dataset = pydicom.dcmread(path)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = cells.byteswap().tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False)
        return
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        implicit = syntax == ImplicitVRLittleEndian
        pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=True)
        return
    dataset.save_as(path)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=lambda one: one.keyword)
@pytest.mark.parametrize("signed", [True, False])
def test_streams_of_the_stored_bits_are_read_alike(tmp_path, syntax, signed):
    volume = volume_hu(3)
    for index, hu in enumerate(volume):
        stored = (hu if signed else hu + 1024).astype("<i2")
        changes = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": int(signed)}
        changes |= {"RescaleIntercept": 0 if signed else -1024, "PixelData": stored.tobytes()}
        write_slice(tmp_path / f"{index}.dcm", hu, z_mm=2.0 * index, number=index, **changes)
        dataset = pydicom.dcmread(tmp_path / f"{index}.dcm")
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(tmp_path / f"{index}.dcm")
    assert np.array_equal(only(tmp_path).volume_hu, volume)


@pytest.mark.parametrize("changes", [{"HighBit": 7, "BitsStored": 12}, {"BitsStored": 17}, {"HighBit": 16}, {"BitsAllocated": 12},
                                     {"PixelRepresentation": 2}])  # fmt: skip
def test_bits_that_contradict_each_other_are_named(tmp_path, changes):
    write_series(tmp_path, **changes)
    assert only(tmp_path).reason == "inconsistent_bits"


def test_without_a_sign_a_value_that_may_be_negative_is_refused(tmp_path):
    volume = write_series(tmp_path / "harmless", PixelRepresentation=None)
    assert np.array_equal(only(tmp_path / "harmless").volume_hu, volume)
    for index, hu in enumerate(volume):
        changes = {"PixelRepresentation": None, "RescaleIntercept": 0, "PixelData": hu.astype("<i2").tobytes()}
        write_slice(tmp_path / "lost" / f"{index}", hu, z_mm=2.0 * index, number=index, **changes)
    series = only(tmp_path / "lost")
    assert (series.reason, series.detail) == ("inconsistent_bits", "PixelRepresentation")


def test_padding_that_needs_more_bits_than_are_stored_is_padding(tmp_path):
    want = volume_hu(3)
    want[:, :2] = -1024
    for index, hu in enumerate(want):
        stored = hu.astype("<i2")
        stored[:2] = -32768
        changes = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1, "PixelPaddingValue": -32768}
        changes |= {"RescaleIntercept": 0, "PixelData": stored.tobytes()}
        write_slice(tmp_path / f"{index}", hu, z_mm=2.0 * index, number=1, **changes)
    assert np.array_equal(only(tmp_path).volume_hu, want)


def compressed(folder, syntax):
    """Write a compressed series; return the paths and the declared volume."""
    volume = write_series(folder)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    return volume


@pytest.mark.parametrize(("syntax", "said"), [(RLELossless, ExplicitVRLittleEndian), (JPEGLSLossless, ExplicitVRLittleEndian),
                                              (JPEGLSLossless, JPEG2000Lossless), (JPEG2000Lossless, JPEGLosslessSV1),
                                              (RLELossless, JPEGLSLossless), (JPEG2000Lossless, RLELossless)],
                         ids=lambda one: one.keyword)  # fmt: skip
def test_a_syntax_that_the_bytes_contradict_is_named(tmp_path, syntax, said):
    compressed(tmp_path, syntax)
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = said
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)
    assert only(tmp_path).reason == "wrong_transfer_syntax"


def test_compressed_data_as_long_as_the_image_are_not_taken_for_pixels(tmp_path):
    rng = np.random.default_rng(3)
    for index in range(4):
        stream = encapsulate([rng.integers(0, 256, 4096, dtype=np.uint8).tobytes()])
        write_slice(tmp_path / f"{index}", volume_hu(1)[0], z_mm=2.0 * index, number=index, PixelData=stream)
    assert only(tmp_path).reason == "wrong_transfer_syntax"


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, RLELossless], ids=lambda one: one.keyword)
def test_plain_pixels_declared_compressed_are_named(tmp_path, syntax):
    write_series(tmp_path)
    for path in tmp_path.iterdir():
        data = bytearray(path.read_bytes())
        at = data.index(b"\x02\x00\x10\x00UI") + 6
        length, uid = int.from_bytes(data[at : at + 2], "little"), syntax.encode() + b"\0" * (len(syntax) % 2)
        data[at : at + 2 + length] = len(uid).to_bytes(2, "little") + uid
        meta = 132 + 8  # the group's length comes first
        group = int.from_bytes(data[meta : meta + 4], "little") + len(uid) - length
        data[meta : meta + 4] = group.to_bytes(4, "little")
        path.write_bytes(data)
    assert only(tmp_path).reason == "wrong_transfer_syntax"


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_without_photometric_interpretation_grey_values_are_read_and_flagged(tmp_path, syntax):
    volume = write_series(tmp_path) if syntax is None else compressed(tmp_path, syntax)
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.PhotometricInterpretation
        dataset.save_as(path)
    series = only(tmp_path)
    assert series.flags == ("assumed_monochrome",)
    assert np.array_equal(series.volume_hu, volume)


def test_bytes_missing_are_truncated_and_bytes_changed_are_not(tmp_path):
    compressed(tmp_path, JPEGLSLossless)
    path = next(tmp_path.iterdir())
    dataset = pydicom.dcmread(path)
    dataset.Rows = 31
    dataset.save_as(path)
    for other in tmp_path.iterdir():
        if other != path:
            other.unlink()
    assert only(tmp_path).reason == "undecodable_pixel_data"

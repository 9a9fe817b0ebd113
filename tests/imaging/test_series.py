"""What the reader promises of a series, on small files written here. The real cases: test_ctdata.py."""

from __future__ import annotations

import gzip
import json
import sys

import gdcm
import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders import JPEGLSLosslessDecoder
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from fmaudit_core.imaging.errors import ImagingError
from fmaudit_core.imaging.series import REASONS, read_series
from tests.ct_files import volume_hu, write_series, write_slice


def only(path):
    found = read_series(path)
    assert len(found) == 1
    return found[0]


def test_slices_come_in_order_of_position_whatever_files_are_called(tmp_path):
    volume = write_series(tmp_path)
    series = only(tmp_path)
    assert series.status == "accepted"
    assert np.array_equal(series.volume_hu, volume)
    assert series.spacing_zyx_mm == (2.0, 0.8, 0.8)


def test_each_slice_has_its_own_rescale(tmp_path):
    volume = volume_hu()
    for index, hu in enumerate(volume):
        write_slice(tmp_path / f"{index}", hu, z_mm=2.0 * index, number=1, RescaleSlope=1 + (index % 2))
    difference = only(tmp_path).volume_hu - volume
    assert np.all(difference[0::2] == 0)
    assert np.abs(difference[1::2]).max() <= 1  # stored in steps of 2 HU


def test_declared_padding_becomes_air_and_low_values_stay(tmp_path):
    volume = volume_hu()
    volume[:, 0, 0], volume[:, 1, 1] = -1020, -1019
    write_series(tmp_path, volume, PixelPaddingValue=4)
    read = only(tmp_path).volume_hu
    assert np.all(read[:, 0, 0] == -1024)
    assert np.all(read[:, 1, 1] == -1019)


def test_monochrome1_is_a_matter_of_display(tmp_path):
    volume = write_series(tmp_path, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(only(tmp_path).volume_hu, volume)


def test_a_resent_slice_is_dropped_and_another_at_its_place_refuses_the_series(tmp_path):
    volume = write_series(tmp_path / "same")
    write_slice(tmp_path / "same" / "again.dcm", volume[2], z_mm=4.0, number=99)
    same = only(tmp_path / "same")
    assert same.flags == ("duplicate_slices",)
    assert np.array_equal(same.volume_hu, volume)
    write_series(tmp_path / "other")
    write_slice(tmp_path / "other" / "again.dcm", volume[2] + 5, z_mm=4.0, number=99)
    assert only(tmp_path / "other").reason == "duplicate_positions"


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        ([0, 2, 4, 8, 10, 12], "missing_slices"),
        ([0, 2, 4, 6, 8, 10.5], "uneven_spacing"),
        ([0, 2, 4, 6, 8, 10.1], ""),
    ],
)
def test_steps_are_even_within_a_tenth(tmp_path, positions, reason):
    for index, (z_mm, hu) in enumerate(zip(positions, volume_hu(), strict=True)):
        write_slice(tmp_path / f"{index}", hu, z_mm=z_mm, number=index)
    assert only(tmp_path).reason == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"RescaleIntercept": None}, "missing_rescale"),
        ({"ImagePositionPatient": None}, "missing_geometry"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not_axial"),
        ({"PixelData": None}, "no_pixel_data"),
        ({"PixelData": b"\0\0"}, "truncated_pixel_data"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "not_ct_image"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"RescaleType": "Z_EFF"}, "not_hounsfield"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "not_hounsfield"),
        ({"RescaleIntercept": 40000}, "hu_out_of_range"),
    ],
)
def test_a_spoiled_series_is_refused_by_name(tmp_path, changes, reason):
    write_series(tmp_path, **changes)
    series = only(tmp_path)
    assert (series.status, series.reason) == ("quarantined", reason)


def test_one_slice_of_another_matrix_refuses_the_series(tmp_path):
    write_series(tmp_path)
    write_slice(tmp_path / "x.dcm", volume_hu(1, 16)[0], z_mm=20.0, number=1)
    assert only(tmp_path).reason == "inconsistent_geometry"


def test_junk_beside_a_series_is_counted_and_two_series_stay_two(tmp_path):
    write_series(tmp_path / "a", series="1.1")
    write_series(tmp_path / "b", volume_hu(4), series="1.2")
    (tmp_path / "a" / "empty.dcm").touch()
    (tmp_path / "a" / "notes.txt").write_text("hello")
    (tmp_path / ".hidden").write_text("x")
    first, second = read_series(tmp_path)
    assert (first.series_uid, first.n_slices, first.flags) == ("1.1", 6, ("unreadable_files",))
    assert (second.series_uid, second.n_slices) == ("1.2", 4)


def test_an_empty_folder_and_a_missing_path(tmp_path):
    assert only(tmp_path).reason == "no_images"
    with pytest.raises(ImagingError, match="does not exist"):
        read_series(tmp_path / "nowhere")


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "ASL"])
def test_nifti_of_any_axes_reads_as_the_same_volume(tmp_path, codes):
    volume = volume_hu(5, 16)
    lps_affine = np.diag([-0.8, -0.8, 2.0, 1.0])  # array (x, y, z) of an LPS volume, in RAS space
    image = nib.Nifti1Image(volume.transpose(2, 1, 0), lps_affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = image.as_reoriented(turn)
    turned.set_qform(turned.affine, code=1)
    nib.save(turned, tmp_path / "ct.nii.gz")
    series = only(tmp_path / "ct.nii.gz")
    assert np.array_equal(series.volume_hu, volume)
    assert series.spacing_zyx_mm == pytest.approx((2.0, 0.8, 0.8))


def test_a_cut_off_gzip_stream_is_named(tmp_path):
    whole = gzip.compress(nib.Nifti1Image(volume_hu(), np.eye(4)).to_bytes())
    (tmp_path / "ct.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert only(tmp_path / "ct.nii.gz").reason == "truncated_pixel_data"


def as_jpeg_lossless(path):
    """Rewrite a file with GDCM, the one library here that writes this syntax."""
    reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    dataset = pydicom.dcmread(path)
    dataset.RescaleType = "HU"  # GDCM wrote "unspecified"
    dataset.save_as(path)


def compressed_series(folder, syntax):
    volume = write_series(folder)
    for path in folder.iterdir():
        if syntax == JPEGLosslessSV1:
            as_jpeg_lossless(path)
        else:
            dataset = pydicom.dcmread(path)
            dataset.compress(syntax, generate_instance_uid=False)
            dataset.save_as(path)
    return volume


COMPRESSED = [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless]


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.keyword)
def test_compressed_slices_read_alike_and_need_no_gpl_decoder(tmp_path, monkeypatch, syntax):
    monkeypatch.setitem(sys.modules, "libjpeg", None)  # as where it is not installed
    volume = compressed_series(tmp_path, syntax)
    series = only(tmp_path)
    assert series.transfer_syntaxes == (syntax,)
    assert series.flags == ()
    assert np.array_equal(series.volume_hu, volume)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.keyword)
def test_a_stream_cut_inside_its_item_refuses_the_series(tmp_path, syntax):
    compressed_series(tmp_path, syntax)
    path = next(tmp_path.iterdir())
    dataset = pydicom.dcmread(path)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([stream[: len(stream) // 4 * 2]])
    dataset.save_as(path)
    assert only(tmp_path).reason == "truncated_pixel_data"


def test_a_syntax_without_its_decoder_is_named_as_such(tmp_path, monkeypatch):
    compressed_series(tmp_path, JPEGLSLossless)
    monkeypatch.setattr(JPEGLSLosslessDecoder, "_available", {})
    assert only(tmp_path).reason == "unsupported_transfer_syntax"


@pytest.mark.parametrize("padding", [-32768, -2000])
def test_padding_below_16_bits_of_hu_is_air_and_refuses_nothing(tmp_path, padding):
    want = volume_hu()
    want[:, :2] = -1024
    for index, hu in enumerate(want):
        stored = (hu + 1024).astype("<i2")
        stored[:2] = padding
        changes = {"PixelRepresentation": 1, "PixelPaddingValue": padding, "PixelData": stored.tobytes()}
        write_slice(tmp_path / f"{index}", hu, z_mm=2.0 * index, number=1, **changes)
    assert np.array_equal(only(tmp_path).volume_hu, want)


@pytest.mark.parametrize(("n_frames", "reason"), [(1, ""), (2, "missing_geometry")])
def test_frames_without_a_place_of_their_own_are_refused(tmp_path, n_frames, reason):
    write_slice(tmp_path / "x", volume_hu(1)[0], z_mm=0, number=1, NumberOfFrames=n_frames)
    assert only(tmp_path).reason == reason


def test_one_slice_without_thickness_says_that_its_spacing_is_assumed(tmp_path):
    write_slice(tmp_path / "x", volume_hu(1)[0], z_mm=0, number=1, SliceThickness=None)
    assert only(tmp_path).flags == ("assumed_thickness",)


@given(seed=st.integers(0, 2**32 - 1), syntax=st.sampled_from([None, *COMPRESSED]))
@settings(max_examples=100, deadline=None)
def test_a_damaged_file_is_read_or_named_and_never_a_traceback(tmp_path_factory, seed, syntax):
    folder = tmp_path_factory.getbasetemp() / "damage" / (syntax.keyword if syntax else "plain")
    if not folder.exists():
        write_series(folder) if syntax is None else compressed_series(folder, syntax)
    whole = next(folder.glob("*.dcm")).read_bytes()
    rng = np.random.default_rng(seed)
    damaged = bytearray(whole[: rng.integers(len(whole) // 2, len(whole) + 1)])
    for at in rng.integers(0, min(len(damaged), 1200), rng.integers(0, 12)):
        damaged[at] = rng.integers(256)
    (folder / "damaged").write_bytes(damaged)
    for series in read_series(folder / "damaged"):
        assert series.status == "accepted" or series.reason in REASONS
        json.dumps(series.facts())

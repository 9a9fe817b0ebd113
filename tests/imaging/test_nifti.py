"""NIfTI space and containers: units, affines that contradict each other, pairs, wrong suffixes, archives."""

from __future__ import annotations

import gzip
import zipfile

import nibabel as nib
import numpy as np
import pytest

from fmaudit_core.imaging.series import read_series
from tests.ct_files import volume_hu, write_series

VOLUME = volume_hu(5, 16)
LPS = np.diag([-0.8, -0.8, 2.0, 1.0])


def image(affine=LPS, **codes):
    made = nib.Nifti1Image(VOLUME.transpose(2, 1, 0), affine)
    made.set_qform(affine, code=codes.get("qform", 1))
    made.set_sform(affine, code=codes.get("sform", 1))
    return made


def read(folder, made):
    nib.save(made, folder / "ct.nii.gz")
    (series,) = read_series(folder / "ct.nii.gz")
    return series


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000.0), ("mm", 1.0), ("micron", 0.001), ("unknown", 1.0)])
def test_units_of_length_are_honoured(tmp_path, unit, mm):
    made = image(np.diag([*(np.diag(LPS)[:3] / mm), 1.0]))
    made.header.set_xyzt_units(unit)
    series = read(tmp_path, made)
    assert series.spacing_zyx_mm == pytest.approx((2.0, 0.8, 0.8), abs=1e-4)
    assert np.array_equal(series.volume_hu, VOLUME)


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_a_unit_that_the_numbers_contradict_is_refused(tmp_path, unit):
    made = image()
    made.header.set_xyzt_units(unit)
    assert read(tmp_path, made).reason == "implausible_spacing"


@pytest.mark.parametrize(
    "other",
    [
        np.diag([0.8, -0.8, 2.0, 1.0]),
        np.diag([-0.8, -0.8, 2.5, 1.0]),
        np.eye(4),
        np.array([[0, -0.8, 0, 0], [-0.8, 0, 0, 0], [0, 0, 2.0, 0], [0, 0, 0, 1]]),
    ],
)
@pytest.mark.parametrize("code", [1, 2, 4])
def test_affines_that_give_other_volumes_are_refused(tmp_path, other, code):
    made = image()
    made.set_sform(other, code=code)
    assert read(tmp_path, made).reason == "contradictory_affine"


def test_pixdim_against_the_only_affine(tmp_path):
    made = image(qform=0)
    made.header["pixdim"][1:4] = (0.8, 0.8, 5.0)
    assert read(tmp_path, made).reason == "contradictory_affine"
    made.header["pixdim"][1:4] = 0  # not filled in
    assert read(tmp_path, made).flags == ("affines_differ",)


def turned(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    out = np.eye(4)
    out[:2, :2] = [[c, -s], [s, c]]
    return out @ LPS


def test_rounding_and_another_origin_are_no_contradiction(tmp_path):
    made = image()
    made.set_sform(LPS * (1 + 1e-4) + np.array([[0, 0, 0, 30.0]] * 3 + [[0] * 4]), code=1)
    assert read(tmp_path, made).flags == ()


def test_a_small_rotation_between_affines_is_flagged(tmp_path):
    made = image()
    made.set_sform(turned(5), code=2)
    assert set(read(tmp_path, made).flags) == {"affines_differ", "oblique"}


def test_a_sheared_affine_agrees_with_the_step_or_the_distance_of_planes(tmp_path):
    sheared = LPS.copy()
    sheared[1, 2] = 2.0 * np.tan(np.radians(18))
    made = image(qform=0)
    made.set_sform(sheared, code=1)
    made.header["pixdim"][1:4] = (0.8, 0.8, 2.0)
    assert read(tmp_path, made).status == "accepted"


def test_a_plain_file_named_gz_and_a_packed_one_named_nii_are_read(tmp_path):
    data = image().to_bytes()
    for name, written in {"a.nii.gz": data, "b.nii": gzip.compress(data)}.items():
        (tmp_path / name).write_bytes(written)
        (series,) = read_series(tmp_path / name)
        assert np.array_equal(series.volume_hu, VOLUME)


@pytest.mark.parametrize("suffix", [".hdr", ".img"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_pair_is_one_volume_whichever_file_is_given(tmp_path, suffix, packed):
    nib.save(nib.Nifti1Pair(VOLUME.transpose(2, 1, 0), LPS), tmp_path / f"ct.img{packed}")
    for path in (tmp_path, tmp_path / f"ct{suffix}{packed}"):
        (series,) = read_series(path)
        assert np.array_equal(series.volume_hu, VOLUME)
        assert series.spacing_zyx_mm == pytest.approx((2.0, 0.8, 0.8))


@pytest.mark.parametrize("kept", [".hdr", ".img"])
def test_half_of_a_pair_is_named(tmp_path, kept):
    nib.save(nib.Nifti1Pair(VOLUME.transpose(2, 1, 0), LPS), tmp_path / "ct.img")
    (tmp_path / f"ct{({'.hdr', '.img'} - {kept}).pop()}").unlink()
    for path in (tmp_path, tmp_path / f"ct{kept}"):
        (series,) = read_series(path)
        assert series.reason == "half_of_a_pair"


def test_a_pair_cut_short_is_truncated(tmp_path):
    nib.save(nib.Nifti1Pair(VOLUME.transpose(2, 1, 0), LPS), tmp_path / "ct.img")
    voxels = tmp_path / "ct.img"
    voxels.write_bytes(voxels.read_bytes()[:-2])
    (series,) = read_series(tmp_path)
    assert series.reason == "truncated_pixel_data"


def test_analyze_has_no_orientation_and_is_named(tmp_path):
    nib.save(nib.AnalyzeImage(VOLUME.transpose(2, 1, 0), LPS), tmp_path / "ct.img")
    (series,) = read_series(tmp_path)
    assert series.reason == "other_volume_format"


@pytest.mark.parametrize("name", ["study.zip", "study", "ct.nii.gz", "study.dcm"])
def test_an_archive_is_told_to_be_unpacked(tmp_path, name):
    write_series(tmp_path / "ct")
    (tmp_path / "out").mkdir()
    with zipfile.ZipFile(tmp_path / "out" / name, "w") as archive:
        for path in (tmp_path / "ct").iterdir():
            archive.write(path, path.name)
    for path in (tmp_path / "out", tmp_path / "out" / name):
        (series,) = read_series(path)
        assert series.reason == "archive"
        assert "unpack" in series.explained()


def test_a_packed_dicom_file_and_other_formats_are_named(tmp_path):
    write_series(tmp_path / "ct")
    first = next((tmp_path / "ct").iterdir()).read_bytes()
    kinds = {"a.dcm.gz": (gzip.compress(first), "archive"), "b.nrrd": (b"NRRD0004\ntype: short", "other_volume_format")}
    kinds |= {"c.mha": (b"ObjectType = Image\nNDims = 3", "other_volume_format")}
    for name, (data, reason) in kinds.items():
        (tmp_path / name).write_bytes(data)
        (series,) = read_series(tmp_path / name)
        assert series.reason == reason


def test_dicom_files_named_img_are_read(tmp_path):
    volume = write_series(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_suffix(".img"))
    (series,) = read_series(tmp_path)
    assert np.array_equal(series.volume_hu, volume)

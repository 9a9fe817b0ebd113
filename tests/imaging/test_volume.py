"""Whole volumes on a grid: against torch's area interpolation and SimpleITK's resampling."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.imaging.volume import AIR_HU, Grid
from fmaudit_core.imaging.window import View
from tests.ct_files import write_series

SIDES = st.integers(4, 13)


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(-1024, 1500, shape).astype(np.int16)


@settings(max_examples=40)
@given(st.tuples(SIDES, SIDES, SIDES), st.tuples(SIDES, SIDES, SIDES))
def test_squashing_is_torchs_area_interpolation(have, want):
    volume = noise(have)
    peer = torch.nn.functional.interpolate(torch.from_numpy(volume)[None, None].double(), size=want, mode="area")
    got = Grid(shape_zyx=want).apply(volume)
    assert got.dtype == np.int16
    assert np.abs(got - peer[0, 0].numpy()).max() <= 0.5 + 1e-3  # rounded to whole HU


@pytest.mark.parametrize("wanted", [(3.0, 1.5, 1.5), (1.0, 0.9, 2.0)])
def test_another_spacing_is_simpleitks_linear_resampling(wanted):
    volume, spacing, shape = noise((9, 20, 22)), (2.5, 0.8, 0.7), (12, 11, 16)
    image = sitk.GetImageFromArray(volume.astype(np.float64))
    image.SetSpacing(spacing[::-1])
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    origin = [m - (n - 1) / 2 * s for m, n, s in zip(middle, shape[::-1], wanted[::-1], strict=True)]
    resample = sitk.ResampleImageFilter()
    resample.SetSize(shape[::-1])
    resample.SetOutputSpacing(wanted[::-1])
    resample.SetOutputOrigin(origin)
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetDefaultPixelValue(AIR_HU)
    peer = sitk.GetArrayFromImage(resample.Execute(image))
    got = Grid(shape_zyx=shape, spacing_zyx_mm=wanted).apply(volume, spacing)
    assert np.abs(got - peer).max() <= 0.5 + 1e-3
    assert (got == AIR_HU).any()  # part of the grid lies outside the volume


def test_a_spacing_needs_the_volumes():
    with pytest.raises(ValueError, match="spacing is needed"):
        Grid(shape_zyx=(4, 4, 4), spacing_zyx_mm=(1, 1, 1)).apply(noise((4, 4, 4)))


def test_what_lies_around_the_body_is_cut_and_ras_turns_columns_and_rows():
    volume = np.full((8, 10, 12), -1024, np.int16)
    volume[2:6, 1:9, 3:11] = noise((4, 8, 8)).clip(-999, None)
    body = volume[2:6, 1:9, 3:11]
    assert np.array_equal(Grid(shape_zyx=(4, 8, 8), crop_above_hu=-1000).apply(volume), body)
    turned = Grid(shape_zyx=(4, 8, 8), crop_above_hu=-1000, orientation="RAS").apply(volume)
    assert np.array_equal(turned, body[:, ::-1, ::-1])
    air = np.full((4, 4, 4), -1024, np.int16)
    assert np.array_equal(Grid(shape_zyx=(4, 4, 4), crop_above_hu=-1000).apply(air), air)


def test_a_view_is_of_slices_or_of_a_volume():
    grid = {"shape_zyx": [4, 8, 8]}
    with pytest.raises(ValidationError, match="set `values: int16`"):
        View.model_validate({"volume": grid})
    with pytest.raises(ValidationError, match="apply to slices"):
        View.model_validate({"volume": grid, "values": "int16", "stride": 2})
    view = View.model_validate({"volume": grid, "values": "int16"})
    assert view.apply(noise((6, 9, 9))).shape == (4, 1, 8, 8)
    other = View.model_validate({"volume": {"shape_zyx": [4, 8, 9]}, "values": "int16"})
    assert len({view.key(), other.key(), View(values="int16").key()}) == 3


def test_the_store_keeps_volumes_at_the_spacing_of_their_series(tmp_path):
    write_series(tmp_path / "ct" / "one")
    view = View.model_validate(
        {"values": "int16", "volume": {"shape_zyx": [4, 8, 8], "spacing_zyx_mm": [50 / 4, 2, 2]}}
    )
    plain = View(values="int16")
    store = SliceStore(tmp_path / "slices")
    quality = store.build([("one", tmp_path / "ct" / "one")], [view, plain], workers=1)
    spacing = (quality["spacing_mm"][0], quality["in_plane_mm"][0], quality["in_plane_mm"][0])
    want = view.volume.apply(store.read("one", plain)[:, 0], spacing)
    assert np.array_equal(store.read("one", view)[:, 0], want)


@pytest.mark.parametrize(
    ("shape", "spacing", "wanted", "size"),
    [
        ((40, 61, 53), (2.5, 0.8, 0.8), (3.0, 1.5, 1.5), (32, 40, 24)),  # cropped and padded
        ((31, 40, 40), (1.25, 0.7, 0.9), (2.0, 2.0, 2.0), (24, 10, 30)),
        ((20, 33, 30), (5.0, 1.0, 1.0), (1.5, 0.75, 0.75), (70, 40, 64)),  # finer
        ((21, 9, 10), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (8, 9, 11)),  # odd and even sizes
        ((17, 20, 20), (3.0, 0.5, 0.5), (2.0, 1.5, 1.5), (27, 7, 8)),
    ],
)
def test_a_grid_from_the_first_voxel_equals_monai(shape, spacing, wanted, size):
    from monai.data import MetaTensor
    from monai.transforms import ResizeWithPadOrCrop, Spacing

    volume = noise(shape)
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    theirs = MetaTensor(torch.from_numpy(volume.astype(np.float32))[None], affine=affine)
    theirs = Spacing(pixdim=wanted, mode="bilinear", padding_mode="border")(theirs)
    theirs = ResizeWithPadOrCrop(size, mode="constant", value=-1000)(theirs).numpy()[0]
    ours = Grid(shape_zyx=size, spacing_zyx_mm=wanted, anchor="first_voxel", pad_hu=-1000).apply(volume, spacing)
    assert np.abs(ours - theirs).max() <= 0.5 + 1e-3  # ours are whole HU


def test_anchor_and_padding_belong_to_a_spacing():
    with pytest.raises(ValueError, match="apply to a grid with `spacing_zyx_mm`"):
        Grid(shape_zyx=(4, 4, 4), anchor="first_voxel")


def test_the_key_of_a_grid_is_that_of_versions_without_anchor_and_padding():
    grid = Grid(shape_zyx=(4, 4, 4), spacing_zyx_mm=(1, 1, 1))
    assert set(grid.key()) == {"shape_zyx", "orientation", "crop_above_hu", "spacing_zyx_mm"}
    assert grid.model_copy(update={"anchor": "first_voxel"}).key() != grid.key()

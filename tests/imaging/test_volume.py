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


def by_torchio(volume, spacing, wanted, size):
    """torchio 1: `Resample` keeps the centre and floor(n have / want) points, `CropOrPad` whole voxels, one more at the start.

    `transforms/preprocessing/spatial/resample.py`, get_reference_image, and `crop_or_pad.py`, _get_six_bounds_parameters, of
    torchio 1.2.1, which COLIPRI 0.1.3 is used with; here by SimpleITK, in which torchio resamples too.
    """
    image = sitk.GetImageFromArray(volume.astype(np.float64))
    image.SetSpacing(spacing[::-1])
    old, have, want = (np.array(one, float)[::-1] for one in (volume.shape, spacing, wanted))
    new = np.maximum(np.floor(old * have / want), 1)
    reference = sitk.Image(new.astype(int).tolist(), sitk.sitkFloat64)
    reference.SetSpacing(want.tolist())
    reference.SetOrigin(((old - 1) * have / 2 - (new - 1) / 2 * want).tolist())
    resample = sitk.ResampleImageFilter()
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetReferenceImage(reference)
    out = sitk.GetArrayFromImage(resample.Execute(image))
    for axis, side in enumerate(size):
        more = side - out.shape[axis]
        first, last = int(np.ceil(abs(more) / 2)), abs(more) // 2
        if more > 0:
            out = np.pad(out, [(first, last) if one == axis else (0, 0) for one in range(3)], constant_values=-1000)
        else:
            out = out.take(range(first, out.shape[axis] - last), axis=axis)
    return out


@pytest.mark.parametrize(
    ("shape", "spacing", "wanted", "size"),
    [
        ((40, 61, 53), (2.5, 0.8, 0.8), (2.0, 2.0, 2.0), (44, 30, 24)),  # odd and even numbers cropped and padded
        ((31, 40, 40), (1.25, 0.7, 0.9), (2.0, 2.0, 2.0), (24, 9, 30)),
        ((20, 33, 30), (5.0, 1.0, 1.0), (1.5, 0.75, 0.75), (71, 40, 64)),
        ((21, 9, 10), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (8, 10, 11)),
    ],
)
def test_a_grid_of_whole_voxels_equals_torchio(shape, spacing, wanted, size):
    volume = noise(shape)
    ours = Grid(shape_zyx=size, spacing_zyx_mm=wanted, anchor="whole_voxels", pad_hu=-1000).apply(volume, spacing)
    assert np.abs(ours - by_torchio(volume, spacing, wanted, size)).max() <= 0.5 + 1e-3


def by_simpleitk(volume, spacing, wanted, size):
    """The grid of Pillar-0: `ResampleImageFilter` from the origin of the scan, then cropped or padded about the centre.

    One more voxel is cropped or padded at the end, as in `rate_eval/datasets/rve_dataset.py`, load_cached_volume, of its authors.
    """
    image = sitk.GetImageFromArray(volume.astype(np.float64))
    image.SetSpacing(spacing[::-1])
    image.SetOrigin((-120.5, 80.25, -900.0))
    resample = sitk.ResampleImageFilter()
    resample.SetSize(
        [round(n * have / want) for n, have, want in zip(image.GetSize(), spacing[::-1], wanted[::-1], strict=True)]
    )
    resample.SetOutputSpacing(wanted[::-1])
    resample.SetOutputOrigin(image.GetOrigin())
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetDefaultPixelValue(AIR_HU)
    out = sitk.GetArrayFromImage(resample.Execute(image))
    for axis, side in enumerate(size):
        more = side - out.shape[axis]
        if more > 0:
            width = [(more // 2, more - more // 2) if one == axis else (0, 0) for one in range(3)]
            out = np.pad(out, width, constant_values=AIR_HU)
        else:
            out = out.take(range(-more // 2, -more // 2 + side), axis=axis)
    return out


@pytest.mark.parametrize(
    ("shape", "spacing", "size"),
    [
        ((40, 61, 53), (2.5, 0.8, 0.8), (64, 32, 40)),
        ((61, 50, 50), (1.0, 0.6875, 0.6875), (48, 24, 28)),
        ((20, 33, 30), (5.0, 1.25, 1.25), (90, 40, 24)),
        ((21, 40, 41), (3.0, 0.7, 0.9), (50, 22, 30)),
    ],
)
def test_a_grid_from_the_origin_equals_simpleitk(shape, spacing, size):
    volume, wanted = noise(shape), (1.25, 1.25, 1.25)
    ours = Grid(shape_zyx=size, spacing_zyx_mm=wanted, anchor="origin").apply(volume, spacing)
    assert np.abs(ours - by_simpleitk(volume, spacing, wanted, size)).max() <= 0.5 + 1e-3


def test_a_grid_from_the_origin_has_as_many_slices_as_the_example_of_the_authors_of_pillar0():
    """`data/rve_example/volumes/EXAMPLE_ACCESSION/metadata.json` of `rate-evals`: 404 slices of 1 mm, 269 of 1.5 mm."""
    grid = Grid(shape_zyx=(300, 4, 4), spacing_zyx_mm=(1.5, 1.0, 1.0), anchor="origin")
    got = grid.apply(np.full((404, 4, 4), 50, np.int16), (1.0, 1.0, 1.0))
    assert (got == 50).all(axis=(1, 2)).sum() == 269
    assert (got == AIR_HU).all(axis=(1, 2)).sum() == 300 - 269


def test_anchor_and_padding_belong_to_a_spacing():
    with pytest.raises(ValueError, match="apply to a grid with `spacing_zyx_mm`"):
        Grid(shape_zyx=(4, 4, 4), anchor="first_voxel")


def test_the_key_of_a_grid_is_that_of_versions_without_anchor_and_padding():
    grid = Grid(shape_zyx=(4, 4, 4), spacing_zyx_mm=(1, 1, 1))
    assert set(grid.key()) == {"shape_zyx", "orientation", "crop_above_hu", "spacing_zyx_mm"}
    assert grid.model_copy(update={"anchor": "first_voxel"}).key() != grid.key()


PATCHES = {"spacing_zyx_mm": [3, 1.5, 1.5], "patch_zyx": [4, 8, 8]}


@settings(max_examples=60)
@given(st.tuples(st.integers(4, 9), st.integers(4, 9)), st.integers(0, 30), st.sampled_from([0.0, 0.25, 0.5, 0.8]))
def test_patches_lie_where_monais_sliding_window_has_them(sides, more, overlap):
    from monai.data.utils import dense_patch_slices

    (rows, columns), patch = (sides[0] + more, sides[1] + more // 2), (4, *sides)
    grid = Grid(shape_zyx=(4, rows, columns), patch_zyx=patch, overlap=overlap)
    steps = [
        n if n == side else int(side * (1 - overlap)) or 1 for n, side in zip((4, rows, columns), patch, strict=True)
    ]
    volume = noise((4, 1, rows, columns))
    got = list(grid.items(volume))
    want = [volume[:, 0][at] for at in dense_patch_slices((4, rows, columns), patch, steps)]
    assert len(got) == len(want) == grid.n_items((1, 1, 1), (1, 1, 1))
    assert all(np.array_equal(one[0, :, 0], other) for one, other in zip(got, want, strict=True))


def test_patches_are_read_without_a_copy_and_cover_the_volume():
    view = View.model_validate({"values": "int16", "volume": {"shape_zyx": [10, 20, 20], **PATCHES, "overlap": 0.5}})
    stored = view.apply(noise((12, 30, 30)), (3.0, 1.5, 1.5))
    assert stored.shape == (10, 1, 20, 20)
    patches = list(view.items(stored))
    assert {one.shape for one in patches} == {(1, 4, 1, 8, 8)}
    assert all(np.shares_memory(one, stored) for one in patches)
    seen = np.zeros(stored.shape, bool)
    for z, y, x in ((z, y, x) for z in (0, 2, 4, 6) for y in (0, 4, 8, 12) for x in (0, 4, 8, 12)):
        seen[z : z + 4, :, y : y + 8, x : x + 8] = True
    assert len(patches) == 64
    assert seen.all()


@pytest.mark.parametrize("anchor", ["first_voxel", "origin", "whole_voxels"])
def test_a_volume_at_its_own_extent_is_padded_to_a_multiple(anchor):
    grid = Grid.model_validate(PATCHES | {"multiple_of": [4, 8, 16], "anchor": anchor, "pad_hu": -1000})
    volume = noise((11, 40, 40)).clip(-900, None)
    got = grid.apply(volume, (3.0, 1.5, 1.5))
    assert got.shape == grid.shape_of(volume.shape, (3.0, 1.5, 1.5)) == (12, 40, 48)
    inside = got[got > -1000]
    assert np.array_equal(np.sort(inside), np.sort(volume.ravel()))
    assert grid.shape_of(volume.shape, (6.0, 0.75, 3.0))[1:] == (24, 80)
    assert grid.n_items(volume.shape, (3.0, 1.5, 1.5)) == 3 * 5 * 6
    centred = grid.model_copy(update={"anchor": "centre"})
    assert centred.apply(volume, (3.0, 1.5, 1.5)).shape == (12, 40, 48)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"spacing_zyx_mm": [1, 1, 1]}, "needs `shape_zyx`, or"),
        ({"shape_zyx": [8, 8, 8], "multiple_of": [4, 4, 4]}, "needs `shape_zyx`, or"),
        ({"multiple_of": [8, 8, 8], "spacing_zyx_mm": [1, 1, 1]}, "`multiple_of` needs"),
        ({"multiple_of": [8, 8, 8], "patch_zyx": [4, 4, 4]}, "`multiple_of` needs"),
        ({"shape_zyx": [8, 8, 8], "overlap": 0.5}, "`overlap` needs `patch_zyx`"),
        ({"shape_zyx": [8, 8, 8], "patch_zyx": [4, 4, 9]}, "must not be larger"),
        ({"shape_zyx": [8, 8, 8], "patch_zyx": [4, 4, 4], "overlap": 0.95}, "less than or equal to 0.9"),
    ],
)
def test_patches_that_are_none_are_refused(grid, message):
    with pytest.raises(ValidationError, match=message):
        Grid.model_validate(grid)


def test_other_patches_are_another_view_and_whole_volumes_keep_their_digest():
    whole = {"values": "int16", "volume": {"shape_zyx": [8, 16, 16], "spacing_zyx_mm": [3, 1.5, 1.5]}}
    cut = whole | {"volume": whole["volume"] | {"patch_zyx": [4, 8, 8]}}
    lapped = whole | {"volume": cut["volume"] | {"overlap": 0.5}}
    views = [View.model_validate(one) for one in (whole, cut, lapped)]
    assert len({view.key() for view in views}) == 3
    assert [view.item for view in views] == ["volume", "patch", "patch"]
    assert set(views[0].volume.key()) == {"shape_zyx", "orientation", "crop_above_hu", "spacing_zyx_mm"}

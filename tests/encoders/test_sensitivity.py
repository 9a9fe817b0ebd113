"""What an encoder sees of an altered CT: flips that it is blind to, and those that it sees, in numbers and in words."""

from __future__ import annotations

import numpy as np
import pytest

from fmaudit_core.encoders.alterations import ALTERATIONS, Scan, items_of
from fmaudit_core.encoders.sensitivity import measure_sensitivity
from fmaudit_core.encoders.sensitivity_words import PATIENTS, sensitivity_sentence
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.volume import Grid
from fmaudit_core.imaging.window import View

SLICES = {"windows": ["lung", "pe"], "size_px": 32}
HU = {"values": "int16"}
GRID = {"values": "int16", "volume": {"shape_zyx": [8, 16, 16]}}
SPACED = {"values": "int16", "volume": {"shape_zyx": [8, 16, 16], "spacing_zyx_mm": [4, 3, 3]}}


class Blind:
    """Sees how much there is of each grey value, never where."""

    device = "cpu"

    def encode(self, items):
        flat = items.reshape(len(items), -1)
        return (
            np.stack([np.quantile(flat, q, axis=1) for q in (0.25, 0.5, 0.75, 0.9)], axis=1).astype(np.float32) + 1100
        )


class Sides:
    """Sees the middle of the left, the right, the front and the back, less what there is on average."""

    device = "cpu"

    def encode(self, items):
        size = items.shape[-1] // 2
        parts = [items[..., :size], items[..., size:], items[..., :size, :], items[..., size:, :]]
        found = np.stack([one.reshape(len(items), -1).mean(axis=1) for one in parts], axis=1)
        return (found - found.mean(axis=1, keepdims=True)).astype(np.float32)


class Ends(Sides):
    """Sees the head and the feet of a volume."""

    def encode(self, items):
        return super().encode(items.transpose(0, 3, 2, 4, 1))


class Same:
    device = "cpu"

    def encode(self, items):
        return np.ones((len(items), 4), np.float32)


def scan(patient):
    """A body with a heart at its left and front, a liver at the feet and the right: other sizes and places in each patient."""
    rng = np.random.default_rng([7, patient])
    z, y, x = np.mgrid[-1:1:20j, -1:1:40j, -1:1:40j]
    volume = np.full(z.shape, -1000, np.int16)
    for hu, at, size in (
        (40, (0, 0, 0), 0.9), (-800, (0.1, 0, 0), 0.7), (350, (0, -0.3, 0.3), 0.4), (100, (-0.6, 0.1, -0.4), 0.4),
    ):  # fmt: skip
        dz, dy, dx = at + rng.uniform(-0.01, 0.01, 3)
        size *= rng.uniform(0.9, 1.1)
        volume[((z - dz) / 1.2) ** 2 + (y - dy) ** 2 + (x - dx) ** 2 < size**2] = hu + rng.integers(-20, 20)
    return Scan(volume + rng.integers(-10, 11, volume.shape, dtype=np.int16), (5.0, 2.0, 2.0))


SCANS = [scan(patient) for patient in range(3)]


def measured(encoder, view):
    spec = EncoderSpec(name="x", adapter="y", dim=4, view=view)
    return {one.alteration: one for one in measure_sensitivity(encoder, spec, SCANS)}


def said(found, alteration):
    one = found[alteration]
    return sensitivity_sentence(one.alteration, one.status, one.relative_distance)


@pytest.mark.parametrize("view", [SLICES, HU, GRID])
def test_an_encoder_that_is_blind_to_flips_is_reported(view):
    found = measured(Blind(), view)
    for name in ("flip_left_right", "flip_front_back", "orientation"):
        assert found[name].status == "measured"
        assert found[name].cosine == pytest.approx(1, abs=1e-6)
        assert found[name].relative_distance < 0.01
    assert said(found, "flip_left_right") == (
        "A flipped left-right axis moves it less than another patient would (under 1% as far): it does not see sides."
    )
    assert "it does not tell front from back" in said(found, "flip_front_back")
    assert found[PATIENTS].n == 3
    assert found["spacing"].n == 3


@pytest.mark.parametrize("view", [SLICES, HU, GRID, SPACED])
def test_an_encoder_that_sees_sides_is_reported_as_such(view):
    found = measured(Sides(), view)
    assert found["flip_left_right"].relative_distance > 1
    assert said(found, "flip_left_right").endswith("times): it sees sides.")
    assert "at least as far as another patient" in said(found, "orientation")
    assert found["half_voxel_shift"].relative_distance < found["flip_left_right"].relative_distance


def test_pooled_slices_have_no_order_and_a_volume_has():
    assert measured(Sides(), SLICES)["flip_head_foot"].status == "not_applicable"
    assert "does not apply" in said(measured(Sides(), SLICES), "flip_head_foot")
    assert measured(Ends(), GRID)["flip_head_foot"].relative_distance > 1
    assert "it does not tell head from feet" in said(measured(Sides(), GRID), "flip_head_foot")


def test_windows_and_clipping_apply_to_their_values_alone():
    grey, hu = measured(Sides(), SLICES), measured(Sides(), GRID)
    assert (grey["clip"].status, grey["window"].status) == ("not_applicable", "measured")
    assert (hu["clip"].status, hu["window"].status) == ("measured", "not_applicable")
    assert grey["window"].relative_distance > 0
    assert hu["clip"].relative_distance > 0


def test_an_encoder_that_says_the_same_of_everybody_is_not_compared():
    found = measured(Same(), SLICES)
    assert {one.status for one in found.values()} == {"not_estimable", "not_applicable"}
    assert "almost the same embedding" in said(found, PATIENTS)
    assert "cannot be compared" in said(found, "jpeg")


def test_it_is_the_same_every_time():
    assert measured(Sides(), SLICES) == measured(Sides(), SLICES)


def test_every_alteration_has_its_words_and_keeps_the_shape():
    for raw in (SLICES, HU, GRID, SPACED):
        view = View.model_validate(raw)
        plain = items_of(view, SCANS[0])
        for alteration in ALTERATIONS:
            items = alteration.items(view, SCANS[0])
            status = "not_applicable" if items is None else "measured"
            assert sensitivity_sentence(alteration.name, status, None if items is None else 0.5).endswith(".")
            if items is not None:
                assert items.dtype == plain.dtype
                assert len(items) == len(plain)
                assert not np.array_equal(items, plain), alteration.name


def test_half_the_spacing_magnifies_whatever_the_grid():
    """What lies between the middle and the edge comes to lie at the edge."""
    marked = np.full((16, 32, 32), -1000, np.int16)
    marked[4:12, 8:24, 8:24] = 500
    (spacing,) = [one for one in ALTERATIONS if one.name == "spacing"]
    one = Scan(marked, (4.0, 3.0, 3.0))
    for raw in (GRID, SPACED):
        inside = spacing.items(View.model_validate(raw), one)
        assert (inside == 500).mean() > 0.9
    grid = Grid.model_validate(GRID["volume"])
    assert (grid.apply(marked) == 500).mean() == pytest.approx(1 / 8)


def test_a_study_is_standardised_as_it_is_when_embedded():
    seen = []

    class Keeps(Blind):
        def encode(self, items):
            seen.append(items)
            return super().encode(items)

    spec = EncoderSpec(
        name="x", adapter="y", dim=4, view=HU, input={"size_px": 32, "zscore": "study", "mean": [0.0], "std": [1.0]}
    )
    measure_sensitivity(Keeps(), spec, SCANS)
    assert np.concatenate(seen[:1]).mean() == pytest.approx(0, abs=1e-3)

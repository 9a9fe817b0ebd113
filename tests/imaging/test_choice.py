"""One series of a study is used: rules first, then the stated order; slices, table, library and command line agree."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from fmaudit_core.imaging.choice import CHOICES
from fmaudit_core.imaging.rules import RULE_REASONS, SeriesPattern, SeriesRules
from fmaudit_core.imaging.series import read_series
from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.imaging.window import View
from tests.ct_files import volume_hu, write_series, write_slice

HU = View(values="int16")


def write(folder, uid, *, slices=6, step_mm=2.0, seed=0, **changes):
    changes = {"SliceThickness": step_mm, **changes}
    return write_series(folder / uid, volume_hu(slices, seed=seed), step_mm=step_mm, series=uid, **changes)


def study(folder):
    """Everything a PACS sends for one examination; return the volumes by UID."""
    volumes = {
        "1.2": write(folder, "1.2", slices=8, step_mm=1.0, seed=2, SeriesNumber=4, ConvolutionKernel="B70f"),
        "1.3": write(folder, "1.3", slices=8, step_mm=1.0, seed=3, SeriesNumber=3, ConvolutionKernel="B30f"),
        "1.4": write(folder, "1.4", slices=30, step_mm=5.0, seed=4, SeriesNumber=5),
        "1.5": write(folder, "1.5", slices=9, step_mm=0.5, seed=5, ImageType=["DERIVED", "SECONDARY", "AXIAL"]),
    }
    write(folder, "1.6", slices=40, step_mm=0.6, ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"])
    write(folder, "1.7", slices=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for index in range(6):  # bolus tracking: one place again and again
        write_slice(folder / "1.8" / f"{index}", volume_hu(6)[index], z_mm=3.0, number=index, series="1.8")
    write(folder, "1.9", slices=1, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    return volumes


def test_a_study_as_a_pacs_sends_it(tmp_path):
    volumes = study(tmp_path)
    first, *others = read_series(tmp_path)
    assert (first.series_uid, first.used, first.choice) == ("1.3", True, "series_number")
    assert np.array_equal(first.volume_hu, volumes["1.3"])
    assert {one.series_uid: one.choice or one.reason for one in others} == {
        "1.2": "series_number", "1.4": "thinnest", "1.5": "original", "1.6": "projection", "1.7": "localizer",
        "1.8": "duplicate_positions", "1.9": "not_ct_image",
    }  # fmt: skip
    assert not any(one.used for one in others)


@pytest.mark.parametrize(
    ("rules", "chosen", "choice"),
    [
        (SeriesRules(min_slices=9), "1.4", "original"),
        (SeriesRules(prefer=(SeriesPattern(kernel="B70"), SeriesPattern(thickness="5"))), "1.2", "preferred"),
        (SeriesRules(prefer=(SeriesPattern(kernel="Br"), SeriesPattern(thickness="5"))), "1.4", "preferred"),
        (SeriesRules(require=SeriesPattern(thickness="1|5", kernel="b70")), "1.2", "only_candidate"),
        (SeriesRules(require=SeriesPattern(image_type="DERIVED")), "1.5", "only_candidate"),
        (SeriesRules(max_spacing_mm=0.7), "1.5", "only_candidate"),
    ],
)
def test_rules_come_before_the_choice_and_all_doors_agree(tmp_path, rules, chosen, choice):
    volumes = study(tmp_path / "ct")
    first = read_series(tmp_path / "ct", rules=rules)[0]
    assert (first.series_uid, first.used, first.choice) == (chosen, True, choice)
    store = SliceStore(tmp_path / "store")
    for before in (SeriesRules(), rules):  # other rules read the study again, since other slices are needed
        quality = store.build([("s", tmp_path / "ct")], [HU], workers=1, rules=before)
    (row,) = quality.filter("used").to_dicts()
    assert (row["series_uid"], row["choice"]) == (chosen, choice)
    assert np.array_equal(store.read("s", HU)[:, 0], volumes[chosen])
    assert {*quality["reason"]} <= {"", "projection", "localizer", "duplicate_positions", "not_ct_image", *RULE_REASONS}


def test_the_table_of_quality_describes_each_series(tmp_path):
    study(tmp_path / "ct")
    write(
        tmp_path / "ct", "1.3", slices=8, step_mm=1.0, SeriesDescription="Thorax 1.0", ConvolutionKernel=["Br40", "3"]
    )
    quality = SliceStore(tmp_path / "store").build([("s", tmp_path / "ct")], [HU], workers=1)
    row = quality.filter(series_uid="1.3").to_dicts()[0]
    assert row["description"] == "Thorax 1.0"
    assert (row["kernel"], row["image_type"], row["thickness_mm"]) == ("BR40\\3", "ORIGINAL\\PRIMARY\\AXIAL", 1.0)
    assert {*quality["choice"]} - {""} <= set(CHOICES)


def test_a_named_series_is_used_and_a_missing_one_is_told(tmp_path):
    volumes = study(tmp_path / "ct")
    images = [("s", tmp_path / "ct")]
    store = SliceStore(tmp_path / "store", dict(images), named={"s": "1.4"})
    (row,) = store.build(images, [HU], workers=1).filter("used").to_dicts()
    assert (row["series_uid"], row["choice"]) == ("1.4", "named")
    assert np.array_equal(store.read("s", HU)[:, 0], volumes["1.4"])
    other = SliceStore(tmp_path / "store", dict(images), named={"s": "1.99"})
    quality = other.build(images, [HU], workers=1)
    assert not quality["used"].any()
    assert quality.filter(reason="series_not_found")["series_uid"].to_list() == ["1.99"]


def test_a_damaged_entry_is_made_again_from_the_series_that_was_chosen(tmp_path):
    volumes = study(tmp_path / "ct")
    images = [("s", tmp_path / "ct")]
    store = SliceStore(tmp_path / "store", dict(images))
    store.build(images, [HU], workers=1, rules=SeriesRules(prefer=(SeriesPattern(thickness="5"),)))
    (entry,) = store.root.rglob("*.slices")
    entry.write_bytes(entry.read_bytes()[:-3])
    assert np.array_equal(store.read("s", HU)[:, 0], volumes["1.4"])


def test_a_mask_next_to_a_nifti_volume_is_not_chosen(tmp_path):
    hu = volume_hu()
    affine = np.diag([-0.8, -0.8, 2.0, 1.0])
    for name, values in {"a_mask": np.where(hu > -500, 0, -1000), "b_ct": hu, "c_labels": (hu > 0) * 3}.items():
        nib.Nifti1Image(values.astype(np.int16).transpose(2, 1, 0), affine).to_filename(tmp_path / f"{name}.nii.gz")
    first, *others = read_series(tmp_path)
    assert np.array_equal(first.volume_hu, hu)
    assert [one.reason for one in others] == ["not_hounsfield"] * 2


def test_the_command_line_prints_a_line_per_series_by_the_rules_of_the_audit(tmp_path):
    from fmaudit_dagster.cli.main import main

    study(tmp_path / "ct")
    audit = {"cohort": {"kind": "phantom"}, "imaging": {"series": {"prefer": [{"thickness": "5"}]}}}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(audit))
    for config, first in ((tmp_path / "audit.yaml", "30 slices"), (tmp_path / "none.yaml", "8 slices")):
        shown = CliRunner().invoke(main, ["-c", str(config), "series", str(tmp_path / "ct")])
        assert shown.exit_code == 0, shown.output
        lines = [line for line in shown.output.splitlines() if not line.startswith(" ")]
        assert len(lines) == 8
        assert lines[0].startswith(f"used: {first}")
    facts = json.loads(CliRunner().invoke(main, ["series", str(tmp_path / "ct"), "--json"]).output)
    assert [one["used"] for one in facts] == [True] + [False] * 7


def test_a_pattern_that_is_no_regular_expression_is_named():
    from pydantic import ValidationError

    from fmaudit_core.config.imaging import ImagingSection

    with pytest.raises(ValidationError, match="not a regular expression"):
        ImagingSection.model_validate({"series": {"prefer": [{"kernel": "B(70"}]}})

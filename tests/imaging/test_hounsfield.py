"""Values that are not HU are refused at both doors; ordinary CT is not."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from fmaudit_core.imaging.series import read_series
from tests.ct_files import volume_hu, write_series, write_slice

LPS = np.diag([-0.8, -0.8, 2.0, 1.0])


def as_dicom(folder, stored, **changes):
    """Write stored values as they are; return the one series."""
    for index, cells in enumerate(stored):
        kept = {"PixelRepresentation": int(stored.dtype.kind == "i"), "PixelData": cells.tobytes()}
        write_slice(folder / f"{index}.dcm", cells, z_mm=2.0 * index, number=index, **kept, **changes)
    (series,) = read_series(folder)
    return series


def as_nifti(folder, volume):
    folder.mkdir(exist_ok=True)
    nib.Nifti1Image(volume.transpose(2, 1, 0), LPS).to_filename(folder / "ct.nii.gz")
    (series,) = read_series(folder)
    return series


HU = volume_hu(4)
NOT_HU = {
    "constant": np.full_like(HU, -1000),
    "offset lost": HU + 1024,
    "offset applied twice": HU - 1024,
    "sign lost": HU % 4096,
    "greys of a window": ((HU.clip(-1350, 150) + 1350) // 6).astype(np.int16),
    "greys with the intercept kept": ((HU.clip(-1350, 150) + 1350) // 6 - 1024).astype(np.int16),
    "a mask": np.where(HU > -500, 1, 0).astype(np.int16),
    "a mask shifted to air": np.where(HU > -500, 0, -1000).astype(np.int16),
    "labels shifted to air": (HU // 10 % 40 - 1000).astype(np.int16),
}


@pytest.mark.parametrize("name", NOT_HU)
def test_values_that_are_not_hu_are_refused_at_both_doors(tmp_path, name):
    reason = "constant_values" if name == "constant" else "not_hounsfield"
    values = NOT_HU[name].astype("<i2")
    assert as_dicom(tmp_path / "dicom", values, RescaleIntercept=0).reason == reason
    assert as_nifti(tmp_path / "nifti", values).reason == reason


def test_an_offset_lost_is_not_hidden_by_padding(tmp_path):
    for name, padding in (("declared", -2000), ("undeclared", None)):
        stored = (HU + 1024).astype("<i2")
        stored[:, :4] = -2000
        changes = {} if padding is None else {"PixelPaddingValue": padding}
        assert as_dicom(tmp_path / name, stored, RescaleIntercept=0, **changes).reason == "not_hounsfield"


def ordinary():
    """Volumes that hospitals export: HU as stored with intercept 0, and the changes of their header."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 12, HU.shape)
    spine = np.where(rng.random(HU.shape) < 0.3, -100, 60) + noise
    padded = HU.copy()
    padded[:, :8] = -3024
    clipped = np.where(HU < -900, -1024, HU)
    return {
        "small field of view without air": (spine, {}),
        "padding left at -3024 HU": (padded, {}),
        "air clipped at -1024": (clipped, {}),
        "mostly lung": (np.where(rng.random(HU.shape) < 0.05, 40, -850) + noise, {}),
        "metal": (np.where(rng.random(HU.shape) < 0.02, 20000, HU), {}),
        "derived": (HU, {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "VMI"]}),
        "reformatted": (HU, {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}),
        "energy weighted": (HU, {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "ENERGY_PROP_WT"]}),
        "modified HU": (HU, {"RescaleType": "HU_MOD"}),
        "no rescale type": (HU, {}),
    }


@pytest.mark.parametrize("name", ordinary())
def test_ordinary_ct_is_accepted_as_it_is(tmp_path, name):
    values, changes = ordinary()[name]
    stored = np.rint(values).astype("<i2")
    series = as_dicom(tmp_path, stored, RescaleIntercept=0, **changes)
    assert series.status == "accepted", series.reason
    assert np.array_equal(series.volume_hu, stored)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "SUBTRACTION"], "RescaleType": "HU"}, "not_hounsfield"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "STD_DEVIATION"]}, "not_hounsfield"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "QUANTITY"]}, "not_hounsfield"),
        ({"SeriesDescription": "Lung Subtraction 1.0"}, "not_hounsfield"),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]}, "projection"),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "MIN IP"]}, "projection"),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}, "projection"),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"]}, "projection"),
        ({"SeriesDescription": "Thorax MIP 8/2"}, "projection"),
        ({"SeriesDescription": "chest MinIP"}, "projection"),
        ({"VolumeBasedCalculationTechnique": "MAX_IP"}, "projection"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not_hounsfield"),
        ({"BitsStored": 8, "HighBit": 7}, "not_hounsfield"),
    ],
)
def test_derived_images_are_refused_by_their_header(tmp_path, changes, reason):
    write_series(tmp_path, **changes)
    (series,) = read_series(tmp_path)
    assert series.reason == reason


@pytest.mark.parametrize("rescale_type", ["US", "us "])
def test_an_unspecified_rescale_type_is_judged_by_the_values(tmp_path, rescale_type):
    volume = write_series(tmp_path / "hu", RescaleType=rescale_type)
    (series,) = read_series(tmp_path / "hu")
    assert series.flags == ("unspecified_rescale_type",)
    assert np.array_equal(series.volume_hu, volume)
    write_series(tmp_path / "raw", RescaleType=rescale_type, RescaleIntercept=0)
    (series,) = read_series(tmp_path / "raw")
    assert series.reason == "unspecified_values"


def test_a_lossy_past_is_flagged(tmp_path):
    write_series(tmp_path, LossyImageCompression="01")
    (series,) = read_series(tmp_path)
    assert series.flags == ("lossy",)

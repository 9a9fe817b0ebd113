"""How a series was acquired: kept while it is read, without identifiers, and unknown where the header does not say."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from pydicom.config import disable_value_validation
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fmaudit_core.imaging import series, slices
from fmaudit_core.imaging.acquisition import NO_FACTS, acquisition_of
from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.imaging.window import View
from fmaudit_core.tables.schemas import TABLES
from tests.ct_files import volume_hu, write_series, write_slice

VIEW = View(size_px=32, windows=("lung",))
HEADER = {
    "Manufacturer": "ACME  Medical ",
    "ManufacturerModelName": "One",
    "ConvolutionKernel": ["Br40", "3"],
    "KVP": "120",
    "Exposure": "55",
    "ContrastBolusAgent": "Iopamidol",
    "BodyPartExamined": "CHEST",
    "AcquisitionDate": "20190731",
    "PatientID": "SECRET-17",
    "PatientName": "Doe^Jane",
    "PatientBirthDate": "19500102",
}


def test_every_fact_of_a_header_is_kept_and_nothing_that_identifies(tmp_path):
    write_series(tmp_path / "a", **HEADER)
    store = SliceStore(tmp_path / "store")
    store.build([("s1", tmp_path / "a")], [VIEW], workers=1)
    table = store.acquisition(["s1"])
    TABLES["acquisition"].check(table)
    assert table.row(0, named=True) == {
        "study_id": "s1", "manufacturer": "ACME Medical", "model": "One", "kernel": "BR40\\3", "slice_thickness": 2.0,
        "slice_spacing": 2.0, "pixel_spacing": 0.8, "kvp": 120.0, "exposure": 55.0, "contrast": True, "body_part": "CHEST",
        "rows": 32, "n_slices": 6, "year": 2019,
    }  # fmt: skip
    kept = b"".join(path.read_bytes() for path in (tmp_path / "store" / "quality").rglob("*.json"))
    assert b"SECRET" not in kept
    assert b"Doe" not in kept
    assert b"0731" not in kept


def test_a_series_that_was_read_is_not_read_again_for_its_facts(tmp_path, monkeypatch):
    write_series(tmp_path / "a", **HEADER)
    store = SliceStore(tmp_path / "store")
    store.build([("s1", tmp_path / "a")], [VIEW], workers=1)
    monkeypatch.setattr(slices, "found_series", None)
    monkeypatch.setattr(series, "read_file", None)
    store.build([("s1", tmp_path / "a")], [VIEW], workers=1)
    assert store.acquisition(["s1"])["kvp"].to_list() == [120.0]


def test_facts_are_those_of_the_series_that_is_used(tmp_path):
    write_series(tmp_path / "a" / "thick", step_mm=5.0, SliceThickness=5.0, series="1.2.5", **HEADER)
    write_series(tmp_path / "a" / "thin", step_mm=1.0, SliceThickness=1.0, series="1.2.1", **HEADER | {"KVP": "100"})
    store = SliceStore(tmp_path / "store")
    store.build([("s1", tmp_path / "a")], [VIEW], workers=1)
    row = store.acquisition(["s1"]).row(0, named=True)
    assert (row["slice_thickness"], row["kvp"]) == (1.0, 100.0)


def test_a_refused_study_keeps_its_header_and_a_study_without_images_has_a_row_of_blanks(tmp_path):
    write_series(tmp_path / "a", RescaleSlope=None, **HEADER)
    store = SliceStore(tmp_path / "store")
    quality = store.build([("s1", tmp_path / "a"), ("s2", tmp_path / "none")], [VIEW], workers=1)
    assert quality["status"].to_list() == ["quarantined", "quarantined"]
    table = store.acquisition(["s1", "s2"])
    assert table["manufacturer"].to_list() == ["ACME Medical", None]
    assert table["n_slices"].to_list() == [None, None]


def test_nifti_gives_the_grid_alone(tmp_path):
    volume = volume_hu(slices=5).transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(volume, np.diag([0.7, 0.7, 2.5, 1.0])), tmp_path / "a.nii.gz")
    store = SliceStore(tmp_path / "store")
    store.build([("s1", tmp_path / "a.nii.gz")], [VIEW], workers=1)
    row = store.acquisition(["s1"]).row(0, named=True)
    known = {"slice_spacing": 2.5, "pixel_spacing": 0.7, "rows": 32, "n_slices": 5}
    assert {name: row[name] for name in known} == pytest.approx(known)
    assert all(row[name] is None for name in row if name not in {"study_id", *known})


def header(**changes):
    dataset = Dataset()
    dataset.Manufacturer = "ACME"
    with disable_value_validation():
        for name, value in changes.items():
            setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize(
    ("changes", "contrast"),
    [
        ({"ContrastBolusAgent": "APPLIED"}, True),
        ({"ContrastBolusAgent": "ORAL & IV"}, True),
        ({"ContrastBolusAgent": "None"}, False),
        ({"ContrastBolusAgent": "NO"}, False),
        ({"ContrastBolusAgent": "Non-Contrast"}, False),
        ({"ContrastBolusAgent": "w/o  contrast"}, False),
        ({"ContrastBolusAgent": "unknown"}, None),
        ({"ContrastBolusAgent": "-"}, None),
        ({"ContrastBolusAgent": ""}, None),
        ({"ContrastBolusAgent": "", "ContrastBolusVolume": "80"}, True),
        ({"ContrastBolusAgent": "", "ContrastBolusVolume": "0"}, None),
        ({"ContrastBolusAgentSequence": Sequence([Dataset()])}, True),
        ({}, None),
        ({"Manufacturer": None}, None),
    ],
)
def test_contrast_is_yes_no_or_not_recorded(changes, contrast):
    assert acquisition_of([(header(**changes), 0)]).contrast is contrast


@pytest.mark.parametrize(
    ("changes", "exposure"),
    [
        ({"Exposure": "60"}, 60.0),
        ({"ExposureInuAs": "60500"}, 60.5),
        ({"XRayTubeCurrent": "200", "ExposureTime": "500"}, 100.0),
        ({"Exposure": "0"}, None),
        ({}, None),
    ],
)
def test_exposure_is_in_mas_whatever_attribute_records_it(changes, exposure):
    assert acquisition_of([(header(**changes), 0)]).exposure == exposure


def test_exposure_is_the_median_over_slices():
    assert acquisition_of([(header(Exposure=str(mas)), 0) for mas in (10, 20, 90)]).exposure == 20.0


@pytest.mark.parametrize(
    ("dates", "year"),
    [
        ({"AcquisitionDate": "20190731", "StudyDate": "20180101"}, 2019),
        ({"AcquisitionDate": "", "StudyDate": "20180101"}, 2018),
        ({"StudyDate": "20180101", "SeriesDate": "20200101"}, 2018),
        ({"ContentDate": "20260101"}, None),  # of a conversion, perhaps
        ({"StudyDate": "19000101"}, None),
        ({}, None),
    ],
)
def test_of_the_date_only_the_year_is_kept(dates, year):
    assert acquisition_of([(header(**dates), 0)]).year == year


def multi_frame(*, kvp=("80", "140"), mas=(40.0, 60.0), administered=""):
    """A header with a functional group per frame, and the kernel in the shared one."""
    image, shared, kernel = header(), Dataset(), Dataset()
    kernel.ConvolutionKernel = "Qr40"
    shared.CTReconstructionSequence = Sequence([kernel])
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for volts, exposed in zip(kvp, mas, strict=True):
        group, details, exposure, usage = Dataset(), Dataset(), Dataset(), Dataset()
        details.KVP, exposure.ExposureInmAs, usage.ContrastBolusAgentAdministered = volts, exposed, administered
        group.CTXRayDetailsSequence, group.CTExposureSequence = Sequence([details]), Sequence([exposure])
        group.ContrastBolusUsageSequence = Sequence([usage])
        frames.append(group)
    image.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return image


def test_a_multi_frame_image_has_its_facts_in_functional_groups():
    found = acquisition_of([(multi_frame(), 0), (multi_frame(), 1)])
    assert (found.kvp, found.exposure, found.kernel, found.contrast) == (80.0, 50.0, "QR40", None)


def test_volumes_of_one_multi_frame_image_have_the_facts_of_their_own_frames():
    found = acquisition_of([(multi_frame(), 1)])
    assert (found.kvp, found.exposure) == (140.0, 60.0)


@pytest.mark.parametrize(("administered", "contrast"), [("YES", True), ("NO", False), ("", None)])
def test_a_multi_frame_image_records_whether_the_agent_was_administered(administered, contrast):
    image = multi_frame(administered=administered)
    if administered:
        image.ContrastBolusAgentSequence = Sequence([Dataset()])
    assert acquisition_of([(image, 0)]).contrast is contrast


@pytest.mark.parametrize("name", ["Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "BodyPartExamined"])
@pytest.mark.parametrize("planted", ["Doe^Jane", "JANE CT", "SECRET17", "31.07.2019"])
def test_an_identifier_in_a_fact_is_not_recorded(name, planted):
    found = acquisition_of([(header(**HEADER | {name: planted}), 0)])
    assert [one for one in (found.manufacturer, found.model, found.kernel, found.body_part) if one is None] == [None]


def test_a_scout_gives_facts_only_if_nothing_else_does(tmp_path):
    write_series(
        tmp_path / "a" / "0",
        volume_hu(slices=1),
        series="1.2.1",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        KVP="80",
    )
    write_series(tmp_path / "a" / "1", series="1.2.2", RescaleSlope=None, KVP="120")
    store = SliceStore(tmp_path / "store")
    store.build([("s1", tmp_path / "a")], [VIEW], workers=1)
    assert store.acquisition(["s1"])["kvp"].to_list() == [120.0]


def test_values_that_cannot_be_read_are_not_recorded_and_refuse_nothing(tmp_path):
    path = tmp_path / "a"
    for at, hu in enumerate(volume_hu()):
        write_slice(path / f"{at}.dcm", hu, z_mm=2.0 * at, number=at, KVP="120", Exposure="55", StudyDate="20190101")
        text = (path / f"{at}.dcm").read_bytes()
        (path / f"{at}.dcm").write_bytes(text.replace(b"120 ", b"1,2 ").replace(b"\x02\x0055", b"\x02\x005x"))
    (read,) = series.read_series(path)
    assert read.status == "accepted"
    assert (read.acquisition.kvp, read.acquisition.exposure, read.acquisition.year) == (None, None, 2019)
    assert acquisition_of([]) == NO_FACTS


def test_a_number_of_rows_that_no_image_has_is_not_recorded():
    image = header(Rows=512)
    assert acquisition_of([(image, 0)]).rows == 512
    with disable_value_validation():
        image["Rows"] = DataElement("Rows", "DS", "99999999999999999999")
    assert acquisition_of([(image, 0)]).rows is None


def test_doubtful_values_reach_no_log(tmp_path, caplog):
    write_series(tmp_path / "a", StudyDate="20190101", Manufacturer="ACME")
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(path.read_bytes().replace(b"20190101", b"2019-1-1"))
    (read,) = series.read_series(tmp_path / "a")
    assert read.acquisition.year == 2019
    assert "2019" not in caplog.text

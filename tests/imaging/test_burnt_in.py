"""Images that may have text burnt into their pixels are known by their headers, and what has no header is never free of it."""

from __future__ import annotations

import pydicom
import pytest
from pydicom import uid

from fmaudit_core.cohort.phantom.anatomy import draw
from fmaudit_core.cohort.phantom.dicom import write_series
from fmaudit_core.cohort.phantom.plan import plan_cohort
from fmaudit_core.config import PhantomCohort
from fmaudit_core.imaging.burnt_in import is_free_of_text

STUDY = plan_cohort(PhantomCohort(kind="phantom", n_studies=60))[0]


@pytest.fixture
def series(tmp_path):
    """Files of a series of four slices, and its UID."""
    write_series(tmp_path / "series", STUDY, draw(STUDY, n_slices=4, matrix_px=64))
    files = sorted((tmp_path / "series").iterdir())
    return files, pydicom.dcmread(files[0]).SeriesInstanceUID


def changed(file, **values):
    dataset = pydicom.dcmread(file)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(file)


def test_slices_that_a_scanner_reconstructed_are_free_of_text(series):
    assert is_free_of_text(*series)


def test_one_image_that_says_otherwise_is_enough(series):
    changed(series[0][2], BurnedInAnnotation="YES")
    assert not is_free_of_text(*series)


@pytest.mark.parametrize(
    "values",
    [
        {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
        {"BurnedInAnnotation": "NO", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"BurnedInAnnotation": "NO", "SOPClassUID": uid.SecondaryCaptureImageStorage},
        {"BurnedInAnnotation": "NO", "ConversionType": "WSD"},
        {"BurnedInAnnotation": "UNKNOWN"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"BurnedInAnnotation": "NO", "SeriesDescription": "MIP 10 mm"},
    ],
)
def test_captures_projections_and_what_does_not_say_are_not(series, values):
    changed(series[0][0], **values)
    assert not is_free_of_text(*series)


def test_reformatted_slices_are_if_every_one_says_so(series):
    for file in series[0]:
        changed(file, BurnedInAnnotation="NO", ImageType=["DERIVED", "SECONDARY", "REFORMATTED"])
    assert is_free_of_text(*series)


def test_another_series_of_the_study_does_not_matter(series, tmp_path):
    other = tmp_path / "capture.dcm"
    other.write_bytes(series[0][0].read_bytes())
    changed(other, SeriesInstanceUID="2.25.1", BurnedInAnnotation="YES")
    assert is_free_of_text([*series[0], other], series[1])


def test_without_a_header_nothing_is_known(tmp_path):
    volume = tmp_path / "volume.nii.gz"
    volume.write_bytes(b"no header")
    assert not is_free_of_text([volume], "")
    assert not is_free_of_text([volume], "2.25.1")
    assert not is_free_of_text([], "2.25.1")

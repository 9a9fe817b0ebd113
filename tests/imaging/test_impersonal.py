"""Free text of a header is kept only if it names nobody."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from fmaudit_core.imaging.impersonal import impersonal


def header(**recorded):
    dataset = Dataset()
    for name, value in recorded.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize(
    "said",
    [
        "SOMATOM Definition AS+", "Aquilion ONE", "Optima CT660", "Brilliance 64", "Mx8000 IDT 16", "TSX-301A",
        "GE MEDICAL SYSTEMS", "BR40D\\3", "B30f", "STANDARD", "FC08-H", "YC 0", "Qr40/3", "CHEST", "IQon - Spectral CT",
        "\u65b9\u6b63 CT", "Revolution 2024",
    ],
)  # fmt: skip
def test_what_scanners_write_is_kept(said):
    recorded = header(PatientName="Doe^Jane^R", PatientID="12", AccessionNumber="A-4711", InstitutionName="Saint Mary")
    assert impersonal(said, recorded) == said


@pytest.mark.parametrize(
    ("said", "recorded"),
    [
        ("Doe^Jane", {}),
        ("Sensation DOE", {"PatientName": "Doe^Jane"}),
        ("jane's CT", {"PatientName": "Doe^Jane"}),
        ("Chest dr muller", {"ReferringPhysicianName": "Muller^Ada"}),
        ("CT of Ng, Kim", {"OperatorsName": ["Lee^Bo", "Kim^Ann"]}),
        ("CT P-00 12x", {"PatientID": "p0012X"}),
        ("A4711", {"AccessionNumber": "A-4711"}),
        ("Mary General CT2", {"InstitutionName": "MARY GENERAL"}),
        ("Sensation 1234567", {}),
        ("2019-07-31", {}),
        ("seen 31.7.19", {}),
        ("31/07/2019 16:04", {}),
        ("20190731", {}),
        ("1.2.840.10008", {}),
        ("ward@hospital.example", {}),
    ],
)
def test_what_may_name_somebody_or_a_day_is_not(said, recorded):
    assert impersonal(said, header(**recorded)) is None


@pytest.mark.parametrize(
    ("said", "spelled"),
    [
        ("  A \t B\0 ", "A B"),
        ("\\", None),
        ("", None),
        ("None", None),
        ("N/A", None),
        ("x" * 100, "x" * 64),
        ("a\u202eb", "ab"),
    ],
)
def test_texts_have_one_spelling(said, spelled):
    assert impersonal(said, header()) == spelled


def test_an_attribute_that_cannot_be_read_names_nobody(monkeypatch):
    monkeypatch.setattr("fmaudit_core.imaging.impersonal.text", lambda header, name: 1 / 0)
    assert impersonal("SOMATOM", header()) == "SOMATOM"

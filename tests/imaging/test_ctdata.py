"""Every case of the shared collection of real CT series reads as its facts say, or is refused by its name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from fmaudit_core.imaging.series import FLAGS, REASONS, read_series

CTDATA = Path(__file__).parents[2] / ".." / "shared" / "ctdata"
FACTS = CTDATA / "expected.json"
SERIES = json.loads(FACTS.read_text())["series"] if FACTS.exists() else {}

pytestmark = [
    pytest.mark.ctdata,
    pytest.mark.skipif(not SERIES, reason="the shared collection of CT series is not beside this checkout"),
]


@pytest.mark.parametrize("name", SERIES)
def test_a_case_reads_as_its_facts_say_or_is_refused_by_name(name):
    want, got = SERIES[name], read_series(CTDATA / name)[0]
    if got.status == "quarantined":
        assert got.reason in REASONS
        assert want.get("either") or (
            want["status"] == "quarantined" and got.reason in want.get("reason_any_of", [want["reason"]])
        )
        return
    assert want["status"] == "accepted" or want.get("either")
    assert set(got.flags) <= set(FLAGS)
    if "shape_zyx" in want:
        assert_facts(want, got)


def assert_facts(want, got):
    facts = got.facts()
    assert facts["n_slices"] == want["n_slices"]
    assert facts["shape_zyx"] == want["shape_zyx"]
    assert facts["spacing_zyx_mm"] == pytest.approx(want["spacing_zyx_mm"], abs=2e-3)
    assert facts["transfer_syntaxes"] == want.get("transfer_syntaxes", [])
    assert set(want.get("flags", [])) == set(got.flags)
    if want.get("lossy"):
        assert facts["hu_mean"] == pytest.approx(want["hu_mean"], abs=2.0)
        return
    volume = got.volume_hu
    assert (facts["hu_min"], facts["hu_max"]) == (want["hu_min"], want["hu_max"])
    assert facts["hu_mean"] == pytest.approx(want["hu_mean"], abs=1e-3)
    slices, rows, columns = volume.shape
    means = [volume[index].mean() for index in (0, slices // 2, slices - 1)]
    assert means == pytest.approx(want.get("slice_means_first_middle_last", means), abs=2e-3)
    assert volume[slices // 2, rows // 2, columns // 2] == want["centre_voxel"]
    assert hashlib.sha256(volume.astype("<i2").tobytes()).hexdigest() == want["sha256_hu_int16_lps"]


def files_agreed_on():
    """DICOM cases whose facts say that SimpleITK itself reads them right."""
    return [
        name
        for name, want in SERIES.items()
        if want["status"] == "accepted"
        and want.get("simpleitk_max_abs_diff_hu") == 0
        and not want.get("either")  # SimpleITK itself needs the preamble
        and not name.startswith("nifti")
    ]


@pytest.mark.parametrize("name", files_agreed_on())
def test_hu_and_order_agree_with_simpleitk(name):
    """SimpleITK reads each file alone; order is then its own position along the normal. Padding is -1024 here only."""
    itk = pytest.importorskip("SimpleITK")
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    series = read_series(CTDATA / name)[0]
    root = CTDATA / name
    theirs = []
    for path in [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file()):
        try:
            image = itk.ReadImage(str(path))
        except RuntimeError:
            continue
        if image.HasMetaDataKey("0020|000e") and image.GetMetaData("0020|000e").strip() != series.series_uid:
            continue
        if image.HasMetaDataKey("0008|0008") and "LOCALIZER" in image.GetMetaData("0008|0008"):
            continue
        theirs += slices_of(image, itk)
    theirs.sort(key=lambda pair: pair[0])
    heights = [round(height, 2) for height, _ in theirs]
    unique = [hu for index, (_, hu) in enumerate(theirs) if index == 0 or heights[index] != heights[index - 1]]
    stack = np.stack(unique)
    assert stack.shape == series.volume_hu.shape
    padded = series.volume_hu == -1024
    assert np.array_equal(np.where(padded, -1024, stack), series.volume_hu)


def slices_of(image, itk):
    """(height in mm, HU in LPS) of each slice of an image SimpleITK read."""
    turned = itk.DICOMOrient(image, "LPS") if image.GetDimension() == 3 and image.GetSize()[2] > 1 else image
    array = itk.GetArrayFromImage(turned)
    direction = np.array(turned.GetDirection()).reshape(3, 3)
    if direction[0, 0] < 0:
        array = array[:, :, ::-1]
    if direction[1, 1] < 0:
        array = array[:, ::-1, :]
    if abs(direction[0, 0]) < 0.5:  # turned by 90 degrees in the plane
        turned = itk.DICOMOrient(image, "LPS")
        array = itk.GetArrayFromImage(turned)
    origin = np.array(turned.GetOrigin())
    normal = np.array(turned.GetDirection()).reshape(3, 3)[:, 2]
    step = turned.GetSpacing()[2]
    upward = 1.0 if normal[2] > 0 else -1.0
    first = upward * float(origin @ normal)
    return [(first + upward * index * step, array[index]) for index in range(len(array))]


def test_the_command_line_says_the_same_of_every_case():
    from click.testing import CliRunner

    from fmaudit_dagster.cli.main import main

    for name, want in SERIES.items():
        result = CliRunner().invoke(main, ["series", str(CTDATA / name), "--json"])
        assert result.exit_code == 0, name
        first = json.loads(result.stdout)[0]
        assert first["status"] == want["status"] or want.get("either"), name
        if first["status"] == "accepted" and "shape_zyx" in want:
            assert first["shape_zyx"] == want["shape_zyx"], name
            assert first["hu_mean"] == pytest.approx(want["hu_mean"], abs=2.0 if want.get("lossy") else 1e-3), name

"""`encoders check` of a registered encoder: what it measures is kept with the audit and shown by its report."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from fmaudit_core.encoders import check as check_module
from fmaudit_core.pipeline.run_sensitivity import sensitivity_scans
from fmaudit_core.storage.report_layout import PAGE
from fmaudit_core.storage.warehouse import Cell
from fmaudit_dagster.cli.main import main
from tests.platform.conftest import made, run

HISTOGRAM = Cell("hu_histogram")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(check_module, "_TIMED_SECONDS", 0.05)


def checked(workspace, *more):
    result = CliRunner().invoke(main, ["-c", str(workspace.audit_yaml), "encoders", "check", "hu_histogram", *more])
    assert result.exit_code == 0, result.output
    return result.output


def test_what_was_measured_is_kept_and_shown_under_its_encoder(small):
    output = checked(small)
    assert "mean of 4 patients of this cohort" in output
    assert "A flipped left-right axis moves it less than another patient would (under 1% as far)" in output
    table = small.warehouse.read("encoder_sensitivity", HISTOGRAM)
    assert set(table["scans"]) == {"cohort"}
    assert table.filter(alteration="flip_left_right")["cosine"][0] == pytest.approx(1, abs=1e-6)
    assert made(run(small)) == ["audit_report whole"]
    page = (small.reports / PAGE).read_text()
    assert "it does not see sides" in page
    # the same measurement again changes nothing
    checked(small)
    assert small.warehouse.read("encoder_sensitivity", HISTOGRAM).equals(table)
    assert made(run(small)) == []


def test_a_quick_check_measures_nothing(small):
    assert "sensitivity" not in checked(small, "--quick")
    assert small.warehouse.version("encoder_sensitivity", HISTOGRAM) is None


def test_scans_are_of_different_patients_and_drawn_before_any_ct_was_read(small):
    scans = sensitivity_scans(small)
    assert scans.source == "cohort"
    read = list(scans.scans)
    assert len(read) == scans.n == 4
    assert read[0].volume_hu.shape == (4, 64, 64)
    small.warehouse.path("slice_quality").unlink()
    drawn = sensitivity_scans(small)
    assert drawn.source == "phantom"
    assert len(list(drawn.scans)) == drawn.n == 4

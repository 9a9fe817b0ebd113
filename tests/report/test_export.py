"""The files for machines: what the page says, as JSON and CSV."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from fmaudit_core.config import Audit, InspectCohort
from fmaudit_core.config.published import public_config
from fmaudit_core.report.disclosure.disclosure import disclose
from fmaudit_core.report.export import write_report
from tests.report.frames import made_up


def test_a_report_is_a_page_a_summary_and_tables_of_known_digest(tmp_path: Path) -> None:
    written = write_report(tmp_path / "new" / "reports", made_up())
    assert set(written.all()) == {path for path in written.page.parent.rglob("*") if path.is_file()}
    summary = json.loads(written.summary.read_text(encoding="utf-8"))
    for name, digest in summary["tables"].items():
        assert hashlib.sha256((written.page.parent / name).read_bytes()).hexdigest() == digest


def test_the_same_inputs_give_the_same_files(tmp_path: Path) -> None:
    first, second = (write_report(tmp_path / name, made_up(poolings=("mean",))) for name in ("a", "b"))
    assert [path.read_bytes() for path in first.all()] == [path.read_bytes() for path in second.all()]


def test_a_csv_reads_back_as_the_table_that_may_be_shown(tmp_path: Path) -> None:
    inputs = made_up(small_group=True, poolings=("mean",))
    metrics = disclose(inputs).metrics
    read = pl.read_csv(write_report(tmp_path, inputs).tables["subgroup_metrics"], schema_overrides=metrics.schema)
    assert read.equals(metrics)


def test_a_spreadsheet_runs_no_cell_of_a_csv_as_a_formula(tmp_path: Path) -> None:
    cells = ['=HYPERLINK("x")', "@SUM(A1)", "+1+cmd|' /C calc'!A0", "-2-3", "-0.5", "plain = text"]
    flow = pl.DataFrame({"step": cells, "n_studies": range(50, 44, -1), "n_patients": range(50, 44, -1)})
    inputs = dataclasses.replace(made_up(poolings=("mean",)), flow=flow)
    read = pl.read_csv(write_report(tmp_path, inputs).tables["cohort_flow"])
    assert read["step"].to_list() == [*(f"'{cell}" for cell in cells[:4]), *cells[4:]]
    assert read.drop("step").equals(flow.drop("step"))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("subgroup_calibration", "calibration"), ("cross_group_auroc", "cross"), ("intersections", "intersections"),
         ("calibration_tests", "calibration_tests"), ("model_comparisons", "comparisons"), ("audit_changes", "changes"),
         ("score_warnings", "warnings"),
    ],
)  # fmt: skip
def test_every_table_is_exported_as_it_may_be_shown(tmp_path: Path, name: str, part: str) -> None:
    inputs = made_up(small_group=True, poolings=("mean",))
    want = getattr(disclose(inputs), part)
    assert want.height
    read = pl.read_csv(write_report(tmp_path, inputs).tables[name], schema_overrides=want.schema)
    assert read.equals(want)


def test_the_summary_tells_the_worst_intersections_and_the_pairs(tmp_path: Path) -> None:
    inputs = made_up(poolings=("mean",))
    told = json.loads(write_report(tmp_path, inputs).summary.read_text(encoding="utf-8"))
    worst = [row for row in told["worst_intersections"] if row["encoder"] == "lite0" and row["task"] == "pe"]
    assert [row["rank"] for row in worst if row["metric"] == "udr"] == [1, 2, 3]
    assert len(told["model_comparisons"]) == 3 * 3 * 3
    assert {row["attribute"] for row in told["calibration"]} == {"overall"}
    tested = inputs.calibration_tests.filter(status="tested")
    assert [row["p_value"] for row in told["calibration_tests"]] == tested.get_column("p_value").to_list()
    assert {(row["subgroup"], row["metric"]) for row in told["worse_than_before"]} == {("male", "udr")}
    true = inputs.cross_group_auroc.filter(encoder="lite0", task="pe", attribute="age_band").get_column("value").min()
    lowest = [row for row in told["lowest_cross_group_auroc"] if (row["encoder"], row["task"]) == ("lite0", "pe")]
    assert next(row["value"] for row in lowest if row["attribute"] == "age_band") == true


def test_no_path_of_an_inspect_release_is_told() -> None:
    cohort = InspectCohort(kind="inspect", root=Path("r"), images=Path("i"), ehr=Path("e"), demographics=Path("d"))
    assert "secret" not in json.dumps(public_config(Audit(cohort=cohort).anchored_at(Path("/data/secret"))))


def test_the_summary_tells_settings_but_no_path(tmp_path: Path) -> None:
    inputs = made_up(poolings=("mean",))
    anchored = inputs.audit.anchored_at(Path("/data/secret"))
    summary = write_report(tmp_path, dataclasses.replace(inputs, audit=anchored)).summary
    text = summary.read_text(encoding="utf-8")
    assert "secret" not in text
    told = json.loads(text)
    assert told["config"]["fairness"]["n_permutations"] == 9_999
    assert told["verdicts"] == {
        "disparity": 2, "insufficient_evidence": 2, "within_margin_of_tested": 0, "no_disparity_beyond_margin": 2,
    }  # fmt: skip
    assert told["headline"].startswith("2 of 6 comparisons")

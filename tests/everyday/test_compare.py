"""`fmaudit report --compare`: differences of the audits first, then changes, tested only where the predictions can be had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml

from fmaudit_core.report.documents.comparison_page import UNTESTED, render_comparison, row_views
from fmaudit_core.report.errors import ReportError
from fmaudit_core.standalone.compare_audits import compare, opened
from tests.everyday.cohorts import write_audit
from tests.everyday.conftest import fmaudit


@pytest.fixture(scope="module")
def blind(worse):
    """The same cohort, its encoder now blind to what men have."""
    return worse[0]


def test_a_gate_that_counts_ends_the_run_with_1_and_one_that_warns_does_not(worse, tmp_path):
    folder, said = worse
    assert said.returncode == 1, said.stderr
    assert "Got worse than in the audit before: theirs, pe: AUROC of sex male" in said.stderr
    assert "Report: " in said.stdout, "the report is written all the same"
    shutil.copytree(folder, tmp_path / "audit")
    config = tmp_path / "audit/audit.yaml"
    config.write_text(config.read_text().replace("severity: error", "severity: warn"))
    warned = fmaudit("-c", config, "run")
    assert warned.returncode == 0, warned.stderr
    assert "Got worse than in the audit before" in warned.stderr


def rows(comparison, **wanted):
    return [row for row in comparison.rows if all(row[key] == value for key, value in wanted.items())]


def test_who_fares_worse_is_found_and_who_does_not_is_not(planted, blind):
    found = compare(planted[0], blind / "audit.yaml")
    assert found.no_test is None
    (men,) = rows(found, subgroup="male", metric="auroc")
    (women,) = rows(found, subgroup="female", metric="auroc")
    assert men["change"] < -0.2
    assert men["q_value"] <= 0.05
    assert women["q_value"] > 0.05
    changed = {(row["subgroup"], row["metric"]) for row in found.significant()}
    assert ("male", "auroc") in changed
    assert ("female", "auroc") not in changed
    assert any(about.startswith("weights of theirs") for about, _ in found.differences)
    assert any(about == "mitigation.enabled" for about, _ in found.differences)


def test_values_of_a_comparison_are_those_of_both_audits(planted, blind):
    """Both audits scored the same studies, so paired values are each audit's own."""
    found = compare(planted[0], blind)
    told = [opened(folder).audit_summary for folder in (planted[0], blind)]
    for row in rows(found, counts="exact"):
        for one, name in zip(told, ("previous_value", "value"), strict=True):
            own = next(
                each["value"]
                for each in one["subgroup_metrics"]
                if all(
                    each[key] == row[key] for key in ("encoder", "task", "pooling", "attribute", "subgroup", "metric")
                )
            )
            assert row[name] == pytest.approx(own, abs=1e-12)


def test_from_audit_json_alone_nothing_is_tested(planted, blind, tmp_path):
    shutil.copyfile(blind / ".fmaudit/reports/audit.json", tmp_path / "theirs.json")
    found = compare(planted[0] / ".fmaudit/reports", tmp_path / "theirs.json")
    assert "No test without the predictions" in (found.no_test or "")
    assert found.significant() == []
    assert all("p_value" not in row for row in found.rows)
    views = row_views(found)
    assert {view["verdict"] for view in views} == {UNTESTED}
    men = next(view for view in views if view["group"] == "Sex: Male" and view["metric"].startswith("AUROC"))
    assert "(" in men["before"]
    assert "(" in men["now"]
    assert "no test" in found.headline().lower()


def test_an_audit_and_itself_are_the_same(planted):
    found = compare(planted[0], planted[0])
    assert not found.differences
    assert not found.significant()
    assert all(row["change"] in (0, None) for row in found.rows)
    assert "0 of 0 verdicts" not in found.headline()
    assert {view["verdict"] for view in row_views(found)} <= {"the same", "too few to test"}


def test_a_group_too_small_is_told_by_neither(planted, blind, tmp_path):
    (tmp_path / "page.html").write_text(render_comparison(compare(planted[0], blind)))
    for found in (compare(planted[0], blind), compare(planted[0] / ".fmaudit/reports", blind / ".fmaudit/reports")):
        small = rows(found, subgroup="d")
        assert small
        for row in small:
            assert row["counts"] == "withheld"
            assert [row[name] for name in ("value", "previous_value", "change")] == [None] * 3
        for row in rows(found, attribute="race_ethnicity", subgroup="a"):  # its neighbours are rounded
            assert row["value"] == round(row["value"], 2)


def test_other_patients_under_the_same_ids_are_not_paired(planted, blind, tmp_path):
    shutil.copytree(blind, tmp_path / "other")
    path = tmp_path / "other/.fmaudit/warehouse/probe_predictions/encoder=theirs/task=pe/part.parquet"
    frame = pl.read_parquet(path)
    other = frame.with_columns(patient_id=pl.lit("other-") + pl.col("patient_id"))
    other.write_parquet(path, metadata={"fmaudit.version": pl.read_parquet_metadata(path)["fmaudit.version"]})
    found = compare(planted[0], tmp_path / "other")
    assert "the cohorts differ" in (found.no_test or "")
    assert all("p_value" not in row for row in found.rows)


def test_what_is_no_audit_is_said(planted, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.json").write_text("not json")
    (tmp_path / "old.json").write_text(json.dumps({"name": "old"}))
    (tmp_path / "new.json").write_text(json.dumps({"schema_version": "9.0"}))
    fresh = tmp_path / "fresh"
    write_audit(fresh)
    for path, said in (
        (tmp_path / "empty", "does not exist"), (tmp_path / "text.json", "is not an audit.json"),
        (tmp_path / "old.json", "no schema version"), (tmp_path / "new.json", "has version 9.0"),
        (fresh, "Run `fmaudit run` first"),
    ):  # fmt: skip
        with pytest.raises(ReportError, match=said):
            compare(planted[0], path)


def test_the_command_says_differences_first_and_writes_the_page(planted, blind, tmp_path):
    said = fmaudit("report", "--compare", planted[0], blind, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    text = " ".join(said.stdout.split())
    assert text.index("differ in cohort, settings or software") < text.index("changed by more than chance")
    page = (tmp_path / "compare.html").read_text()
    assert page.index("Are they comparable?") < page.index("What changed")
    assert "http" not in page.replace("http-equiv", "")
    assert fmaudit("report", "--out", "x.html", cwd=tmp_path).returncode == 2
    assert fmaudit("report", "--compare", planted[0], cwd=tmp_path).returncode == 2


def test_another_cohort_is_said_before_anything_else(planted, tmp_path):
    told = json.loads((planted[0] / ".fmaudit/reports/audit.json").read_text())
    rules = [step for step in told["cohort_flow"] if not step["step"].startswith("outcome known")]
    assert len(rules) < len(told["cohort_flow"])
    told["cohort_flow"][-1]["n_studies"] = 19  # whose outcome is known is not how many there are
    rules[-1]["n_studies"] = 17
    told["config"]["tasks"] = ["pe", "mortality_1m"]
    told["config"]["fairness"]["fixed_fpr"] = 0.1
    (tmp_path / "audit.json").write_text(json.dumps(told))
    found = compare(planted[0], tmp_path)
    about = dict(found.differences)
    assert "17 now" in about["cohort, studies"]
    assert "0.1 now" in about["fairness.fixed_fpr"]
    assert "tasks" in about
    assert yaml.safe_load((planted[0] / "audit.yaml").read_text())["tasks"] == ["pe"]


def test_models_of_one_audit_alone_are_named(planted, tmp_path):
    text = Path(planted[0] / ".fmaudit/reports/audit.json").read_text().replace('"theirs"', '"ours"')
    (tmp_path / "audit.json").write_text(text)
    found = compare(planted[0], tmp_path)
    assert (found.only_first, found.only_second) == (["theirs, pe"], ["ours, pe"])
    assert found.rows == []

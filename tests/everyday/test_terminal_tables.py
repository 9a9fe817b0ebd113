"""Names of people's own in the terminal and in paths: what looks like markup is printed, and a path stays in its folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import polars as pl
import pytest

from fmaudit_core.report.documents.comparison_page import Comparison
from fmaudit_core.report.export import ReportFiles, write_report
from fmaudit_core.storage.report_layout import JSON
from fmaudit_core.storage.warehouse import WHOLE, Cell
from fmaudit_dagster.cli.comparison_table import print_comparison
from fmaudit_dagster.cli.findings_table import print_findings
from fmaudit_dagster.cli.step_times import print_step_times
from fmaudit_dagster.execution.runner import StepTime
from tests.report.frames import made_up

MARKED = "[red]m[/red]"
TABLES = ("subgroup_metrics", "fairness_gaps", "threshold_sweep", "audit_findings", "score_warnings")


def _report(folder: Path, encoder: str) -> ReportFiles:
    inputs = made_up(poolings=("mean",))
    frames = {name: getattr(inputs, name).with_columns(pl.col("encoder").replace("lite0", encoder)) for name in TABLES}
    worst = {
        name: frames[name].with_columns(pl.col("worst_subgroup", "best_subgroup").replace("75-90", MARKED))
        for name in ("fairness_gaps", "audit_findings")
    }
    declared = (pl.col("task") == "pe") & (pl.col("metric") == "udr")
    worst["audit_findings"] = worst["audit_findings"].with_columns(confirmatory=declared)
    metrics = {
        name: frames[name].with_columns(pl.col("subgroup").replace("75-90", MARKED))
        for name in ("subgroup_metrics", "threshold_sweep")
    }
    named = tuple({**one, "name": encoder} if one["name"] == "lite0" else one for one in inputs.encoders)
    return write_report(folder, dataclasses.replace(inputs, encoders=named, **frames | worst | metrics))


def test_names_that_look_like_markup_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_findings(_report(tmp_path, MARKED).folder)
    lines = capsys.readouterr().out.splitlines()
    cells = [line for line in lines if line.startswith("\N{BOX DRAWINGS LIGHT VERTICAL}")]
    assert any(MARKED in line for line in cells)
    assert any(line.startswith(f"- {MARKED}, ") and f"in the subgroup {MARKED}" in line for line in lines)


def test_a_title_of_the_audit_is_printed_wherever_its_task_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    reports = _report(tmp_path, "mine").folder
    audit = json.loads((reports / JSON).read_text())
    audit["config"]["task_titles"] = {"pe": "Clots"}
    audit["recommendations"] = [{"encoder": "mine", "task": "pe", "sentence": "No strategy helps."}]
    (reports / JSON).write_text(json.dumps(audit))
    print_findings(reports)
    printed = capsys.readouterr().out
    assert "- mine, Clots: No strategy helps." in printed.partition("What would help")[2]
    assert "Clots" in printed.partition("What would help")[0]
    assert "Pulmonary embolism:" not in printed


def test_a_compared_subgroup_that_looks_like_markup_is_printed_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    row = {
        "encoder": "m", "task": "pe", "attribute": "group", "subgroup": MARKED, "metric": "udr", "status": "tested",
        "counts": "exact", "value": 0.3, "previous_value": 0.2, "change": 0.1, "ci_low": 0.05, "ci_high": 0.15,
        "p_value": 0.001, "q_value": 0.002,
    }  # fmt: skip
    audited = {"name": "a", "encoders": [], "config": {}}
    print_comparison(Comparison(audited, audited, [], [], [], [], [row], None, 0.05, 0.95))
    assert f"Group: {MARKED}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../../x", "org/a", "..", "/abs", "a\\b", ".hidden"])
def test_no_name_of_a_model_leads_out_of_the_report(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "deep" / "out"
    files = _report(folder, name)
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {path.resolve() for path in files.all()}
    cards = {path.parent for path in files.documents if path.name == "README.md"}
    assert {one.parent for one in cards} == {folder / "cards"}
    assert len(cards) == 2


def test_a_profile_adds_up_the_runs_of_a_step_and_starts_with_the_slowest(capsys: pytest.CaptureFixture[str]) -> None:
    times = [
        StepTime("cohort", WHOLE, 1.0, 0.5),
        StepTime("fairness", Cell("a", "pe"), 4.0, 5.0),
        StepTime("fairness", Cell("b", "pe"), 5.0, 6.5),
    ]
    print_step_times(times)
    header, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert header == ["step", "runs", "seconds", "CPU", "seconds", "share"]
    assert rows == [
        ["fairness", "2", "9.0", "11.5", "90%"],
        ["cohort", "1", "1.0", "0.5", "10%"],
        ["total", "3", "10.0", "12.0"],
    ]

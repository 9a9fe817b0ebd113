"""`fmaudit assess`: the statistics alone, on a file of anybody's predictions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.standalone.assess_file import assess_file, read_predictions
from fmaudit_dagster.cli.main import main
from tests.fairness.cohorts import predictions
from tests.report.reading import without_plotly

FEW = FairnessSection(n_permutations=499)
PLANTED = predictions(2_000, shift={"b": 1.5}, seed=4)


@pytest.fixture(params=["csv", "parquet"])
def file(request, tmp_path):
    """Predictions of two models for two tasks, whose names are no identifiers."""
    both = pl.concat(
        PLANTED.with_columns(encoder=pl.lit(encoder), task=pl.lit(task))
        for encoder in ("Model A", "Model B")
        for task in ("pe", "Stroke, 30 days")
    )
    path = tmp_path / f"predictions.{request.param}"
    both.write_csv(path) if request.param == "csv" else both.write_parquet(path)
    return path


def test_tables_and_page_say_what_the_library_says(file, tmp_path):
    done = assess_file(file, tmp_path / "out", attributes=["group", "other"], settings=FEW)
    want = assess(read_predictions(file), attributes=["group", "other"], settings=FEW)
    assert {path.stem for path in done.tables} == set(want.tables())
    # the library takes each task as a family, the file's audit one of them: its gaps have the verdicts of its findings
    judgement = ("p_adjusted", "q_value", "verdict", "confirmatory")
    for path in done.tables:
        own = judgement if path.stem == "fairness_gaps" else ()
        assert pl.read_parquet(path).drop(own).equals(want.tables()[path.stem].drop(own))
    told = json.loads(done.report.summary.read_text())
    planted = [row for row in told["findings"] if row["attribute"] == "group" and row["metric"] == "udr"]
    assert len(planted) == 4
    assert {row["verdict"] for row in planted} == {"disparity"}
    assert {row["worst_subgroup"] for row in planted} == {"b"}
    assert {row["task"] for row in told["findings"] if row["confirmatory"]} == {"pe"}
    gaps = pl.read_parquet(tmp_path / "out" / "fairness_gaps.parquet")
    keys = [*SCORE_SET, "attribute", "metric"]
    found = pl.DataFrame(told["findings"], infer_schema_length=None).select(*keys, *judgement)
    assert gaps.select(*keys, *judgement).sort(keys).equals(found.sort(keys))
    shown = pl.read_csv(tmp_path / "out" / "fairness_gaps.csv")
    assert shown.sort(keys)["verdict"].to_list() == gaps.sort(keys)["verdict"].to_list()
    page = without_plotly(done.report.page.read_text())
    assert "Stroke, 30 days" in page
    assert PLANTED["patient_id"][0] not in page
    assert PLANTED["study_id"][0] not in page


def test_the_command_prints_findings_and_the_page(file, tmp_path):
    out = tmp_path / "out"
    command = [
        "assess",
        "--predictions",
        str(file),
        "--attributes",
        "group",
        "--out",
        str(out),
        "--permutations",
        "199",
    ]
    told = CliRunner().invoke(main, command)
    assert told.exit_code == 0, told.output
    assert "disparity" in told.output
    assert str(out / "index.html") in told.output


def assessed(frame, tmp_path, *arguments):
    """What the command prints, and what audit.json and the page then hold."""
    path, out = tmp_path / "predictions.csv", tmp_path / "out"
    frame.write_csv(path)
    command = ["assess", "--predictions", str(path), "--attributes", "group", "--out", str(out), "--permutations", "99"]
    told = CliRunner().invoke(main, [*command, *arguments])
    assert told.exit_code == 0, told.output
    page = without_plotly((out / "index.html").read_text())
    return " ".join(told.output.split()), json.loads((out / "audit.json").read_text()), page


def test_inverted_labels_are_warned_of_in_terminal_page_and_json(tmp_path):
    printed, told, page = assessed(PLANTED.with_columns(y_true=~pl.col("y_true")), tmp_path)
    (row,) = told["warnings"]
    assert (row["code"], row["withholds"]) == ("auroc_below_half", True)
    assert f"Warning: model, Task: {row['message']}" in printed
    assert row["message"] in page
    assert {one["verdict"] for one in told["findings"]} == {"insufficient_evidence"}
    assert all(one["sentence"].startswith("No verdict is given.") for one in told["findings"])
    assert pl.read_parquet(tmp_path / "out" / "score_warnings.parquet")["message"].to_list() == [row["message"]]


@pytest.mark.parametrize("column", [True, False])
def test_a_given_threshold_is_told_as_given_everywhere(tmp_path, column):
    frame = PLANTED.with_columns(threshold=pl.lit(1.5)) if column else PLANTED
    printed, told, page = assessed(frame, tmp_path, *(() if column else ("--threshold", "1.5")))
    assert "Operating threshold: given by the user." in printed
    assert told["operating_threshold"] == "given by the user"
    assert {row["threshold_source"] for row in told["subgroup_metrics"] if row["threshold"] is not None} == {"given"}
    assert "hosen on validation" not in page
    assert "Given by the user with the predictions" in page
    for path in (tmp_path / "out").rglob("*.*"):
        assert path.suffix == ".parquet" or "hosen on validation" not in path.read_text(), path.name


def test_a_chosen_threshold_is_told_as_chosen(tmp_path):
    printed, told, page = assessed(PLANTED, tmp_path)
    assert "Operating threshold" not in printed
    assert told["warnings"] == []
    assert told["operating_threshold"] == "chosen on validation alone, by a fixed share of false alarms"
    assert "Chosen on the validation part alone" in page


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        (lambda f: f.rename({"y_score": "score"}), [], "column y_score (did you mean score?) is missing"),
        (lambda f: f.with_columns(y_score=float("inf")), [], "NaN or infinite in"),
        (lambda f: f.with_columns(y_true=pl.lit(2)), [], "labels other than 0 and 1"),
        (lambda f: f.with_columns(y_score=0.5), [], "every study has the same score"),
        (lambda f: f.filter(pl.col("split") == "test"), [], "--threshold"),
        (lambda f: f.with_columns(group=pl.lit("a")), [], "group has one level only"),
        (lambda f: f.with_columns(patient_id=pl.lit("p")), [], "in more than one split"),
        (lambda f: f, ["--attributes", "grup"], "did you mean group"),
        (lambda f: f, ["--attributes", "group", "--threshold", "50"], "the given threshold 50 lies above all scores"),
    ],
)
def test_mistakes_are_one_paragraph_and_name_the_file(tmp_path, change, arguments, said):
    path = tmp_path / "predictions.csv"
    change(PLANTED).write_csv(path)
    command = [
        "assess",
        "--predictions",
        str(path),
        "--out",
        str(tmp_path / "out"),
        *(arguments or ["--attributes", "group"]),
    ]
    told = CliRunner().invoke(main, command)
    assert told.exit_code == 1
    text = " ".join(told.output.split())
    assert said in text
    assert "predictions.csv" in text
    assert "Traceback" not in text
    assert not (tmp_path / "out").exists()


def test_without_a_known_attribute_the_columns_are_named(tmp_path):
    PLANTED.write_csv(tmp_path / "predictions.csv")
    with pytest.raises(FmauditError, match=r"--attributes; the other columns are group, other"):
        assess_file(tmp_path / "predictions.csv", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "said"), [("p.xlsx", "not from `.xlsx`"), ("p.csv", "does not exist"), ("p.parquet", "cannot be read")]
)
def test_a_file_that_is_no_table_is_named(tmp_path, name, said):
    if name == "p.parquet":
        (tmp_path / name).write_bytes(b"not a table")
    with pytest.raises(FmauditError, match=said):
        assess_file(tmp_path / name, tmp_path / "out")


def test_in_a_notebook_the_verdicts_are_shown():
    found = assess(PLANTED, attributes=["group"], settings=FEW)
    assert "disparity" in repr(found)
    assert "null_expected_gap" in found._repr_html_()
    assert len(repr(found).splitlines()) < 40


def test_neither_torch_nor_dagster_is_loaded(tmp_path):
    PLANTED.write_csv(tmp_path / "predictions.csv")
    script = f"""
import sys
from fmaudit_dagster.cli.main import main
main(["assess", "--predictions", r"{tmp_path}/predictions.csv", "--attributes", "group", "--out", r"{tmp_path}/out",
      "--permutations", "99"], standalone_mode=False)
assert not {{"torch", "dagster"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_no_name_of_a_model_leads_out_of_the_folder_or_into_another(tmp_path):
    names = ("../../outside", "org/a", "org_a", "..")
    both = pl.concat(PLANTED.head(400).with_columns(encoder=pl.lit(name), task=pl.lit("pe")) for name in names)
    path, out = tmp_path / "a" / "b" / "predictions.csv", tmp_path / "a" / "b" / "out"
    path.parent.mkdir(parents=True)
    both.write_csv(path)
    done = assess_file(path, out, attributes=["group"], settings=FairnessSection(n_permutations=99))
    cards = {file.parent.relative_to(out / "cards") for file in done.report.documents if file.name == "README.md"}
    assert len(cards) == len(names)
    assert all(len(folder.parts) == 1 and ".." not in folder.parts for folder in cards)
    assert Path("org_a") in cards
    assert {file for file in tmp_path.rglob("*") if file.is_file() and not file.is_relative_to(out)} == {path}
    linked = re.findall(r'href="(cards/[^"]+)"', done.report.page.read_text())
    assert linked
    assert all((out / link).is_file() for link in linked)


def test_covariates_are_standardised_for_in_table_page_and_json(tmp_path):
    printed, told, page = assessed(PLANTED, tmp_path, "--covariates", "other", "--mediators", "other")
    assert "disparity" in printed
    rows = pl.read_parquet(tmp_path / "out" / "adjusted_gaps.parquet")
    assert set(rows["attribute"]) == {"group"}
    assert rows["covariates"].to_list() == [["other"]] * rows.height
    # `other` is drawn at random, so nothing goes with it
    udr = rows.filter(metric="udr", status="tested")
    assert udr.height >= 2
    assert (udr["explained_low"] < 0.02).all()
    assert (udr["explained_high"] > -0.02).all()
    assert len(told["adjusted_gaps"]) == rows.height
    assert told["config"]["covariates"] == ["other"]
    assert "Other may follow from the subgroup" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--covariates", "othr"], "did you mean other"),
        (["--covariates", "split"], "the name is reserved"),
        (["--covariates", "patient"], "may identify them"),
        (["--covariates", "alike"], "covariate alike has one level only"),
        (["--covariates", "other", "--mediators", "others"], "named under --mediators but not under --covariates"),
    ],
)
def test_covariates_that_cannot_be_used_are_refused_by_name(tmp_path, arguments, message):
    path = tmp_path / "predictions.csv"
    PLANTED.with_columns(patient=pl.col("patient_id"), alike=pl.lit("x")).write_csv(path)
    command = ["assess", "--predictions", str(path), "--attributes", "group", "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(main, [*command, *arguments])
    assert told.exit_code != 0
    assert message in " ".join(told.output.split())

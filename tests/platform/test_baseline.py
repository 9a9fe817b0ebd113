"""A baseline through the graph: joined, audited beside the encoders, compared with them; never embedded, fitted or mitigated."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from fmaudit_core.pipeline.changed_sources import usable_specs
from fmaudit_core.pipeline.steps import FAIRNESS_TABLES
from fmaudit_core.storage.warehouse import WHOLE, Cell
from fmaudit_dagster.cli.main import main
from tests.platform.conftest import made, run
from tests.platform.test_next_steps import asked, fingerprint


def scores(workspace, task, *, split=("val", "test"), seed=0):
    """A baseline that knows something of the outcome."""
    warehouse = workspace.warehouse
    known = warehouse.read("labels").filter(task=task).drop_nulls("label")
    rows = known.join(warehouse.read("studies").select("study_id", "split"), on="study_id").filter(
        pl.col("split").cast(pl.String).is_in(split)
    )
    noise = np.random.default_rng(seed).normal(size=rows.height)
    return rows.select("study_id", y_score=1.5 * pl.col("label").cast(pl.Float64) + noise)


def call(workspace, *arguments):
    return CliRunner().invoke(main, ["-c", str(workspace.audit_yaml), *map(str, arguments)])


def added(workspace, frame, *options, name="pe_pred_proba.csv"):
    path = workspace.audit_yaml.parent / name
    frame.write_csv(path)
    result = call(workspace, "baseline", "add", path, *options)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_baseline_is_audited_beside_the_encoders_and_nothing_else_is_made_again(copied):
    declared = ["encoder", "attribute", "p_adjusted", "verdict"]
    family = copied.warehouse.read("audit_findings").filter("confirmatory").select(declared)
    said = added(copied, scores(copied, "pe", split=("test",)), "--name", "CT-LRCN")
    assert "ct-lrcn, pe:" in said
    assert "only its AUROC is reported" in said
    assert "baseline, predictions alone" in call(copied, "encoders", "list").output
    outcome = run(copied)
    assert outcome.failures == {}
    cell = Cell("ct-lrcn", "pe")
    beside = {f"{asset} {WHOLE}" for asset in ("audit_findings", "audit_report")}
    assert set(made(outcome)) == {f"{asset} {cell}" for asset in ("probe_predictions", *FAIRNESS_TABLES)} | beside

    warehouse = copied.warehouse
    metrics = warehouse.read("subgroup_metrics", cell)
    assert set(metrics.filter(pl.col("metric") != "auroc", attribute="overall")["status"]) == {"no_threshold"}
    assert metrics.filter(metric="auroc", attribute="overall")["value"].item() > 0.6
    assert warehouse.read("baseline_joins", cell)["threshold"].item() == "none"
    pairs = warehouse.read("model_comparisons").filter(other_encoder="ct-lrcn")
    assert set(pairs["encoder"]) == {"efficientnet_lite0", "hu_histogram"}
    assert "ct-lrcn" not in warehouse.read("model_comparisons")["encoder"].to_list()
    by_subgroup = pairs.filter(metric="auroc", status="tested", attribute="sex")
    assert (
        by_subgroup.select("difference", "ci_low", "ci_high", "p_non_inferior", "verdict").null_count().row(0)
        == (0,) * 5
    )
    found = warehouse.read("audit_findings").filter(encoder="ct-lrcn")
    assert found.height
    assert not found["confirmatory"].any()
    # the declared family is corrected as it was before
    assert warehouse.read("audit_findings").filter("confirmatory").select(declared).equals(family)
    page = (copied.reports / "index.html").read_text()
    assert "CT-LRCN (baseline)" in page
    told = json.loads((copied.reports / "audit.json").read_text())
    assert next(one for one in told["encoders"] if one["name"] == "ct-lrcn")["baseline"]
    assert warehouse.read("paper_comparison")["verdict"].unique().to_list() == ["not_comparable"]
    assert warehouse.read("unaudited").is_empty()
    assert run(copied).made == []


def test_another_task_joins_the_same_model_and_another_file_redoes_its_own_cell(copied):
    added(copied, scores(copied, "pe"), "--name", "lrcn")
    added(copied, scores(copied, "mortality_12m"), "--name", "lrcn", name="mort_12m_pred_proba.csv")
    assert [one.task for one in copied.registry.spec("lrcn").predictions] == ["mortality_12m", "pe"]
    assert run(copied).failures == {}
    assert copied.warehouse.cells("probe_predictions")[-2:] == [Cell("lrcn", "mortality_12m"), Cell("lrcn", "pe")]
    assert copied.warehouse.read("probe_predictions", Cell("lrcn", "pe"))["threshold"].null_count() == 0
    added(copied, scores(copied, "pe", seed=1), "--name", "lrcn")
    redone = {line for line in made(run(copied)) if "lrcn" in line}
    assert redone == {f"{asset} lrcn x pe" for asset in ("probe_predictions", *FAIRNESS_TABLES)}
    changes = copied.warehouse.read("audit_changes").filter(encoder="lrcn", task="pe")
    assert changes.height  # compared with what it was in the audit before


def test_the_sensor_asks_for_its_scores_and_statistics_alone(copied):
    added(copied, scores(copied, "pe"), "--name", "lrcn")
    steps, _ = asked(copied)
    assert steps == {"probe_predictions/lrcn/pe": ("probe_predictions", *FAIRNESS_TABLES)}
    before = fingerprint(copied)
    (copied.audit_yaml.parent / "pe_pred_proba.csv").unlink()
    _, usable, problems = usable_specs(copied.registry)
    assert "lrcn" not in usable
    assert "does not exist" in problems["lrcn"]
    assert fingerprint(copied) != before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--name", "hu_histogram"), "is the name of an encoder"),
        (("--task", "pee"), r"has no task pee (did you mean pe?)"),
        (("--task", "mortality_12m"), "labels differ from this cohort's"),
    ],
)
def test_a_wrong_name_or_task_is_told_and_nothing_is_registered(copied, options, said):
    rows = scores(copied, "pe").join(
        copied.warehouse.read("labels").filter(task="pe").select("study_id", y_true="label"), on="study_id"
    )
    path = copied.audit_yaml.parent / "scores.csv"
    rows.with_columns(pl.col("y_true").cast(pl.Int64)).write_csv(path)
    result = call(copied, "baseline", "add", path, *options)
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split())
    assert set(copied.registry.specs()) == {"efficientnet_lite0", "hu_histogram"}


def test_two_models_whose_files_are_called_predictions_stay_two(copied):
    """Only a task before the ending makes it one of INSPECT's files, whose model has no name of its own."""
    for name in ("modela_predictions", "modelb_predictions", "pe_pred_proba"):
        path = copied.audit_yaml.parent / f"{name}.csv"
        scores(copied, "pe").write_csv(path)
        result = call(copied, "baseline", "add", path, *(() if name.startswith("pe") else ("--task", "pe")))
        assert result.exit_code == 0, result.stderr
    assert {"modela_predictions", "modelb_predictions", "baseline"} <= set(copied.registry.specs())


def test_which_task_must_be_said_where_nothing_tells_it(copied):
    path = copied.audit_yaml.parent / "scores.csv"
    scores(copied, "pe").write_csv(path)
    result = call(copied, "baseline", "add", path)
    assert result.exit_code == 1
    assert "Name it with --task" in " ".join(result.stderr.split())
    assert call(copied, "baseline", "add", path.with_name("none.csv")).exit_code == 1

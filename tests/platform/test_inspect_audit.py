"""The INSPECT twin from download to report: `fmaudit init --inspect`, then `fmaudit run` with the control."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from fmaudit_core.imaging.window import View
from fmaudit_core.pipeline.run_baselines import add_baseline
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_dagster.cli.main import main
from tests.cohort.inspect_release.inspect_twin import SLICES, Twin
from tests.platform.conftest import run

TWIN = Twin()
TASKS = ("pe", "readmission_12m")


def call(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    """A workspace that `fmaudit init --inspect` wrote and `fmaudit run` filled, and what init said."""
    from fmaudit_dagster.execution.instance import prepare

    top = tmp_path_factory.mktemp("inspected")
    full = TWIN.write_tables(top / "download")
    TWIN.write_volumes(full / "CTPA")
    TWIN.write_ehr(top / "download" / "EHR", top / "scratch")
    config = top / "audit" / "audit.yaml"
    tasks = [option for task in TASKS for option in ("--task", task)]
    said = call("-c", config, "init", "--inspect", top / "download", *tasks)
    assert said.exit_code == 0, said.output
    (config.parent / "encoders" / "efficientnet_lite0.yaml").unlink()
    settings = yaml.safe_load(config.read_text())
    settings |= {
        "fairness": {"n_permutations": 99, "suppress_under": 2, "test_from": 3},
        "probes": {"c_grid": [0.01, 1.0]},
        "imaging": {"workers": 1},
    }
    config.write_text(yaml.safe_dump(settings))
    workspace = open_workspace(config)
    prepare(workspace)
    outcome = run(workspace)
    assert outcome.failures == {}
    return workspace, said.output


@pytest.mark.parametrize("style", ["patient_time", "image_id"])
def test_a_baseline_in_the_releases_own_layout_is_joined_in_both_styles_of_ids(inspected, tmp_path, style):
    workspace = inspected[0]
    TWIN.write_predictions(tmp_path)
    found = add_baseline(workspace, tmp_path / style / "pe_pred_proba.csv", name=f"lrcn-{style}")["pe"]
    (workspace.audit.encoders / f"lrcn-{style}.yaml").unlink()
    told = found.join.row(0, named=True)
    assert told["joined_by"] == {"patient_time": "patient and time", "image_id": "image_id"}[style]
    assert (told["threshold"], told["n_labels_apart"]) == ("none", 0)
    expected = pl.read_csv(tmp_path / "image_id" / "pe_pred_proba.csv")
    by_image = dict(expected.select("patient_id", "prob").iter_rows())
    image = {one.impression_id: one.image_id for one in TWIN.studies}
    assert all(
        by_image[image[study]] == score for study, score in found.scores.select("study_id", "y_score").iter_rows()
    )


def test_published_figures_stand_beside_the_audits(inspected):
    found = inspected[0].warehouse.read("paper_comparison")
    assert set(found["labels_file"]) == {"labels_20250611.tsv"}
    assert found.filter(id="n_studies")["verdict"].item() == "different"
    assert found.filter(id="n_studies")["ours"].item() == inspected[0].warehouse.read("cohort_flow")["n_studies"][0]
    assert "medsiglip was not audited" in found.filter(id="pe_auroc_fm", model="medsiglip")["reason"].item()
    page = (inspected[0].reports / "index.html").read_text()
    assert "Our labels are those of labels_20250611.tsv" in page


def test_init_tells_what_was_read_and_what_was_odd(inspected):
    assert "58 studies of 39 patients are valid." in inspected[1]
    assert "labels_20250611.tsv" in inspected[1]
    assert "no time: 2 studies" in inspected[1]
    assert "left out by the rule `a CT volume is there`: 1" in inspected[1]
    assert "left out by the rule `aged 18 or over, or of unknown age`: 1" in inspected[1]


def test_volumes_are_accepted_or_quarantined_by_name(inspected):
    quality = inspected[0].warehouse.read("slice_quality")
    reasons = dict(quality.select("study_id", "reason").iter_rows())
    expected = {"truncated": "truncated_pixel_data", "unrescaled_unknown": "not_hounsfield", "thick": "too_thick"}
    for defect, reason in expected.items():
        for one in TWIN.with_defect(defect):
            assert reasons.pop(one.impression_id) == reason
    assert set(reasons.values()) == {""}
    assert quality.filter("used")["n_slices"].unique().to_list() == [SLICES]


@pytest.mark.parametrize("defect", ["unrescaled", "flipped", "four_d", "no_contrast"])
def test_slices_are_the_hu_that_were_drawn(inspected, defect):
    """Unrescaled by the table's slope and intercept, turned by the affine, squeezed: the same volume comes out."""
    workspace = inspected[0]
    one = TWIN.with_defect(defect)[0]
    view = next(spec.view for spec in workspace.registry.specs().values())
    drawn = TWIN.hu(one)
    if defect == "unrescaled":
        drawn = np.clip(drawn, -1024, 3071)
    assert np.array_equal(workspace.slices.read(one.impression_id, view), view.apply(drawn))
    assert View(values="int16").apply(drawn).shape == (SLICES, 1, 64, 64)
    flags = workspace.warehouse.read("slice_quality").filter(study_id=one.impression_id)["flags"].item()
    assert flags == ("rescaled" if defect == "unrescaled" else "")


def test_the_audit_ends_in_findings_and_runs_once(inspected):
    workspace = inspected[0]
    predictions = workspace.warehouse.read_cells("probe_predictions", workspace.warehouse.cells("probe_predictions"))
    assert set(predictions["task"]) == set(TASKS)
    known = workspace.warehouse.read("labels").filter(task="readmission_12m").drop_nulls("label")["study_id"]
    assert set(predictions.filter(task="readmission_12m")["study_id"]) <= set(known)
    flow = workspace.warehouse.read("label_flow").filter(task="readmission_12m", attribute="sex")
    assert flow["n_censored"].sum() > 0
    assert workspace.warehouse.read("cohort_notes").height > 5
    assert (workspace.reports / "index.html").exists()
    assert run(workspace).made == []


def test_the_record_is_read_from_the_archive_and_its_scores_join(inspected):
    workspace = inspected[0]
    rows = workspace.warehouse.read("ehr_rows")
    timed = workspace.warehouse.read("studies").drop_nulls("time")
    assert set(rows["study_id"]) == set(timed["study_id"])
    scores = workspace.warehouse.read_cells("probe_predictions", workspace.warehouse.cells("probe_predictions"))
    of = {key[0]: set(frame["study_id"]) for key, frame in scores.filter(task="pe").group_by("modality")}
    assert {"ct", "ehr", "ct+ehr"} == set(of)
    assert of["ehr"] == of["ct+ehr"] == of["ct"] & set(timed["study_id"])


def test_no_patient_and_no_report_text_leaves_the_tables(inspected):
    workspace, said = inspected
    text = said + "".join(path.read_text() for path in workspace.reports.rglob("*") if path.is_file())
    text += workspace.warehouse.read("cohort_notes").write_csv()
    # as numbers of their own: six digits also stand somewhere within the decimals of thousands of estimates
    numbers = set(re.findall(r"(?<![\d.])\d+(?![\d.])", text))
    for one in TWIN.studies:
        assert one.impression_id not in numbers
        assert str(one.person.person_id) not in numbers
        assert one.image_id not in text
    assert "SECRET TEXT" not in text
    columns = {name for table in workspace.warehouse.tables() for name in workspace.warehouse.read(table, next(
        iter(workspace.warehouse.cells(table)))).columns}  # fmt: skip
    assert "impressions" not in columns


def test_the_cohort_sensor_finds_the_release_as_it_was_audited(inspected):
    from tests.platform.test_sensors import look

    first = look(inspected[0], "cohort_sensor")
    assert first.skip_reason.skip_message == "the cohort is the one that was audited."
    assert look(inspected[0], "cohort_sensor", first.cursor).skip_message == "the cohort's table is as it was."


def test_other_rescales_are_another_version_of_the_slices(inspected):
    from fmaudit_core.pipeline.snapshot import snapshot_of

    workspace = inspected[0]
    studies = workspace.warehouse.read("studies")
    version = workspace.warehouse.version("studies")

    def views(**changed):
        workspace.warehouse.publish("studies", studies.with_columns(**changed), version=version)
        return snapshot_of(workspace).view_versions()

    before = views()
    assert views(age=pl.lit(50, pl.Int64)) == before
    assert views(rescale_slope=pl.lit(2.0)) != before
    assert views() == before


def test_init_refuses_a_folder_that_is_no_download(tmp_path):
    (tmp_path / "empty").mkdir()
    result = call("-c", tmp_path / "audit.yaml", "init", "--inspect", tmp_path / "empty")
    assert result.exit_code == 1
    assert "is not a complete INSPECT download. Missing: labels_*.tsv" in " ".join(result.stderr.split())
    assert not (tmp_path / "audit.yaml").exists()
    assert call("-c", tmp_path / "audit.yaml", "init", "--inspect", tmp_path, "--phantom").exit_code == 2

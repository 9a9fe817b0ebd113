"""An audit by facts of the images' headers, from CT and imported embeddings to the report."""

from __future__ import annotations

import json

import polars as pl
import pytest

from fmaudit_core.pipeline.changed_sources import source_changed
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.steps import step_of
from fmaudit_core.pipeline.versions import is_fresh
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.report_layout import PAGE
from fmaudit_core.storage.warehouse import Cell
from tests.ct_files import volume_hu, write_series
from tests.everyday import cohorts
from tests.everyday.cohorts import PLANTED
from tests.everyday.test_identifiers import leaks, outputs, texts
from tests.platform.conftest import run

MANUFACTURER, THICKNESS = "acquisition.manufacturer", "acquisition.slice_thickness"


def header(at, patient):
    """Attributes of a study; those of a few hold names and ids where the scanner and the kernel belong."""
    recorded = {"PatientID": patient, "PatientName": f"{PLANTED[1]}^Jane", "StudyDate": "20190731"}
    recorded |= {"SliceThickness": (1.0, 2.0, 5.0)[at % 3], "ManufacturerModelName": "One", "BodyPartExamined": "CHEST"}
    if at % 5:
        recorded["Manufacturer"] = ("ACME", "Umbrella")[at % 2]
    if at % 60 == 0:  # recorded elsewhere in the header
        recorded |= {"ManufacturerModelName": f"One {patient}", "ConvolutionKernel": PLANTED[1]}
    if at % 60 == 1:  # recorded nowhere else
        recorded |= {"ManufacturerModelName": f"{PLANTED[0]} MARY", "PatientName": ""}
    return recorded


@pytest.fixture(scope="module")
def by_images(tmp_path_factory):
    """A workspace with one encoder, imported, whose audit was run; every fifth study records no manufacturer."""
    folder = tmp_path_factory.mktemp("by_images")
    splits = ["train"] * 40 + ["val"] * 20 + ["test"] * 60
    table = cohorts.studies(len(splits)).with_columns(split=pl.Series(splits))
    table.write_csv(folder / "studies.csv")
    cohorts.write_embeddings(folder / "theirs.npz", table["study_id"], cohorts.vectors(table))
    cohorts.write_spec(folder / "encoders", folder / "theirs.npz")
    volume = volume_hu(slices=3, size=16)
    for at, (study, patient) in enumerate(table.select("study_id", "patient_id").iter_rows()):
        write_series(folder / "ct" / study, volume, series=f"1.2.{at}", **header(at, patient))
    (folder / "audit.yaml").write_text(
        """
name: By images
cohort: {kind: table, table: studies.csv, images: ct}
tasks: [pe]
attributes: [sex, acquisition.manufacturer, acquisition.slice_thickness, acquisition.model]
covariates: [sex, acquisition.manufacturer, acquisition.year]
mediators: [acquisition.manufacturer]
acquisition: {slice_thickness: [1.5, 3]}
fairness: {n_permutations: 99, suppress_under: 5, test_from: 6}
mitigation: {enabled: false}
imaging: {workers: 1}
"""
    )
    workspace = open_workspace(folder / "audit.yaml")
    from fmaudit_dagster.execution.instance import prepare

    prepare(workspace)
    return workspace, run(workspace)


def test_the_audit_runs_to_its_report(by_images):
    workspace, outcome = by_images
    assert not outcome.failures
    page = (workspace.reports / PAGE).read_text(encoding="utf-8")
    assert "Scanner manufacturer" in page
    assert "Slice thickness (mm)" in page
    assert "acquisition.manufacturer" not in page.split("<script")[0]


def test_subgroups_are_those_of_the_headers(by_images):
    workspace, _ = by_images
    table = workspace.warehouse.read("acquisition")
    assert table["manufacturer"].null_count() == 24
    assert set(table["year"]) == {2019}
    metrics = workspace.warehouse.read("subgroup_metrics", Cell("theirs", "pe"))
    found = {name: set(metrics.filter(attribute=name)["subgroup"]) for name in (MANUFACTURER, THICKNESS)}
    assert found == {MANUFACTURER: {"ACME", "Umbrella", "unknown"}, THICKNESS: {"<= 1.5", "1.5-3", "> 3"}}
    tested = metrics.filter(pl.col("status") == "tested")
    assert {MANUFACTURER, THICKNESS} <= set(tested["attribute"])
    assert "unknown" not in set(tested["subgroup"])
    crossed = workspace.warehouse.read("intersections", Cell("theirs", "pe"))
    assert f"{MANUFACTURER} x {THICKNESS}" in set(crossed["attribute"])


def test_the_numbers_are_those_of_the_studies_with_that_header(by_images):
    workspace, _ = by_images
    studies, known = workspace.warehouse.read("studies"), workspace.warehouse.read("acquisition")
    test = studies.filter(split="test").join(known.filter(manufacturer="ACME"), on="study_id", how="semi")
    metrics = workspace.warehouse.read("subgroup_metrics", Cell("theirs", "pe"))
    rows = metrics.filter(attribute=MANUFACTURER, subgroup="ACME", metric="auroc")
    assert set(rows["n"]) == {test.height}


def test_gaps_are_standardised_for_covariates_in_a_step_of_their_own(by_images):
    workspace, _ = by_images
    cell = Cell("theirs", "pe")
    rows = workspace.warehouse.read("adjusted_gaps", cell)
    tested = workspace.warehouse.read("subgroup_metrics", cell).filter(pl.col("status") == "tested", metric="udr")
    assert set(rows.filter(metric="udr")["subgroup"]) <= set(tested["subgroup"])
    used = {one["attribute"]: one["covariates"] for one in rows.to_dicts()}
    assert used["sex"] == [MANUFACTURER, "acquisition.year"]
    assert used[THICKNESS] == ["sex", MANUFACTURER, "acquisition.year"]
    assert set(rows.filter(attribute="sex")["mediators"].list.join(" ")) == {MANUFACTURER}
    page = (workspace.reports / PAGE).read_text(encoding="utf-8")
    assert 'id="why"' in page
    assert "Scanner manufacturer may follow from the subgroup" in page
    assert len(json.loads((workspace.reports / "audit.json").read_bytes())["adjusted_gaps"]) == rows.height
    # other covariates make them stale, and no test of a gap
    audit = workspace.audit.model_copy(update={"covariates": ("sex",), "mediators": ()})
    look = snapshot_of(type(workspace)(audit, workspace.audit_yaml))
    assert not is_fresh(look, step_of("adjusted_gaps"), cell)
    assert is_fresh(look, step_of("fairness"), cell)


def test_small_subgroups_are_withheld_as_those_of_other_attributes(by_images):
    workspace, _ = by_images
    metrics = workspace.warehouse.read("subgroup_metrics", Cell("theirs", "pe")).filter(attribute=MANUFACTURER)
    suppressed = metrics.filter(pl.col("status") == "suppressed")
    assert suppressed["n"].null_count() == suppressed.height


def test_other_edges_make_the_statistics_stale_and_nothing_before_them(by_images):
    workspace, _ = by_images
    other = workspace.audit.acquisition.model_copy(update={"slice_thickness": (3.0,)})
    audit = workspace.audit.model_copy(update={"acquisition": other})
    look = snapshot_of(type(workspace)(audit, workspace.audit_yaml))
    cell = Cell("theirs", "pe")
    assert not is_fresh(look, step_of("fairness"), cell)
    assert is_fresh(look, step_of("probe_predictions"), cell)
    assert not source_changed(look, step_of("ct_slices"))


def test_what_was_typed_into_a_header_is_shown_nowhere(by_images):
    """What the same header records of its patient is not kept; a text of few patients is no level."""
    workspace, _ = by_images
    table = workspace.warehouse.read("acquisition")
    assert table["kernel"].to_list() == [None] * 120
    assert table["model"].null_count() == 2
    assert not any(PLANTED[1] in str(cell) for row in table.drop("study_id").rows() for cell in row)
    found = workspace.warehouse.read("subgroup_metrics", Cell("theirs", "pe")).filter(attribute="acquisition.model")
    assert set(found["subgroup"]) <= {"One", "other", "unknown"}
    home = workspace.audit.home
    for path in outputs(home):
        if path.relative_to(home).parts[0] != "slices":  # what is stored of each study, as its slices are
            assert not any(leaks(text) for text in texts(path)), path
    records = [json.loads(path.read_bytes()) for path in (home / "slices").rglob("*.json")]
    kept = [str(row["acquisition"]) for record in records for row in record["rows"]]
    assert len(kept) == 120
    assert not any(PLANTED[1] in one for one in kept)

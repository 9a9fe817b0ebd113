"""An audit by facts of the images' headers, from CT and imported embeddings to the report."""

from __future__ import annotations

import numpy as np
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
from tests.platform.conftest import run

MANUFACTURER, THICKNESS = "acquisition.manufacturer", "acquisition.slice_thickness"


@pytest.fixture(scope="module")
def by_images(tmp_path_factory):
    """A workspace with one encoder, imported, whose audit was run; every fifth study records no manufacturer."""
    folder = tmp_path_factory.mktemp("by_images")
    table = cohorts.studies(240)
    table.write_csv(folder / "studies.csv")
    cohorts.write_embeddings(folder / "theirs.npz", table["study_id"], cohorts.vectors(table))
    cohorts.write_spec(folder / "encoders", folder / "theirs.npz")
    volume = volume_hu(slices=4, size=16)
    for at, study in enumerate(table["study_id"]):
        changes = {"Manufacturer": ("ACME", "Umbrella")[at % 2]} if at % 5 else {}
        thickness = (1.0, 2.0, 5.0)[at % 3]
        write_series(
            folder / "ct" / study, volume, series=f"1.2.{at}", SliceThickness=thickness, StudyDate="20190731", **changes
        )
    (folder / "audit.yaml").write_text(
        """
name: By images
cohort: {kind: table, table: studies.csv, images: ct}
tasks: [pe]
attributes: [sex, acquisition.manufacturer, acquisition.slice_thickness]
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
    assert table["manufacturer"].null_count() == 48
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


def test_another_header_is_noticed_and_read(by_images):
    workspace, _ = by_images
    study = workspace.warehouse.read("studies")["study_id"][1]
    folder = workspace.images_root / study
    for path in folder.iterdir():
        path.unlink()
    write_series(folder, volume_hu(slices=4, size=16), series="1.2.1", Manufacturer="Late", SliceThickness=2.0)
    assert source_changed(snapshot_of(workspace), step_of("ct_slices"))
    outcome = run(workspace)
    assert not outcome.failures
    table = workspace.warehouse.read("acquisition")
    assert table.filter(study_id=study)["manufacturer"].to_list() == ["Late"]
    assert np.unique(workspace.audited_studies()[MANUFACTURER]).tolist() == ["ACME", "Late", "Umbrella", "unknown"]

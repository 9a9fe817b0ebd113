"""Montages of discovered regions: of training and validation studies, one of each patient, and only where they may be shown."""

from __future__ import annotations

import base64
import io

import polars as pl
import pydicom
import pytest
from PIL import Image

from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.pipeline.run_montages import MOST_SLICES, montages
from fmaudit_core.pipeline.run_report import report_input
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.report.page import render_page
from fmaudit_core.storage.warehouse import Cell
from fmaudit_core.tables.fairness import DISCOVERED_MEMBERS, DISCOVERED_SUBGROUPS
from tests.platform.conftest import reconfigured

CELL = Cell("efficientnet_lite0", "pe")
KEY = {
    "encoder": CELL.encoder, "task": CELL.task, "probe": "logistic", "modality": "ct", "pooling": "mean", "strategy": "none",
}  # fmt: skip
TESTED = {
    "finder": "direction", "rule": [], "share": 0.2, "status": "tested", "confirmed": True, "n": 40, "n_pos": 20, "udr": 0.8,
    "expected": 0.4, "rest_udr": 0.3, "rest_expected": 0.3, "excess": 0.4, "excess_low": 0.2, "excess_high": 0.6,
    "p_value": 0.001, "p_adjusted": 0.001, "stability": 0.6, "detectable": 0.3,
}  # fmt: skip


def with_regions(workspace, regions, *, images=True):
    """The workspace with regions of these members in place of those found, and the setting."""
    rows = [KEY | TESTED | {"region": at + 1} for at in range(len(regions))]
    split = dict(workspace.audited_studies().select("study_id", "split").iter_rows())
    members = [
        KEY | {"region": at + 1, "study_id": study, "split": split[study]}
        for at, studies in enumerate(regions)
        for study in studies
    ]
    published = {
        "discovered_members": DISCOVERED_MEMBERS.frame(members),
        "discovered_subgroups": DISCOVERED_SUBGROUPS.frame(rows),
    }
    for cell in snapshot_of(workspace).audited_cells():
        for name, frame in published.items():  # of every other encoder and task, none
            version = workspace.warehouse.version(name, cell)
            shown = frame if cell == CELL else frame.clear()
            workspace.warehouse.publish(name, shown, version=version, cell=cell)
    return reconfigured(workspace, report={"images": images})


@pytest.fixture
def read(monkeypatch):
    """The studies whose slices were read."""
    seen = []
    original = SliceStore.read

    def spied(store, study_id, view):
        seen.append(study_id)
        return original(store, study_id, view)

    monkeypatch.setattr(SliceStore, "read", spied)
    return seen


def studies_of(workspace, *splits):
    studies = workspace.audited_studies()
    return studies.filter(pl.col("split").is_in(splits)).get_column("study_id").to_list()


def test_no_test_study_is_shown_and_one_of_each_patient(copied, read):
    workspace = with_regions(copied, [studies_of(copied, "train", "val", "test")])
    ((key, png),) = montages(workspace, snapshot_of(workspace)).items()
    assert key == (CELL.encoder, CELL.task, 1)
    of = workspace.audited_studies().filter(pl.col("study_id").is_in(read))
    assert len(read) == MOST_SLICES
    assert set(of["split"]) <= {"train", "val"}
    assert of["patient_id"].n_unique() == len(read)
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    assert picture.mode == "L"
    assert picture.info == {}


def test_none_of_a_region_under_the_small_group_rule(copied, read):
    fewest = copied.audit.fairness.suppress_under
    studies = copied.audited_studies().filter(pl.col("split") == "train").unique("patient_id", maintain_order=True)
    train = studies.get_column("study_id").to_list()
    regions = [[*train[: fewest - 1], *studies_of(copied, "test")], train[:fewest]]
    workspace = with_regions(copied, regions)
    assert [key[2] for key in montages(workspace, snapshot_of(workspace))] == [2]
    assert set(read) == set(train[:fewest])


def test_none_of_a_series_that_may_hold_text(copied, read):
    train = studies_of(copied, "train")
    marked, others = train[0], train[1:8]
    images = copied.study_images(copied.warehouse.read("studies"))
    for file in images[marked].rglob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.BurnedInAnnotation = "YES"
        dataset.save_as(file)
    workspace = with_regions(copied, [[marked, *others]])
    assert montages(workspace, snapshot_of(workspace))
    assert marked not in read
    assert read


def test_none_unless_the_audit_asks_for_images(copied, read):
    workspace = with_regions(copied, [studies_of(copied, "train")], images=False)
    assert montages(workspace, snapshot_of(workspace)) == {}
    assert read == []
    assert open_workspace(copied.audit_yaml).audit.report.images is False
    assert "data:image/png" not in render_page(report_input(workspace, snapshot_of(workspace)))


def test_the_page_shows_them_and_names_no_study(copied):
    workspace = with_regions(copied, [studies_of(copied, "train", "val")])
    page = render_page(report_input(workspace, snapshot_of(workspace)))
    assert page.count('<figure class="montage">') == 1
    assert not any(study in page for study in studies_of(copied, "train", "val"))

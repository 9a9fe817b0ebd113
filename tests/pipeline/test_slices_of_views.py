"""Slices in another view are made from the same images: what was read from their headers stays as it is."""

from __future__ import annotations

import pydicom
import yaml

from fmaudit_core.pipeline.changed_sources import source_changed
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.steps import step_of
from tests.pipeline.test_archive import STUDIES, build_and_publish, read_and_publish, write_audit

SLICES = step_of("ct_slices")


def test_another_view_is_another_version_of_the_slices_and_the_same_of_the_facts_of_headers(tmp_path):
    workspace = write_audit(tmp_path / "audit", "study")
    read_and_publish(workspace)
    first = build_and_publish(workspace)
    assert not source_changed(snapshot_of(workspace), SLICES)

    histogram = workspace.audit.encoders / "hu_histogram.yaml"
    spec = yaml.safe_load(histogram.read_text())
    spec |= {"name": "second", "view": spec["view"] | {"stride": 2}}
    (histogram.with_name("second.yaml")).write_text(yaml.safe_dump(spec))
    assert source_changed(snapshot_of(workspace), SLICES)
    second = build_and_publish(workspace)
    assert second.version != first.version
    assert second.acquisition_version == first.acquisition_version
    assert not source_changed(snapshot_of(workspace), SLICES)

    workspace.warehouse.path("acquisition").unlink()
    assert source_changed(snapshot_of(workspace), SLICES)


def test_another_scanner_is_another_version_of_the_facts_of_headers(tmp_path):
    workspace = write_audit(tmp_path / "audit", "study")
    read_and_publish(workspace)
    before = build_and_publish(workspace)
    for path in (tmp_path / "audit" / "ct" / STUDIES[3]).iterdir():
        header = pydicom.dcmread(path)
        header.Manufacturer = "Another"
        header.save_as(path)
    assert source_changed(snapshot_of(workspace), SLICES)
    assert build_and_publish(workspace).acquisition_version != before.acquisition_version

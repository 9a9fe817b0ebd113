"""Without stored slices, the CT of a study is read once for all encoders that are not up to date."""

from __future__ import annotations

import sys

import pytest
import yaml

from fmaudit_core.imaging import slices
from fmaudit_core.pipeline.run_embeddings import MOST_TOGETHER, embed, read_together
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.steps import step_of
from fmaudit_core.pipeline.versions import expected_version, is_fresh
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.warehouse import Cell
from tests.everyday.cohorts import write_spec
from tests.pipeline.test_archive import STUDIES, build_and_publish, read_and_publish, write_audit

STEP = step_of("study_embeddings")


@pytest.fixture
def workspace(tmp_path):
    """Twelve studies, slices that are not stored, and encoders of three views; one more cannot be loaded."""
    config = write_audit(tmp_path / "audit", "study").audit_yaml
    raw = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(raw | {"compute": {"keep_slices": "none"}}))
    histogram = config.parent / "encoders/hu_histogram.yaml"
    spec = yaml.safe_load(histogram.read_text())
    for name, stride in (("second", 2), ("third", 3)):
        view = spec["view"] | {"stride": stride}
        (histogram.with_name(f"{name}.yaml")).write_text(yaml.safe_dump(spec | {"name": name, "view": view}))
    workspace = open_workspace(config)
    read_and_publish(workspace)
    build_and_publish(workspace)
    return workspace


def embedded(workspace, encoder):
    look = snapshot_of(workspace)
    version = expected_version(look, STEP, Cell(encoder))
    return embed(workspace, encoder, version=version, together=read_together(look, encoder))


def test_each_study_is_read_once_for_all_encoders(workspace, monkeypatch):
    opened = []
    found_series = slices.found_series
    monkeypatch.setattr(
        slices, "found_series", lambda path, **given: opened.append(path) or found_series(path, **given)
    )
    assert set(read_together(snapshot_of(workspace), "second")) == {"hu_histogram", "third"}
    for encoder in ("second", "hu_histogram", "third"):
        assert embedded(workspace, encoder).n_studies == len(STUDIES)
    assert len(opened) == len(STUDIES)
    assert all(is_fresh(snapshot_of(workspace), STEP, Cell(name)) for name in ("second", "hu_histogram", "third"))
    assert read_together(snapshot_of(workspace), "second") == {}
    assert not list((workspace.home / "extraction").rglob("*.npz"))


def test_few_encoders_are_in_memory_at_once_and_none_where_slices_are_stored(workspace):
    registry = workspace.audit.encoders
    spec = yaml.safe_load((registry / "second.yaml").read_text())
    for at in range(MOST_TOGETHER):
        (registry / f"more{at}.yaml").write_text(yaml.safe_dump(spec | {"name": f"more{at}"}))
    assert len(read_together(snapshot_of(workspace), "second")) == MOST_TOGETHER - 1
    raw = yaml.safe_load(workspace.audit_yaml.read_text()) | {"compute": {"keep_slices": "all"}}
    workspace.audit_yaml.write_text(yaml.safe_dump(raw))
    assert read_together(snapshot_of(open_workspace(workspace.audit_yaml)), "second") == {}


@pytest.mark.parametrize("keep_slices", ["all", "none"])
def test_embeddings_computed_elsewhere_read_no_ct_and_need_no_part_that_can(workspace, monkeypatch, keep_slices):
    (workspace.home / "theirs.npz").write_bytes(b"")
    write_spec(workspace.audit.encoders, workspace.home / "theirs.npz")
    raw = yaml.safe_load(workspace.audit_yaml.read_text()) | {"compute": {"keep_slices": keep_slices}}
    workspace.audit_yaml.write_text(yaml.safe_dump(raw))
    look = snapshot_of(open_workspace(workspace.audit_yaml))
    monkeypatch.setitem(sys.modules, "fmaudit_core.imaging.slices", None)  # as where it is not installed
    assert read_together(look, "theirs") == {}

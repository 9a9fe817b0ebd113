"""What the report is made of: any of it changed makes the report stale, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import polars as pl
import pytest

from fmaudit_core.config import Audit, PhantomCohort
from fmaudit_core.encoders.spec import EncoderSpec, load_spec
from fmaudit_core.plan import recorded_in_warehouse, stale_steps
from fmaudit_core.versions import (
    FAIRNESS_TABLES,
    MITIGATION_BY_CELL,
    MITIGATION_BY_ENCODER,
    MITIGATION_WHOLE,
    Versions,
)
from fmaudit_core.warehouse import WHOLE, Cell
from fmaudit_core.workspace import Workspace

CELL = Cell("hu_histogram", "pe")
SHOWN_WHOLE = (
    "audit_findings", "model_comparisons", "modality_comparisons", "studies", "cohort_flow", "label_flow", "cohort_notes",
    "slice_quality", *MITIGATION_WHOLE,
)  # fmt: skip
BY_CELL = (*FAIRNESS_TABLES, *MITIGATION_BY_CELL)
ROW = pl.DataFrame({"x": [1]})


@pytest.fixture
def spec() -> EncoderSpec:
    return load_spec(Path(str(files("fmaudit_core.encoders").joinpath("specs", "hu_histogram.yaml"))))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    audit = Audit(cohort=PhantomCohort(kind="phantom"), home=tmp_path / "home", encoders=tmp_path / "encoders")
    made = Workspace(audit=audit, audit_yaml=tmp_path / "audit.yaml")
    for name in SHOWN_WHOLE:
        made.warehouse.publish(name, ROW, version="1")
    for name in BY_CELL:
        made.warehouse.publish(name, ROW, version="1", cell=CELL)
    for name in MITIGATION_BY_ENCODER:
        made.warehouse.publish(name, ROW, version="1", cell=Cell(CELL.encoder))
    return made


def _cell_of(table: str) -> Cell:
    return CELL if table in BY_CELL else Cell(CELL.encoder) if table in MITIGATION_BY_ENCODER else WHOLE


@pytest.mark.parametrize("table", [*SHOWN_WHOLE, *BY_CELL, *MITIGATION_BY_ENCODER])
def test_another_version_of_any_table_makes_another_report(workspace: Workspace, spec: EncoderSpec, table: str) -> None:
    versions = Versions(workspace, {spec.name: spec})
    before = versions.audit_report()
    assert versions.audit_report() == before
    workspace.warehouse.publish(table, ROW, version="2", cell=_cell_of(table))
    assert versions.audit_report() != before


def test_what_is_left_out_of_the_report_is_no_part_of_it(workspace: Workspace, spec: EncoderSpec) -> None:
    off = workspace.audit.model_copy(
        update={"mitigation": workspace.audit.mitigation.model_copy(update={"enabled": False})}
    )
    versions = Versions(Workspace(off, workspace.audit_yaml), {spec.name: spec})
    before = versions.audit_report()
    for table in (*MITIGATION_BY_CELL, *MITIGATION_BY_ENCODER, *MITIGATION_WHOLE):
        workspace.warehouse.publish(table, ROW, version="2", cell=_cell_of(table))
    assert versions.audit_report() == before


@pytest.mark.parametrize(
    "changed",
    [
        lambda audit: {"name": "another name"},
        lambda audit: {"fairness": audit.fairness.model_copy(update={"auroc_margin": 0.03})},
        lambda audit: {"imaging": audit.imaging.model_copy(update={"min_slices": 9})},
    ],
    ids=["name", "margin", "slices"],
)
def test_what_methods_and_summary_tell_of_the_config_is_part_of_the_report(
    workspace: Workspace, spec: EncoderSpec, changed: Callable[[Audit], dict[str, object]]
) -> None:
    other = Workspace(workspace.audit.model_copy(update=changed(workspace.audit)), workspace.audit_yaml)
    before, after = (Versions(one, {spec.name: spec}).audit_report() for one in (workspace, other))
    assert before != after


def test_a_title_is_part_of_the_report_and_a_place_is_not(workspace: Workspace, spec: EncoderSpec) -> None:
    before = Versions(workspace, {spec.name: spec}).audit_report()
    titled = spec.model_copy(update={"title": "Another title"})
    assert Versions(workspace, {spec.name: titled}).audit_report() != before
    moved = Workspace(workspace.audit.model_copy(update={"encoders": Path("/elsewhere")}), workspace.audit_yaml)
    assert Versions(moved, {spec.name: spec}).audit_report() == before


def test_findings_without_the_pairs_that_belong_to_them_are_made_again(workspace: Workspace, spec: EncoderSpec) -> None:
    encoders = {spec.name: spec}
    expected = Versions(workspace, encoders).audit_findings()
    for name in ("audit_findings", "model_comparisons", "modality_comparisons"):
        workspace.warehouse.publish(name, ROW, version=expected)

    def stale() -> list[str]:
        steps = stale_steps(
            workspace, ("audit_findings",), recorded=recorded_in_warehouse(workspace), encoders=encoders,
            only_encoders=[spec.name], only_tasks=["pe"],
        )  # fmt: skip
        return [asset for step in steps for asset in step.assets]

    assert stale() == []
    workspace.warehouse.path("model_comparisons").unlink()
    assert stale() == ["audit_findings"]

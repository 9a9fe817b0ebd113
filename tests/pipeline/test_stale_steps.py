"""What the report is made of: any of it changed makes the report stale, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import duckdb
import polars as pl
import pytest
from pydantic import ValidationError

from fmaudit_core.config import Audit, EhrSection, PhantomCohort
from fmaudit_core.encoders.spec import EncoderSpec, load_spec
from fmaudit_core.pipeline.stale_steps import recorded_in_warehouse, stale_steps
from fmaudit_core.pipeline.versions import (
    FAIRNESS_TABLES,
    MITIGATION_BY_CELL,
    MITIGATION_BY_ENCODER,
    MITIGATION_WHOLE,
    Versions,
)
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.warehouse import WHOLE, Cell

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


@pytest.mark.parametrize("changed", [{"control": False}, {"title": "Another title"}], ids=["control", "label"])
def test_what_findings_say_of_an_encoder_is_part_of_them(
    workspace: Workspace, spec: EncoderSpec, changed: dict[str, object]
) -> None:
    """A control is no encoder to warn of: to make it one is another family of tests."""
    before = Versions(workspace, {spec.name: spec}).audit_findings()
    assert Versions(workspace, {spec.name: spec.model_copy(update=changed)}).audit_findings() != before


def test_networks_read_the_pooling_that_speaks_for_the_encoder(workspace: Workspace, spec: EncoderSpec) -> None:
    """A primary pooling that the encoder has not leaves its own: which ones are configured decides."""
    path = workspace.warehouse.embeddings_path(spec.name)
    path.parent.mkdir(parents=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE study_embeddings AS SELECT 's1' AS study_id, unnest(['mean', 'max']) AS pooling"
        )
        connection.execute("CREATE TABLE provenance AS SELECT 'version' AS key, '1' AS value")
    found = []
    for poolings in (("mean", "max"), ("max",)):
        audit = workspace.audit.model_copy(
            update={"probes": workspace.audit.probes.model_copy(update={"poolings": poolings})}
        )
        found.append(Versions(Workspace(audit, workspace.audit_yaml), {spec.name: spec}).neural_fits(spec.name))
    assert found[0] != found[1]


def test_which_past_a_task_may_know_leaves_the_features_of_the_record_alone(
    workspace: Workspace, spec: EncoderSpec
) -> None:
    assert workspace.record is not None
    workspace.record.path.parent.mkdir(parents=True)
    workspace.record.path.touch()
    later = workspace.audit.ehr.model_copy(update={"day_before": ()})
    other = Workspace(workspace.audit.model_copy(update={"ehr": later}), workspace.audit_yaml)
    before, after = (Versions(one, {spec.name: spec}) for one in (workspace, other))
    assert before.ehr_features() == after.ehr_features()
    assert before.ehr_fits() != after.ehr_fits()


def test_a_past_of_a_task_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"ehr.day_before names pee, which is not a task; the tasks are pe"):
        Audit(cohort=PhantomCohort(kind="phantom"), tasks=("pe",), ehr=EhrSection(day_before=("pee",)))
    Audit(
        cohort=PhantomCohort(kind="phantom"), tasks=("mortality_1m",)
    )  # the default names a task that is not asked for

"""What makes a step stale, and what is made next: any table of any step, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import ValidationError

from fmaudit_core.config import AcquisitionSection, Audit, EhrSection, PhantomCohort
from fmaudit_core.encoders.registry import Registry
from fmaudit_core.encoders.spec import PREDICTIONS, EncoderSpec, PredictionsFile, load_spec
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.changed_sources import fingerprint, usable_specs
from fmaudit_core.pipeline.run_report import _provenance
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.stale_steps import Next, StaleStep, next_steps
from fmaudit_core.pipeline.steps import FAIRNESS_TABLES, STEPS, By, Step, step_of
from fmaudit_core.pipeline.versions import expected_version, is_fresh
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.storage.report_layout import PAGE
from fmaudit_core.storage.warehouse import Cell, WarehouseError
from fmaudit_core.tables.schemas import TABLES as PUBLISHED
from fmaudit_core.tabular.errors import CohortError
from tests.everyday.cohorts import write_spec
from tests.pipeline.published import publish_all

CELL = Cell("hu_histogram", "pe")


@pytest.fixture(scope="module")
def spec() -> EncoderSpec:
    return load_spec(Path(str(files("fmaudit_core.encoders").joinpath("specs", "hu_histogram.yaml"))))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, spec: EncoderSpec) -> Path:
    folder = tmp_path_factory.mktemp("published")
    publish_all(workspace_in(folder), {spec.name: spec})
    return folder


@pytest.fixture
def workspace(tmp_path: Path, published: Path) -> Workspace:
    """Every step published with the version it should have; the tables hold nothing."""
    shutil.copytree(published, tmp_path / "copy", copy_function=shutil.copy2)
    return workspace_in(tmp_path / "copy")


def workspace_in(folder: Path) -> Workspace:
    audit = Audit(
        cohort=PhantomCohort(kind="phantom"), tasks=("pe",), home=folder / "home", encoders=folder / "encoders"
    )
    made = Workspace(audit=audit, audit_yaml=folder / "audit.yaml")
    assert made.record is not None
    if not made.record.path.exists():
        made.record.path.parent.mkdir(parents=True)
        made.record.path.touch()
    return made


def asked(
    workspace: Workspace, encoders: dict[str, EncoderSpec], *, busy: tuple[str, ...] = (), failed: tuple[str, ...] = ()
) -> Next:
    return next_steps(
        Snapshot(workspace, encoders), encoders=list(encoders), tasks=workspace.audit.tasks,
        is_running=lambda step: step.name in busy, failure_reason=lambda step: "it failed" if step.name in failed else None,
    )  # fmt: skip


def names(found: Next) -> list[str]:
    return [step.name for step in found.steps]


#: every table of every step that this workspace has
TABLES = [
    (step, table)
    for step in STEPS
    for table in step.tables
    if step.name not in ("neural_fits", "adjusted_gaps") and table not in ("study_embeddings", "baseline_joins")
]


def test_nothing_is_stale_where_every_table_is_as_it_should_be(workspace: Workspace, spec: EncoderSpec) -> None:
    assert asked(workspace, {spec.name: spec}).idle


@pytest.mark.parametrize(("step", "table"), TABLES, ids=[table for _, table in TABLES])
def test_a_table_that_is_lost_torn_or_of_another_version_is_made_again(
    workspace: Workspace, spec: EncoderSpec, step: Step, table: str
) -> None:
    def is_due() -> bool:
        found = asked(workspace, {spec.name: spec}).steps
        return bool(set(step.assets) & {asset for one in found for asset in one.assets})

    cell = step.by.cell(CELL)
    path = workspace.warehouse.path(table, cell)
    path.write_bytes(path.read_bytes()[:20])
    assert is_due()
    path.unlink()
    assert is_due()
    if not step.sources:  # whether a source changed is asked apart
        workspace.warehouse.publish(table, PUBLISHED[table].frame(), version="other", cell=cell)
        assert is_due()


def test_gaps_are_adjusted_only_where_covariates_are_declared(workspace: Workspace, spec: EncoderSpec) -> None:
    audit = workspace.audit.model_copy(update={"covariates": ("sex",)})
    declared = Workspace(audit=audit, audit_yaml=workspace.audit_yaml)
    due = [one.name for one in asked(declared, {spec.name: spec}).steps]
    # rules over metadata are searched for in covariates too
    assert due == ["adjusted_gaps/hu_histogram/pe", "discovered_subgroups/hu_histogram/pe"]
    publish_all(declared, {spec.name: spec}, but=("study_embeddings",))
    assert asked(declared, {spec.name: spec}).idle
    marked = Workspace(audit=audit.model_copy(update={"mediators": ("sex",)}), audit_yaml=workspace.audit_yaml)
    assert [one.name for one in asked(marked, {spec.name: spec}).steps] == ["adjusted_gaps/hu_histogram/pe"]


def test_exploratory_steps_that_are_switched_off_are_never_due(workspace: Workspace, spec: EncoderSpec) -> None:
    for step in ("training_counts", "discovered_subgroups"):
        workspace.warehouse.path(step, CELL).unlink()
        assert [one.name for one in asked(workspace, {spec.name: spec}).steps] == [f"{step}/hu_histogram/pe"]
        off = workspace.audit.exploration.model_copy(update={step: False})
        audit = workspace.audit.model_copy(update={"exploration": off})
        left_out = Workspace(audit=audit, audit_yaml=workspace.audit_yaml)
        assert f"{step}/hu_histogram/pe" not in names(asked(left_out, {spec.name: spec}))
        publish_all(workspace, {spec.name: spec}, but=("study_embeddings",))


def test_only_the_lost_assets_of_several_are_made_again(workspace: Workspace, spec: EncoderSpec) -> None:
    workspace.warehouse.path("intersections", CELL).unlink()
    (due,) = asked(workspace, {spec.name: spec}).steps
    assert (due.name, due.assets) == ("fairness/hu_histogram/pe", ("intersections",))


def test_embeddings_that_the_disk_does_not_give_are_no_reason_to_encode_again(
    workspace: Workspace, spec: EncoderSpec
) -> None:
    path = workspace.warehouse.embeddings_path(spec.name)
    path.unlink()
    path.mkdir()
    with pytest.raises(WarehouseError, match="Check its disk or mount"):
        asked(workspace, {spec.name: spec})


def test_a_lost_page_is_written_again(workspace: Workspace, spec: EncoderSpec) -> None:
    (workspace.reports / PAGE).unlink()
    assert names(asked(workspace, {spec.name: spec})) == ["audit_report"]


@pytest.mark.parametrize(
    "failed",
    [
        "mitigation_capacity",
        "mitigation_scores/hu_histogram",
        "probe_predictions/hu_histogram/pe",
        "study_embeddings/hu_histogram",
    ],
)
def test_what_failed_holds_only_what_reads_it(workspace: Workspace, spec: EncoderSpec, failed: str) -> None:
    """Findings and report are made of what there is."""
    name = failed.split("/")[0]
    if name == "study_embeddings":
        workspace.warehouse.embeddings_path(CELL.encoder).unlink()
    else:
        workspace.warehouse.publish(name, PUBLISHED[name].frame(), version="other", cell=step_of(name).by.cell(CELL))
    workspace.warehouse.path("audit_findings").unlink()
    found = asked(workspace, {spec.name: spec}, failed=(failed,))
    assert list(found.failure_reasons) == [failed]
    assert [step.assets for step in found.steps] == [("audit_findings", "audit_report")]


def test_probes_on_ct_do_not_wait_for_a_record_that_cannot_be_read(workspace: Workspace, spec: EncoderSpec) -> None:
    """They are scored without it, and again with it once it can be read."""
    registry = {spec.name: spec}
    warehouse = workspace.warehouse
    ehr_features = {table: warehouse.version(table) for table in step_of("ehr_features").tables}
    warehouse.path("ehr_features").unlink()
    assert names(asked(workspace, registry)) == ["ehr_features"]

    failed = ("ehr_features",)
    (due,) = asked(workspace, registry, failed=failed).steps
    assert (due.name, due.assets) == ("probe_predictions/hu_histogram/pe", ("probe_predictions", *FAIRNESS_TABLES))
    look = Snapshot(workspace, registry)
    assert queries.score_tables(look, spec.name) == []
    assert {"left out: ehr_fits", "left out: fusion_fits/hu_histogram"} <= set(_provenance(workspace, look))
    predictions = step_of("probe_predictions")
    version = expected_version(look, predictions, CELL)
    for table in ("probe_selection", "probe_predictions"):
        warehouse.publish(table, PUBLISHED[table].frame(), version=version, cell=CELL)
    assert "probe_predictions/hu_histogram/pe" not in names(asked(workspace, registry, failed=failed))

    warehouse.publish("ehr_features", PUBLISHED["ehr_features"].frame(), version=str(ehr_features["ehr_features"]))
    assert "probe_predictions/hu_histogram/pe" in names(asked(workspace, registry))
    assert queries.score_tables(Snapshot(workspace, registry), spec.name) != []


def test_a_baseline_waits_for_no_probe(workspace: Workspace, spec: EncoderSpec) -> None:
    """Its scores come with it: they are joined though the record cannot be read, and asked for with their statistics."""
    file = PredictionsFile(path=workspace.audit_yaml, sha256="0" * 64, task="pe")
    baseline = EncoderSpec(name="baseline", adapter=PREDICTIONS, predictions=(file,))
    workspace.warehouse.path("ehr_features").unlink()
    found = asked(workspace, {spec.name: spec, "baseline": baseline}, failed=("ehr_features",))
    due = {step.name: step.assets for step in found.steps}
    assert due["probe_predictions/baseline/pe"] == ("probe_predictions", *FAIRNESS_TABLES)
    assert not any("baseline" in name for name in due if not name.startswith("probe_predictions"))


def test_the_report_alone_is_written_again_though_an_optional_step_failed(
    workspace: Workspace, spec: EncoderSpec
) -> None:
    workspace.warehouse.path("mitigation_capacity").unlink()
    workspace.warehouse.path("report_files").unlink()
    assert names(asked(workspace, {spec.name: spec})) == ["mitigation_capacity"]
    assert names(asked(workspace, {spec.name: spec}, failed=("mitigation_capacity",))) == ["audit_report"]
    assert names(asked(workspace, {spec.name: spec}, busy=("mitigation_capacity",))) == []


def test_a_cohort_that_failed_is_tried_again_when_its_table_was_mended(workspace: Workspace, spec: EncoderSpec) -> None:
    workspace.warehouse.path("studies").unlink()
    table = workspace.table.table
    table.write_text("study_id\n")
    (before,) = asked(workspace, {spec.name: spec}).steps
    seen = fingerprint(workspace, [spec])
    table.write_text("study_id,patient_id\n")
    (after,) = asked(workspace, {spec.name: spec}).steps
    assert before.name == after.name == "cohort"
    assert before.version != after.version
    assert fingerprint(workspace, [spec]) != seen


def test_other_images_or_a_new_view_ask_for_slices(workspace: Workspace, spec: EncoderSpec) -> None:
    other = spec.model_copy(update={"name": "other", "view": spec.view.model_copy(update={"stride": 7})})
    assert names(asked(workspace, {spec.name: spec, "other": other})) == ["ct_slices"]


def by_images(workspace: Workspace, *edges: float) -> Workspace:
    """The same workspace with the slice thickness as an attribute."""
    grouped = AcquisitionSection(slice_thickness=edges)
    update = {"attributes": ("sex", "acquisition.slice_thickness"), "acquisition": grouped}
    return Workspace(audit=workspace.audit.model_copy(update=update), audit_yaml=workspace.audit_yaml)


def test_other_edges_make_again_what_compares_by_them_and_no_slices_or_probes(
    tmp_path: Path, spec: EncoderSpec
) -> None:
    registry = {spec.name: spec}
    before, ids = by_images(workspace_in(tmp_path), 1.5, 3), ["s1", "s2"]
    study = {"patient_id": "p", "split": "test", "age": 50, "age_band": "18_64", "sex": "female", "race_ethnicity": "a"}
    studies = PUBLISHED["studies"].frame([study | {"study_id": one, "image_path": one} for one in ids])
    known = PUBLISHED["acquisition"].frame([{"study_id": "s1", "slice_thickness": 2.0}, {"study_id": "s2"}])
    publish_all(before, registry, frames={"studies": studies, "acquisition": known})
    assert asked(before, registry).idle
    due = names(asked(by_images(before, 1, 2.5), registry))
    assert due == [
        "fairness/hu_histogram/pe", "training_counts/hu_histogram/pe", "discovered_subgroups/hu_histogram/pe",
        "demographic_probes/hu_histogram", "mitigation_scores/hu_histogram",
    ]  # fmt: skip


def test_facts_that_were_never_read_ask_for_the_series_first(workspace: Workspace, spec: EncoderSpec) -> None:
    """As in a workspace of an earlier version, whose slices stay as they are."""
    workspace.warehouse.path("acquisition").unlink()
    asking = by_images(workspace)
    (due,) = asked(asking, {spec.name: spec}).steps
    assert (due.name, set(due.assets)) == ("ct_slices", {"ct_slices", "acquisition"})
    found = asked(asking, {spec.name: spec}, failed=("ct_slices",))
    assert names(found) == []


def test_too_many_levels_fail_what_compares_them_and_not_the_look(workspace: Workspace, spec: EncoderSpec) -> None:
    asking, ids = by_images(workspace), [f"s{at}" for at in range(40)]
    study = {"split": "test", "age": 50, "age_band": "18_64", "sex": "female", "race_ethnicity": "a"}
    studies = [study | {"study_id": one, "patient_id": one, "image_path": one} for one in ids]
    known = [{"study_id": one, "slice_thickness": float(at + 1)} for at, one in enumerate(ids)]
    for table, rows in (("studies", studies), ("acquisition", known)):
        workspace.warehouse.publish(table, PUBLISHED[table].frame(rows), version="1")
    assert asked(asking, {spec.name: spec}).steps
    with pytest.raises(CohortError, match=r"has 40 levels .*acquisition: \{slice_thickness: \[\.\.\.\]\}"):
        asking.audited_studies()


def test_embeddings_computed_elsewhere_wait_for_series_only_if_an_attribute_is_read_from_them(tmp_path: Path) -> None:
    write_spec(tmp_path, Path(__file__), name="theirs")
    registry = {"theirs": load_spec(tmp_path / "theirs.yaml")}
    workspace = workspace_in(tmp_path)
    publish_all(workspace, registry)
    assert workspace.warehouse.version("acquisition") is None
    assert asked(workspace, registry).idle
    assert names(asked(by_images(workspace), registry)) == ["ct_slices"]


def test_a_look_at_many_partitions_parses_each_spec_once(
    tmp_path: Path, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fmaudit_core.encoders.registry as registry

    text = Path(str(files("fmaudit_core.encoders").joinpath("specs", "hu_histogram.yaml"))).read_text()
    folder = tmp_path / "encoders"
    folder.mkdir()
    for at in range(3):
        (folder / f"e{at}.yaml").write_text(text.replace("name: hu_histogram", f"name: e{at}"))
    workspace = workspace_in(tmp_path)
    publish_all(workspace, Registry(folder).specs())
    parsed: list[str] = []
    load = registry.load_spec
    monkeypatch.setattr(registry, "load_spec", lambda path: parsed.append(path.name) or load(path))
    specs, usable, _ = usable_specs(workspace.registry)
    found = next_steps(
        Snapshot(workspace, specs), encoders=list(usable), tasks=workspace.audit.tasks, is_running=lambda _: False,
        failure_reason=lambda _: None,
    )  # fmt: skip
    assert found.idle
    assert sorted(parsed) == [f"e{at}.yaml" for at in range(3)]


def test_every_step_is_declared_after_its_inputs_and_every_table_once() -> None:
    seen: set[str] = set()
    for step in STEPS:
        assert {source.name for source in step.input_steps.values()} <= seen, step.name
        assert not step.with_input or step.with_input in step.input_steps
        seen.add(step.name)
    tables = [table for step in STEPS for table in step.tables]
    assert len(tables) == len(set(tables))


def test_a_step_is_named_by_its_cell() -> None:
    step = step_of("mitigation_subgroups")
    assert (step.name, step.by) == ("mitigation_results", By.ENCODER_TASK)
    assert StaleStep(step, CELL, ()).name == "mitigation_results/hu_histogram/pe"


def report_version(workspace: Workspace, *specs: EncoderSpec) -> str:
    return expected_version(Snapshot(workspace, {spec.name: spec for spec in specs}), step_of("audit_report"))


def test_what_is_left_out_of_the_report_is_no_part_of_it(workspace: Workspace, spec: EncoderSpec) -> None:
    off = workspace.audit.model_copy(
        update={"mitigation": workspace.audit.mitigation.model_copy(update={"enabled": False})}
    )
    without = Workspace(off, workspace.audit_yaml)
    before = report_version(without, spec)
    workspace.warehouse.publish("mitigation_results", PUBLISHED["mitigation_results"].frame(), version="2", cell=CELL)
    assert report_version(without, spec) == before
    assert report_version(workspace, spec) != before


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
    before, after = (report_version(one, spec) for one in (workspace, other))
    assert before != after


def test_a_title_is_part_of_the_report_and_a_place_is_not(workspace: Workspace, spec: EncoderSpec) -> None:
    before = report_version(workspace, spec)
    assert report_version(workspace, spec.model_copy(update={"title": "Another title"})) != before
    moved = Workspace(workspace.audit.model_copy(update={"encoders": Path("/elsewhere")}), workspace.audit_yaml)
    assert report_version(moved, spec) == before


@pytest.mark.parametrize("changed", [{"control": False}, {"title": "Another title"}], ids=["control", "label"])
def test_what_findings_say_of_an_encoder_is_part_of_them(
    workspace: Workspace, spec: EncoderSpec, changed: dict[str, object]
) -> None:
    """A control is no encoder to warn of: to make it one is another family of tests."""
    findings = step_of("audit_findings")
    assert is_fresh(Snapshot(workspace, {spec.name: spec}), findings)
    assert not is_fresh(Snapshot(workspace, {spec.name: spec.model_copy(update=changed)}), findings)


def test_networks_read_the_pooling_that_speaks_for_the_encoder(workspace: Workspace, spec: EncoderSpec) -> None:
    """A primary pooling that the encoder has not leaves its own: which ones are configured decides."""
    found = []
    for poolings in (("mean", "max"), ("max",)):
        audit = workspace.audit.model_copy(
            update={"probes": workspace.audit.probes.model_copy(update={"poolings": poolings})}
        )
        look = Snapshot(Workspace(audit, workspace.audit_yaml), {spec.name: spec})
        found.append(expected_version(look, step_of("neural_fits"), Cell(spec.name)))
    assert found[0] != found[1]


def test_which_past_a_task_may_know_leaves_the_features_of_the_record_alone(
    workspace: Workspace, spec: EncoderSpec
) -> None:
    later = workspace.audit.ehr.model_copy(update={"day_before": ()})
    other = Workspace(workspace.audit.model_copy(update={"ehr": later}), workspace.audit_yaml)
    assert names(asked(other, {spec.name: spec})) == ["ehr_fits"]


def test_a_past_of_a_task_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"ehr.day_before names pee, which is not a task; the tasks are pe"):
        Audit(cohort=PhantomCohort(kind="phantom"), tasks=("pe",), ehr=EhrSection(day_before=("pee",)))
    Audit(
        cohort=PhantomCohort(kind="phantom"), tasks=("mortality_1m",)
    )  # the default names a task that is not asked for

"""The asset graph in process: everything once, nothing twice, and exactly what descends from a change."""

from __future__ import annotations

import json

import polars as pl
import pytest
import yaml

from fmaudit_core.encoders.embeddings_reader import read_provenance, read_study_embeddings
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.steps import FAIRNESS_TABLES
from fmaudit_core.probes.primary_score_set import of_primary_probe
from fmaudit_core.storage.warehouse import Cell
from fmaudit_core.tables.fairness import SCORE_WARNINGS
from fmaudit_core.tables.schemas import TABLES
from tests.platform.conftest import AUDIT, EXPLORED, SMALL, made, reconfigured, run, write_audit
from tests.report.reading import Page, without_plotly

CONTRACT = {
    "studies": "study_id patient_id split age age_band sex race_ethnicity",
    "labels": "study_id task label",
    "slice_quality": "study_id series_uid status reason n_slices spacing_mm",
    "probe_predictions": "encoder task probe modality pooling study_id patient_id split y_true y_score threshold",
    "subgroup_metrics": "encoder task probe modality pooling strategy attribute subgroup metric n n_pos n_neg value ci_low "
    "ci_high status mde",
    "fairness_gaps": "encoder task probe modality pooling strategy attribute metric gap null_expected_gap corrected_sd "
    "best_subgroup worst_subgroup q_statistic p_value p_gap p_adjusted q_value n_permutations verdict",
    "threshold_sweep": "encoder task attribute subgroup threshold tpr fpr band_low band_high",
    "mitigation_results": "encoder task strategy target_attribute attribute alpha seed auroc auroc_delta gap_before gap_after "
    "p_reduction worst_subgroup_udr_delta levelling_down interpretable",
    "demographic_probes": "encoder attribute probe macro_f1 balanced_auroc control_macro_f1 ci_low ci_high",
}
CELLS = [Cell(e, t) for e in ("efficientnet_lite0", "hu_histogram") for t in ("mortality_12m", "pe")]


def test_every_table_holds_the_columns_other_tools_read(audited):
    warehouse = audited[0].warehouse
    for table, columns in CONTRACT.items():
        by_cell = ("probe_predictions", "subgroup_metrics", "fairness_gaps", "threshold_sweep", "mitigation_results")
        by_encoder = [Cell(cell.encoder) for cell in CELLS[::2]]
        cells = CELLS if table in by_cell else by_encoder if table == "demographic_probes" else [Cell()]
        for cell in cells:
            assert set(columns.split()) <= set(warehouse.read(table, cell).columns), table


def test_every_declared_table_of_this_audit_is_published_with_its_columns(audited):
    warehouse = audited[0].warehouse
    published = warehouse.tables()
    # networks, a baseline, covariates and a second audit are not part of this one
    assert set(TABLES) - set(published) <= {
        "neural_fits", "probe_seeds", "equal_attention", "baseline_joins", "previous_predictions",
        "adjusted_gaps", "encoder_sensitivity",
    }  # fmt: skip
    for name in published:
        for cell in warehouse.cells(name):
            TABLES[name].check(warehouse.read(name, cell))


def test_the_whole_chain_ran_for_every_cell_and_ends_in_a_report(audited):
    workspace, outcome = audited
    assert outcome.failures == {}
    assert workspace.warehouse.cells("fairness_gaps") == CELLS
    assert (workspace.reports / "index.html").stat().st_size > 100_000
    assert workspace.warehouse.read("audit_findings").height == 2 * 2 * 2 * 3 * 3
    compared = workspace.warehouse.read("model_comparisons")
    assert set(compared.select("encoder", "other_encoder").iter_rows()) == {("efficientnet_lite0", "hu_histogram")}
    assert compared.filter(attribute="overall", metric="auroc").height == 2  # a row per task


def test_every_cell_has_its_warnings_and_thresholds_are_told_as_chosen(audited):
    workspace = audited[0]
    assert workspace.warehouse.cells("score_warnings") == CELLS
    for cell in CELLS:
        assert workspace.warehouse.read("score_warnings", cell).schema == SCORE_WARNINGS.schema
        sources = workspace.warehouse.read("subgroup_metrics", cell).drop_nulls("threshold")["threshold_source"]
        assert set(sources) == {"validation"}
    told = json.loads((workspace.reports / "audit.json").read_text())
    want = workspace.warehouse.read_cells("score_warnings", CELLS)
    assert len(told["warnings"]) <= want.height
    assert told["operating_threshold"].startswith("chosen on validation alone")


def test_every_cell_holds_the_probes_of_each_modality_and_the_findings_speak_of_ct(audited):
    workspace = audited[0]
    warehouse = workspace.warehouse
    sets = [
        ("gbm", "ehr", "none"), ("late_fusion", "ct+ehr", "mean"), ("logistic", "ct", "max"), ("logistic", "ct", "mean"),
        ("logistic", "ct+ehr", "mean"), ("logistic", "ehr", "none"),
    ]  # fmt: skip
    for cell in CELLS:
        scores = warehouse.read("probe_predictions", cell)
        assert scores.select("probe", "modality", "pooling").unique().sort(pl.all()).rows() == sets
        assert scores.get_column("threshold").null_count() == 0
        chosen = warehouse.read("probe_selection", cell).filter("chosen")
        assert chosen.height == len(sets)
        assert queries.unscored(workspace, cell) == 0
    assert set(warehouse.read("audit_findings")["modality"]) == {"ct"}
    compared = warehouse.read("model_comparisons")
    assert set(compared["modality"]) | set(compared["other_modality"]) == {"ct"}
    added = warehouse.read("modality_comparisons")
    assert added.group_by("encoder", "task").len()["len"].to_list() == [5] * 4
    page = (workspace.reports / "index.html").read_text()
    assert "What each modality adds" in page
    assert "CT and record, late fusion" in page
    assert "By the rule of the INSPECT baseline" not in page


def test_other_windows_redo_the_record_and_what_reads_it(copied):
    record = AUDIT["ehr"] | {"windows_days": [90], "cutoff": "inspect"}
    changed = reconfigured(copied, ehr=record, mitigation={"enabled": False})
    redone = {line.split()[0] for line in made(run(changed, encoders=["hu_histogram"], tasks=["pe"]))}
    assert redone == {
        "ehr_features", "ehr_fits", "fusion_fits", "probe_predictions", *FAIRNESS_TABLES, *EXPLORED, "audit_findings",
        "audit_report",
    }  # fmt: skip
    assert "days_90" in changed.warehouse.read("ehr_features").columns
    assert "By the rule of the INSPECT baseline" in (changed.reports / "index.html").read_text()


def test_imaging_alone_leaves_the_record_out_and_says_so(small):
    changed = reconfigured(small, probes=SMALL["probes"] | {"modalities": ["ct"]})
    redone = {line.split()[0] for line in made(run(changed))}
    assert redone == {"probe_predictions", *FAIRNESS_TABLES, *EXPLORED, "audit_findings", "audit_report"}
    assert set(changed.warehouse.read("probe_predictions", Cell("hu_histogram", "pe"))["modality"]) == {"ct"}
    assert changed.warehouse.read("modality_comparisons").is_empty()
    page = (changed.reports / "index.html").read_text()
    assert "none, or left out: imaging alone" in page
    assert "What each modality adds" not in page


def test_features_that_saw_too_much_block_what_is_downstream(copied):
    from fmaudit_dagster.checks import features_are_of_the_past
    from fmaudit_dagster.resources import AuditWorkspace

    resource = AuditWorkspace(audit_yaml=str(copied.audit_yaml))
    assert features_are_of_the_past(audit=resource).passed
    rows = copied.warehouse.read("ehr_rows").with_columns(last_event_time="cutoff_time")
    copied.warehouse.publish("ehr_rows", rows, version="tampered")
    assert not features_are_of_the_past(audit=resource).passed


def test_embeddings_are_of_every_study_and_of_the_specs_dimension(audited):
    workspace = audited[0]
    path = workspace.warehouse.embeddings_path("efficientnet_lite0")
    ids, embeddings = read_study_embeddings(path, "mean")
    assert ids == sorted(workspace.warehouse.read("studies")["study_id"])
    assert embeddings.shape == (150, 1280)
    assert read_provenance(path)["weights_sha256"] == workspace.registry.spec("efficientnet_lite0").weights.sha256


def test_a_second_run_does_nothing(audited):
    assert run(audited[0]).made == []


def test_other_thresholds_redo_the_statistics_and_no_more(copied):
    before = read_provenance(copied.warehouse.embeddings_path("hu_histogram"))
    changed = reconfigured(copied, fairness=AUDIT["fairness"] | {"alpha": 0.01})
    redone = {line.split()[0] for line in made(run(changed, encoders=["hu_histogram"], tasks=["pe"]))}
    assert redone - {"training_counts"} == {
        *FAIRNESS_TABLES,
        "discovered_subgroups",
        "mitigation_results",
        "mitigation_capacity",
        "audit_findings",
        "audit_report",
    }
    assert read_provenance(changed.warehouse.embeddings_path("hu_histogram")) == before


def test_every_strategy_was_held_against_the_probe_and_advice_was_given(audited):
    warehouse = audited[0].warehouse
    for cell in CELLS:
        results = warehouse.read("mitigation_results", cell)
        assert set(results["strategy"]) == set(audited[0].audit.mitigation.strategies)
        assert set(results["target_attribute"]) >= {"sex", "age_band"}
    advice = warehouse.read("mitigation_recommendations")
    assert [Cell(*row) for row in advice.select("encoder", "task").sort(pl.all()).iter_rows()] == CELLS
    told = json.loads((audited[0].reports / "audit.json").read_text())["recommendations"]
    assert [one["sentence"] for one in told] == advice["sentence"].to_list()
    assert [one["verdict"] for one in told] == advice["verdict"].to_list()
    page = Page(without_plotly((audited[0].reports / "index.html").read_text())).visible
    assert all(sentence in page for sentence in advice["sentence"])
    # judged by the findings, corrected over their family
    unequal = warehouse.read("audit_findings").filter(metric="udr", verdict="disparity", pooling="mean")
    shown = set(unequal.select("encoder", "task").iter_rows())
    for row in advice.iter_rows(named=True):
        assert (row["verdict"] != "no_disparity_shown") == ((row["encoder"], row["task"]) in shown), row
    scores = warehouse.read("mitigation_scores", Cell("hu_histogram"))
    base = scores.filter((pl.col("strategy") == "none") & (pl.col("task") == "pe")).sort("study_id")
    predicted = of_primary_probe(warehouse.read("probe_predictions", Cell("hu_histogram", "pe")))
    predicted = predicted.filter(pooling="mean").sort("study_id")
    assert base["y_score"].equals(predicted["y_score"])
    assert base["threshold"].equals(predicted["threshold"])
    widths = warehouse.read("mitigation_ladder")["width"].unique().sort().to_list()
    assert widths == [512, 1280]
    pairs = warehouse.read("mitigation_interactions").select("encoder", "other_encoder").unique()
    assert pairs.rows() == [("efficientnet_lite0", "hu_histogram")]
    assert set(warehouse.read("mitigation_capacity")["width"]) == {80, 1280}


def test_more_epochs_train_again_and_redo_what_descends_from_them(copied):
    changed = reconfigured(copied, mitigation=AUDIT["mitigation"] | {"epochs": 2})
    redone = {line.split()[0] for line in made(run(changed, encoders=["hu_histogram"], tasks=["pe"]))}
    assert redone == {"mitigation_scores", "mitigation_results", "mitigation_capacity", "audit_report"}


def test_mitigation_can_be_left_out(copied):
    changed = reconfigured(copied, fairness=AUDIT["fairness"] | {"alpha": 0.02}, mitigation={"enabled": False})
    redone = {line.split()[0] for line in made(run(changed, encoders=["hu_histogram"], tasks=["pe"]))}
    assert redone - {"training_counts"} == {*FAIRNESS_TABLES, "discovered_subgroups", "audit_findings", "audit_report"}


def test_a_new_encoder_runs_its_own_chain_and_the_findings(small):
    spec = yaml.safe_load((small.audit.encoders / "hu_histogram.yaml").read_text())
    spec |= {"name": "every_second", "view": {"values": "int16", "stride": 2}, "control": False}
    (small.audit.encoders / "second.yaml").write_text(yaml.safe_dump(spec))
    redone = made(run(small))
    # the headers were read again, which the search for subgroups reads
    others = {line.split()[0] for line in redone if line.split()[1] not in ("every_second", "whole")}
    assert others <= {"discovered_subgroups"}
    assert {line.split()[0] for line in redone if line.endswith("whole")} == {
        "acquisition",
        "ct_slices",
        "audit_findings",
        "audit_report",
    }
    assert "every_second" in small.warehouse.read("audit_findings")["encoder"].to_list()
    assert run(small).made == []


def test_an_encoder_that_fails_never_hides_the_others(small):
    spec = yaml.safe_load((small.audit.encoders / "hu_histogram.yaml").read_text())
    (small.audit.encoders / "wrong.yaml").write_text(yaml.safe_dump(spec | {"name": "wrong", "dim": 81}))
    (small.audit.encoders / "broken.yaml").write_text("{")
    outcome = run(small)
    assert list(outcome.failures) == ["study_embeddings (wrong)"]
    assert "hu_histogram needs a view" in outcome.failures["study_embeddings (wrong)"]
    assert set(small.warehouse.read("audit_findings")["encoder"]) == {"hu_histogram"}


def test_a_lost_slice_entry_and_a_lost_table_are_made_again(copied):
    next((copied.home / "slices").rglob("*.slices")).unlink()
    copied.warehouse.path("fairness_gaps", CELLS[0]).unlink()
    assert made(run(copied)) == ["acquisition whole", "ct_slices whole", f"fairness_gaps {CELLS[0]}"]


def test_one_encoder_and_task_alone(tmp_path):
    workspace = write_audit(tmp_path, **SMALL | {"tasks": ["pe", "mortality_12m"]})
    outcome = run(workspace, encoders=["hu_histogram"], tasks=["pe"])
    assert workspace.warehouse.cells("fairness_gaps") == [Cell("hu_histogram", "pe")]
    assert not workspace.warehouse.embeddings_path("efficientnet_lite0").exists()
    assert outcome.failures == {}


def test_an_unknown_encoder_is_told(audited):
    from fmaudit_core.common.errors import FmauditError

    with pytest.raises(FmauditError, match=r"no encoder clip\. There are: efficientnet_lite0, hu_histogram"):
        run(audited[0], encoders=["clip"])


def test_leakage_blocks_what_is_downstream(copied):
    """A table that was tampered with after its reader validated it fails the blocking check."""
    import dagster as dg

    from fmaudit_dagster.checks import no_patient_in_two_splits
    from fmaudit_dagster.resources import AuditWorkspace

    studies = copied.warehouse.read("studies").with_columns(patient_id=pl.lit("one"))
    copied.warehouse.publish("studies", studies, version="tampered")
    result = no_patient_in_two_splits(audit=AuditWorkspace(audit_yaml=str(copied.audit_yaml)))
    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
    assert "more than one split" in result.description


def test_lineage_reads_from_studies_to_report(audited):
    import dagster as dg

    from fmaudit_dagster.definitions import definitions_for

    graph = definitions_for(audited[0].audit_yaml).resolve_asset_graph()
    above = graph.get_ancestor_asset_keys(dg.AssetKey("audit_report"), include_self=True)
    assert {key.to_user_string() for key in above} == {
        "studies", "labels", "cohort_flow", "acquisition", "ct_slices", "study_embeddings", "probe_fits", "ehr_features",
        "ehr_fits", "fusion_fits", "neural_fits", "probe_predictions",
        *FAIRNESS_TABLES, "audit_findings", "audit_report", "label_flow", "cohort_notes", "demographic_probes",
        "adjusted_gaps", "training_counts", "discovered_subgroups", "mitigation_scores", "mitigation_results",
        "mitigation_capacity",
    }  # fmt: skip
    for key in above:
        node = graph.get(key)
        assert node.description
        assert node.owners
        assert node.kinds
        assert node.group_name != "default"


def test_the_report_has_every_table_the_engine_makes(audited):
    workspace = audited[0]
    for table in (*FAIRNESS_TABLES, "model_comparisons", "audit_findings"):
        assert pl.read_csv(workspace.reports / f"{table}.csv").height, table
    page = (workspace.reports / "index.html").read_text()
    assert "Two models on the same patients" in page
    assert page.count('<table class="calibration">') == len(CELLS) * 2  # poolings


def test_the_exploratory_steps_are_in_the_report_and_no_member_of_a_region_is(audited):
    workspace = audited[0]
    for table in ("training_counts", "discovered_subgroups", "discovered_members"):
        assert workspace.warehouse.cells(table) == CELLS
    counts = workspace.warehouse.read_cells("training_counts", CELLS)
    assert set(counts["attribute"]) <= set(workspace.audit.attributes)
    assert counts.height
    page = (workspace.reports / "index.html").read_text()
    assert 'id="who-else"' in page
    assert "How much of each gap goes with the numbers of training studies" in page
    assert (workspace.reports / "discovered_subgroups.csv").exists()
    assert not (workspace.reports / "discovered_members.csv").exists()


def test_the_report_tells_the_runs_that_made_it(audited):
    import dagster as dg

    from fmaudit_dagster.execution.instance import opened

    workspace = audited[0]
    told = json.loads((workspace.reports / "audit.json").read_text())["runs"]
    encoders = ("efficientnet_lite0", "hu_histogram")
    assert set(told) == {
        "studies", "labels", "audit_findings", "audit_report", *(f"study_embeddings ({name})" for name in encoders),
    }  # fmt: skip
    page = Page(without_plotly((workspace.reports / "index.html").read_text())).visible
    with opened(workspace) as instance:
        for what, run_id in told.items():
            asset, _, encoder = what.removesuffix(")").partition(" (")
            run = instance.get_run_by_id(run_id)
            assert run is not None, what
            logged = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
            made_there = {(one.dagster_event.asset_key.to_user_string(), one.dagster_event.partition) for one in logged}
            assert (asset, encoder or None) in made_there, what
            assert f"{what} {run_id}" in page


def test_other_runs_leave_the_version_of_the_report_alone(copied):
    from fmaudit_core.pipeline.run_report import report_input
    from fmaudit_core.pipeline.snapshot import snapshot_of
    from fmaudit_core.pipeline.steps import step_of
    from fmaudit_core.pipeline.versions import is_fresh

    look = snapshot_of(copied)
    assert report_input(copied, look).runs == {}
    assert report_input(copied, look, {"audit_report": "another"}).runs == {"audit_report": "another"}
    assert is_fresh(look, step_of("audit_report"))


def test_no_identifier_reaches_the_report_or_the_metadata(audited):
    from fmaudit_dagster.execution.instance import opened

    workspace = audited[0]
    studies = workspace.warehouse.read("studies")
    people = [*studies["patient_id"].unique(), *studies["study_id"]]
    written = [path for path in workspace.reports.iterdir() if path.suffix in (".json", ".csv")]
    text = "".join(path.read_text() for path in written) + without_plotly(
        (workspace.reports / "index.html").read_text()
    )
    assert not [one for one in people if one in text]
    import dagster as dg

    with opened(workspace) as instance:
        records = [
            str(one.asset_materialization.metadata)
            for key in instance.all_asset_keys()
            for one in instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key), limit=50).records
        ]
    assert len(records) > 20
    assert not [one for one in people if any(one in record for record in records)]


def test_the_ui_tells_what_every_column_means(audited):
    import dagster as dg

    from fmaudit_dagster.execution.instance import opened

    with opened(audited[0]) as instance:
        schemas = {
            key.to_user_string(): record.asset_materialization.metadata["dagster/column_schema"].value
            for key in set(instance.all_asset_keys()) - {dg.AssetKey("study_embeddings")}  # a database, not a table
            for record in instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key), limit=1).records
            if "nothing to make" not in record.asset_materialization.metadata
        }
    assert len(schemas) > 20
    silent = [(asset, one.name) for asset, told in schemas.items() for one in told.columns if not one.description]
    assert silent == []

"""audit.json and its schema, model cards and filled checklists: valid to the libraries that read them, true to the audit."""

from __future__ import annotations

import dataclasses
import json
import re
from xml.etree import ElementTree

import jsonschema
import polars as pl
import pytest
import yaml

from fmaudit_core.report.disclosure.disclosure import disclose
from fmaudit_core.report.documents.audit_json import SCHEMA_VERSION, schema_text
from fmaudit_core.report.documents.checklists import GUIDELINES
from fmaudit_core.report.documents.model_card import cards
from fmaudit_core.report.export import write_report
from tests.report.frames import SMALL, SMALL_VALUES, made_up

VALIDATOR = jsonschema.Draft202012Validator
#: the elements of the applied model card, as its schema v0.2 orders them; optional ones with a question mark
CHAI = {
    "AppliedModelCard": "BasicInfo ReleaseInfo ModelSummary UsesAndDirections Warnings TrustIngredients KeyMetrics Resources "
    "Bibliography Signature?",
    "BasicInfo": "ModelName ModelDeveloper DeveloperContact",
    "ReleaseInfo": "ReleaseStage ReleaseDate ReleaseVersion GlobalAvailability EHRCompatibility? RegulatoryApproval?",
    "ModelSummary": "Summary Keywords",
    "UsesAndDirections": "IntendedUseAndWorkflow PrimaryIntendedUsers HowToUse TargetedPatientPopulation "
    "CautionedOutOfScopeSettings",
    "Warnings": "KnownRisksAndLimitations KnownBiasesOrEthicalConsiderations ClinicalRiskLevel",
    "TrustIngredients": "AISystemFacts TransparencyInformation",
    "AISystemFacts": "OutcomesAndOutputs ModelType FoundationModels? InputDataSource OutputAndInputDataTypes "
    "DevelopmentDataCharacterization BiasMitigationApproaches OngoingMaintenance Security? Transparency?",
    "TransparencyInformation": "FundingSource ThirdPartyInformation? StakeholdersConsulted",
    "KeyMetrics": "UsefulnessUsabilityEfficacy FairnessEquity SafetyReliability",
    **dict.fromkeys(
        ("UsefulnessUsabilityEfficacy", "FairnessEquity", "SafetyReliability"),
        "MetricGoal Results Interpretation TestType TestingDataDescription ValidationProcessAndJustification",
    ),
    "MetricResult": "Label ValueJson",
    "Resources": "EvaluationReferences? ClinicalTrial? PeerReviewedPublications ReimbursementStatus? PatientConsentOrDisclosure",
}
#: of each guideline: items, and those of them without a letter
ITEMS = {"tripod_ai": (52, 27), "claim_2024": (44, 44), "standing_together": (29, 29)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report with a subgroup that must not be told."""
    return write_report(tmp_path_factory.mktemp("report"), made_up(small_group=True))


@pytest.fixture(scope="module")
def audit_summary(written):
    return json.loads(written.summary.read_text(encoding="utf-8"))


def test_the_schema_is_one_and_lies_beside_the_report_as_it_ships(written, audit_summary):
    schema = json.loads(schema_text())
    VALIDATOR.check_schema(schema)
    assert written.schema.read_text(encoding="utf-8") == schema_text()
    assert audit_summary["$schema"] == written.schema.name
    assert audit_summary["schema_version"] == SCHEMA_VERSION
    assert schema["$id"].endswith(SCHEMA_VERSION)


@pytest.mark.parametrize("small_group", [True, False])
def test_audit_json_is_valid(tmp_path, small_group):
    inputs = made_up(small_group=small_group, poolings=("mean",))
    bare = dataclasses.replace(inputs, encoders=(), provenance={}, flow=inputs.flow.clear())
    for name, one in (("whole", inputs), ("bare", bare)):
        summary = write_report(tmp_path / name, one).summary
        VALIDATOR(json.loads(schema_text())).validate(json.loads(summary.read_text(encoding="utf-8")))


def test_audit_json_lists_every_warning_that_may_be_shown(audit_summary):
    want = disclose(made_up(small_group=True)).warnings
    assert want.height == 4
    assert audit_summary["warnings"] == want.to_dicts()
    assert audit_summary["operating_threshold"] == "chosen on validation alone, by a fixed share of false alarms"


def test_cards_and_checklists_tell_warnings_and_a_given_threshold_as_given(tmp_path):
    inputs = made_up(poolings=("mean",))
    for one, said in (("given", "given by the user"), ("validation", "chosen on validation alone")):
        metrics = inputs.subgroup_metrics.with_columns(threshold_source=pl.lit(one))
        folder = write_report(tmp_path / one, dataclasses.replace(inputs, subgroup_metrics=metrics)).folder
        texts = [(folder / name).read_text() for name in ("cards/lite0/README.md", "cards/lite0/chai.html")]
        for text in texts:
            assert f"operating threshold {said}" in " ".join(text.split())
            assert "31 % of studies have the same score" in text
        whole = " ".join(path.read_text() for path in folder.rglob("*") if path.is_file() and path.suffix != ".csv")
        assert ("chosen on validation alone" in whole) == (one == "validation")
        checklist = (folder / "checklists/tripod_ai.html").read_text()
        assert "5 warnings about scores, labels and thresholds" in checklist
        alone = "on validation alone, by a fixed share of false alarms" in checklist
        assert alone == (one == "validation")


def test_every_key_is_described(audit_summary):
    schema = json.loads(schema_text())
    assert set(audit_summary) == set(schema["properties"])
    for key, described in schema["properties"].items():
        items = described.get("items", {})
        properties = (
            schema["$defs"][items["$ref"].split("/")[-1]]["properties"] if "$ref" in items else items.get("properties")
        )
        for row in audit_summary[key] if properties else ():
            assert set(row) <= set(properties), key


@pytest.mark.parametrize(
    "spoil",
    [
        lambda audit_summary: audit_summary.pop("findings"),
        lambda audit_summary: audit_summary["findings"][0].update(verdict="fair"),
        lambda audit_summary: audit_summary["findings"][0].update(p_value=1.2),
        lambda audit_summary: audit_summary["subgroup_metrics"][0].update(value="0.3"),
        lambda audit_summary: audit_summary["subgroup_metrics"][0].pop("counts"),
        lambda audit_summary: next(
            row for row in audit_summary["subgroup_metrics"] if row["counts"] == "withheld"
        ).update(n=7),
        lambda audit_summary: next(row for row in audit_summary["cohort_counts"]).update(
            counts="withheld", n_studies=3
        ),
        lambda audit_summary: audit_summary.update(schema_version="2.0"),
        lambda audit_summary: audit_summary["tables"].update({"a.csv": "no digest"}),
    ],
)
def test_the_schema_refuses_what_is_no_audit(audit_summary, spoil):
    spoilt = json.loads(json.dumps(audit_summary))
    spoil(spoilt)
    assert list(VALIDATOR(json.loads(schema_text())).iter_errors(spoilt))


def test_subgroups_of_the_summary_are_those_of_the_main_models_as_they_may_be_shown(audit_summary):
    metrics = disclose(made_up(small_group=True)).metrics.filter(pooling="mean")
    assert len(audit_summary["subgroup_metrics"]) == metrics.height
    wanted = {(row["encoder"], row["task"], row["subgroup"], row["metric"]): row["value"] for row in metrics.to_dicts()}
    for row in audit_summary["subgroup_metrics"]:
        assert row["value"] == wanted[row["encoder"], row["task"], row["subgroup"], row["metric"]]


def test_a_model_card_is_read_by_the_hub_s_own_library(written, audit_summary):
    hub = pytest.importorskip("huggingface_hub")
    path = written.folder / "cards/lite0/README.md"
    card = hub.ModelCard(path.read_text(encoding="utf-8"))
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "fmaudit"
    found = {
        (one.task_name, one.dataset_args and one.dataset_args["subgroup"], one.metric_type): one.metric_value
        for one in card.data.eval_results
    }
    rows = [row for row in audit_summary["subgroup_metrics"] if row["encoder"] == "lite0" and row["task"] == "pe"]
    for row in rows:
        group = None if row["attribute"] == "overall" else row["subgroup"]
        if row["metric"] == "auroc" and row["value"] is not None:
            assert found["Pulmonary embolism", group, "roc_auc"] == pytest.approx(row["value"], abs=5e-5)
        if row["metric"] == "udr" and row["value"] is not None:
            assert found["Pulmonary embolism", group, "recall"] == pytest.approx(1 - row["value"], abs=5e-5)


def test_front_matter_is_yaml_and_its_intervals_hold_their_values(written):
    text = (written.folder / "cards/lite1/README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    (model,) = front["model-index"]
    metrics = [one for result in model["results"] for one in result["metrics"]]
    assert len(metrics) > 50
    for one in metrics:
        assert one["args"]["ci_low"] <= one["value"] <= one["args"]["ci_high"], one
    for result in model["results"]:
        assert {"type", "name"} <= set(result["task"]) & set(result["dataset"])


def test_an_applied_model_card_has_the_elements_of_its_schema_in_their_order(written):
    root = ElementTree.parse(written.folder / "cards/lite0/chai.xml").getroot()
    space = "{https://mc.chai.org/v0.2/schema.xsd}"
    for element in root.iter():
        name = element.tag.removeprefix(space)
        children = [child.tag.removeprefix(space) for child in element]
        if name in CHAI:
            wanted = CHAI[name].split()
            order = [one.rstrip("?") for one in wanted]
            assert children == [one for one in order if one in children], name
            assert {one for one in wanted if not one.endswith("?")} <= set(children), name
        elif name == "Results":
            assert children
            assert set(children) == {"MetricResult"}
        elif name == "Keywords":
            assert set(children) == {"Keyword"}
        else:
            assert not children, f"{name} is no element of the schema"
    for value in root.iter(f"{space}ValueJson"):
        result = json.loads(value.text)
        assert result["kind"] in ("estimate_ci", "single", "text")
        if result["kind"] == "estimate_ci":
            assert result["lower"] <= result["estimate"] <= result["upper"]


def test_a_card_counts_the_cohort_and_not_those_of_known_outcome(written, audit_summary):
    assert [step["n_studies"] for step in audit_summary["cohort_flow"]] == [6120, 6003, 6000]
    card = (written.folder / "cards/lite0/chai.html").read_text()
    assert "6,003 studies of 5,102 patients" in card
    assert "6,000 studies" not in card


def test_controls_have_no_card_and_a_model_that_is_gone_loses_its_own(tmp_path):
    inputs = made_up(poolings=("mean",))
    written = write_report(tmp_path, inputs)
    assert {path.parent.name for path in written.documents if path.name == "README.md"} == {"lite0", "lite1"}
    theirs = tmp_path / "cards/lite1/notes.txt"
    theirs.write_text("kept: not ours")
    frames = ("subgroup_metrics", "fairness_gaps", "threshold_sweep", "audit_findings", "subgroup_calibration")
    kept = {name: getattr(inputs, name).filter(encoder="lite0") for name in frames}
    write_report(
        tmp_path,
        dataclasses.replace(inputs, **kept, encoders=[one for one in inputs.encoders if one["name"] == "lite0"]),
    )
    assert (tmp_path / "cards/lite0/README.md").exists()
    assert not (tmp_path / "cards/lite1/README.md").exists()
    assert theirs.exists()


@pytest.mark.parametrize("name", GUIDELINES)
def test_every_item_is_supported_by_something_that_is_there_or_left_to_a_person(written, audit_summary, name):
    tables = json.loads((written.folder / "checklists/checklists.json").read_text(encoding="utf-8"))
    table = next(one for one in tables if one["name"] == name)
    page = written.page.read_text(encoding="utf-8")
    anchors = set(re.findall(r'\bid="([^"]+)"', page))
    assert (len(table["items"]), len({re.sub(r"[a-z]$", "", one["id"]) for one in table["items"]})) == ITEMS[name]
    for item in table["items"]:
        assert item["supports"] or item["add"], item["id"]
        for one in item["supports"]:
            pointer = one["key"].removeprefix("../audit.json#")
            value = audit_summary
            for part in pointer.removeprefix("/").split("/"):
                value = value[part]
            assert value not in (None, [], {}, ""), one
            if "page" in one:
                assert one["page"].removeprefix("../index.html#") in anchors, one
    assert any(item["fairness"] for item in table["items"])


def test_checklists_support_and_never_claim_more(written):
    for path in written.documents:
        text = path.read_text(encoding="utf-8").lower()
        said = text.replace("no statement that one complies", "").replace("no statement that a report complies", "")
        assert not re.search(r"\bcompl(y|ies|iant|iance)\b|\bcertif", said), path


def test_an_item_points_only_to_what_the_audit_holds(tmp_path):
    inputs = made_up(poolings=("mean",))
    bare = dataclasses.replace(
        inputs, encoders=(), flow=inputs.flow.clear(), slice_quality=inputs.slice_quality.clear(),
        audit_changes=inputs.audit_changes.clear(), studies=inputs.studies.clear(),
    )  # fmt: skip
    written = write_report(tmp_path, bare)
    text = (tmp_path / "checklists/checklists.json").read_text(encoding="utf-8")
    for gone in (
        "/config/mitigation/strategies",
        "/config/imaging",
        "/config/probes",
        "/cohort_flow",
        "/slice_quality",
        "/encoders",
        "/worse_than_before",
        "/cohort_counts",
    ):
        assert f'audit.json#{gone}"' not in text
    assert 'index.html#cohort"' not in text
    assert (written.folder / "cards/lite0/README.md").exists()


def test_a_small_group_is_told_by_no_document(written):
    numbers = [str(SMALL["n"]), f"{SMALL['n']:,}", f"{SMALL['n_neg']:,}", str(SMALL["n_neg"])]
    numbers += [f"{value:.4f}" for value in SMALL_VALUES.values()] + [
        f"{1 - value:.4f}" for value in SMALL_VALUES.values()
    ]
    for path in [*written.documents, written.summary]:
        text = path.read_text(encoding="utf-8")
        assert not [one for one in numbers if re.search(rf"(?<![\d.,]){re.escape(one)}(?!\d)", text)], path


def test_text_of_a_cohort_is_escaped(tmp_path):
    inputs = made_up(poolings=("mean",), name="<b>a</b> | --- & co")
    written = write_report(tmp_path, inputs)
    front = yaml.safe_load((tmp_path / "cards/lite0/README.md").read_text(encoding="utf-8").split("\n---\n")[0])
    assert front["model-index"][0]["results"][0]["dataset"]["name"].startswith("<b>a</b> | --- & co")
    assert "<b>a</b>" not in (tmp_path / "cards/lite0/chai.html").read_text(encoding="utf-8")
    assert "<b>a</b>" not in (tmp_path / "checklists/tripod_ai.html").read_text(encoding="utf-8")
    ElementTree.parse(tmp_path / "cards/lite0/chai.xml")
    assert cards(json.loads(written.summary.read_text(encoding="utf-8")))["cards/lite0/chai.xml"]

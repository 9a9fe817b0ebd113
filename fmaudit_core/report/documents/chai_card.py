"""CHAI's applied model card of one model: what the audit knows in its fields, and in the others what a person must add.

References
----------
Coalition for Health AI, Applied Model Card, schema v0.2 (https://mc.chai.org): developer, summary, uses and directions, warnings,
trust ingredients, key metrics (usefulness, fairness, safety), resources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree

from fmaudit_core.report.documents.audit_json import cohort_size
from fmaudit_core.report.text import formatting

AuditSummary = Mapping[str, Any]

CHAI_NAMESPACE: Final = "https://mc.chai.org/v0.2/schema.xsd"
#: how every field begins that the audit cannot fill
A_PERSON: Final = "A person must add: "


def chai_card(audit_summary: AuditSummary, model: AuditSummary) -> dict[str, Any]:
    """Return the applied model card: section -> element -> text, in the order of its schema."""
    fairness = audit_summary["config"]["fairness"]
    tasks = ", ".join(task["title"] for task in model["tasks"])
    main = next((task for task in model["tasks"] if task["main"]), model["tasks"][0])
    about = {one["about"]: one["text"] for one in audit_summary["methods"]}
    wording = [row["sentence"] for row in model["findings"] if row["declared"]]
    tested = "Retrospective audit of the test part of one cohort, by fmaudit."
    data = f"{audit_summary['name']}: {_cohort(audit_summary)}"
    how = "Methods and limits: index.html#methods; the settings: audit.json#/config."
    level = round(100 * fairness["confidence"])
    return {
        "BasicInfo": {
            "ModelName": f"{model['title']}, frozen, with a {model['probe']} probe",
            "ModelDeveloper": f"{A_PERSON}who develops this model and answers for it.",
            "DeveloperContact": f"{A_PERSON}a contact.",
        },
        "ReleaseInfo": {
            "ReleaseStage": "Research: audited, not released. " + A_PERSON + "the stage, where there is one.",
            "ReleaseDate": audit_summary["generated_at"] or f"{A_PERSON}a date.",
            "ReleaseVersion": (model["encoder"].get("weights_sha256") or "no weights")[:16],
            "GlobalAvailability": f"{A_PERSON}where the model may be used.",
        },
        "ModelSummary": {
            "Summary": f"Frozen image encoder with a probe per outcome: {tasks}. {audit_summary['headline']}",
            "Keywords": [*(task["title"] for task in model["tasks"]), "subgroup audit"],
        },
        "UsesAndDirections": {
            "IntendedUseAndWorkflow": f"{A_PERSON}the intended use and its place in the care pathway.",
            "PrimaryIntendedUsers": f"{A_PERSON}who is meant to use it.",
            "HowToUse": f"The score is compared with an operating threshold {model['threshold']} ({_threshold(main)}). "
            f"{A_PERSON}directions for use.",
            "TargetedPatientPopulation": f"{A_PERSON}the patients it is meant for. Audited on {_cohort(audit_summary)}",
            "CautionedOutOfScopeSettings": "Other hospitals, scanners and operating points than the audited ones. "
            f"{A_PERSON}settings in which it must not be used.",
        },
        "Warnings": {
            "KnownRisksAndLimitations": " ".join([*model["warnings"], *audit_summary["limits"]]),
            "KnownBiasesOrEthicalConsiderations": " ".join(wording) or "No comparison between subgroups could be made.",
            "ClinicalRiskLevel": f"{A_PERSON}the risk level under the rules that apply.",
        },
        "TrustIngredients": {
            "AISystemFacts": {
                "OutcomesAndOutputs": f"A score per study and outcome ({tasks}), and whether it reaches the threshold.",
                "ModelType": f"Frozen encoder ({model['title']}), {model['pooling']} pooling, {model['probe']} probe.",
                "FoundationModels": f"{model['title']}; licence: {model['licence']}; source: "
                f"{model['encoder'].get('source') or 'not stated'}.",
                "InputDataSource": about.get("Cohort", f"{A_PERSON}where the images and outcomes come from."),
                "OutputAndInputDataTypes": "Input: CT series, or embeddings of them. Output: probabilities.",
                "DevelopmentDataCharacterization": f"Probes were fitted on the training part: {_cohort(audit_summary)} "
                f"{A_PERSON}what the encoder itself was trained on.",
                "BiasMitigationApproaches": f"{A_PERSON}what was done about the findings, and whether it helped.",
                "OngoingMaintenance": f"{A_PERSON}how the model is watched; fmaudit re-audits on a schedule.",
            },
            "TransparencyInformation": {
                "FundingSource": f"{A_PERSON}who paid.",
                "StakeholdersConsulted": f"{A_PERSON}who was consulted.",
            },
        },
        "KeyMetrics": {
            "UsefulnessUsabilityEfficacy": {
                "MetricGoal": "Rank and find studies with the outcome, at the operating threshold.",
                "Results": _overall_results(model, level),
                "Interpretation": f"{level} % intervals that count patients; all in audit.json#/subgroup_metrics.",
                "TestType": tested, "TestingDataDescription": data, "ValidationProcessAndJustification": how,
            },
            "FairnessEquity": {
                "MetricGoal": "No subgroup is served worse than others beyond the declared margin.",
                "Results": _fairness_results(model, main, level),
                "Interpretation": " ".join(wording) or "No comparison between subgroups could be made.",
                "TestType": tested, "TestingDataDescription": data, "ValidationProcessAndJustification": how,
            },
            "SafetyReliability": {
                "MetricGoal": "Calibrated probabilities; no group of patients that is failed unnoticed.",
                "Results": _safety_results(audit_summary, model),
                "Interpretation": "A calibration slope of 1 is perfect (audit.json#/calibration). "
                "Intersections that fare worst: audit.json#/worst_intersections.",
                "TestType": tested, "TestingDataDescription": data, "ValidationProcessAndJustification": how,
            },
        },
        "Resources": {
            "EvaluationReferences": "The audit: index.html, audit.json and the CSV files next to it.",
            "PeerReviewedPublications": f"{A_PERSON}publications on this model.",
            "PatientConsentOrDisclosure": f"{A_PERSON}how patients consent or are informed.",
        },
        "Bibliography": "",
    }  # fmt: skip


def _cohort(audit_summary: AuditSummary) -> str:
    if not (size := cohort_size(audit_summary)):
        return "the cohort of audit.json#/cohort_counts."
    return f"{size['n_studies']:,} studies of {size['n_patients']:,} patients (audit.json#/cohort_flow)."


def _threshold(task: AuditSummary) -> str:
    return "none could be chosen" if task["threshold"] is None else f"{task['threshold']:.4f} for {task['title']}"


def _result(label: str, one: AuditSummary, level: int) -> tuple[str, dict[str, Any]]:
    if one["value"] is None:
        return label, {"kind": "text", "value": "not shown: too few studies"}
    if one["low"] is None or one["high"] is None:
        return label, {"kind": "single", "value": round(one["value"], 4)}
    return label, {
        "kind": "estimate_ci", "estimate": round(one["value"], 4), "lower": round(one["low"], 4), "upper": round(one["high"], 4),
        "level": level, "unit": "",
    }  # fmt: skip


def _overall_results(model: AuditSummary, level: int) -> list[tuple[str, dict[str, Any]]]:
    return [
        _result(f"{one['title']}, {task['title']}", one, level) for task in model["tasks"] for one in task["overall"]
    ]


def _fairness_results(model: AuditSummary, main: AuditSummary, level: int) -> list[tuple[str, dict[str, Any]]]:
    gaps: list[tuple[str, dict[str, Any]]] = [
        (
            f"Gap in {formatting.metric_title(row['metric'])} by {row['attribute_title'].lower()}, where equal "
            "subgroups would show "
            f"{_number(row['null_expected_gap'])}",
            {"kind": "single", "value": round(row["gap"], 4)},
        )
        for row in model["findings"]
        if row["declared"] and row["gap"] is not None
    ]
    groups = [
        _result(f"{one['title']}, {one['attribute_title'].lower()}: {one['subgroup_title']}", one, level)
        for one in main["subgroups"]
        if one["metric"] == "udr"
    ]
    return [*gaps, *groups] or [("Gaps", {"kind": "text", "value": "no comparison could be made"})]


def _safety_results(audit_summary: AuditSummary, model: AuditSummary) -> list[tuple[str, dict[str, Any]]]:
    rows = [row for row in audit_summary["calibration"] if row["encoder"] == model["name"] and row["slope"] is not None]
    slopes: list[tuple[str, dict[str, Any]]] = [
        (
            f"Calibration slope, {formatting.task_title(row['task'], audit_summary['config']['task_titles'])}, {row['pooling']}",
            {"kind": "single", "value": round(row["slope"], 4)},
        )
        for row in rows
    ]
    set_aside = sum(row["n"] for row in audit_summary["slice_quality"] if row["status"] != "accepted")
    if audit_summary["slice_quality"]:
        slopes.append(("CT series excluded as unreadable", {"kind": "single", "value": set_aside}))
    return slopes or [("Calibration", {"kind": "text", "value": "scores are no probabilities, or too few studies"})]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def as_xml(card: Mapping[str, Any]) -> str:
    """Return the card as an instance document of CHAI's schema."""
    ElementTree.register_namespace("", CHAI_NAMESPACE)
    root = ElementTree.Element(f"{{{CHAI_NAMESPACE}}}AppliedModelCard")
    _below(root, card)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _below(parent: ElementTree.Element, content: Mapping[str, Any]) -> None:
    for name, value in content.items():
        element = ElementTree.SubElement(parent, f"{{{CHAI_NAMESPACE}}}{name}")
        if isinstance(value, Mapping):
            _below(element, value)
        elif name == "Keywords":
            for word in value:
                ElementTree.SubElement(element, f"{{{CHAI_NAMESPACE}}}Keyword").text = word
        elif name == "Results":
            for label, result in value:
                one = ElementTree.SubElement(element, f"{{{CHAI_NAMESPACE}}}MetricResult")
                ElementTree.SubElement(one, f"{{{CHAI_NAMESPACE}}}Label").text = label
                ElementTree.SubElement(one, f"{{{CHAI_NAMESPACE}}}ValueJson").text = json.dumps(
                    result, ensure_ascii=False
                )
        else:
            element.text = value

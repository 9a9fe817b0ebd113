"""CHAI's applied model card of one model: what the audit knows in its fields, and in the others what a person must add.

References
----------
Coalition for Health AI, Applied Model Card, schema v0.2 (https://mc.chai.org): developer, summary, uses and directions, warnings,
trust ingredients, key metrics (usefulness, fairness, safety), resources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final
from xml.etree import ElementTree

import yaml

from fmaudit_core.common import formatting
from fmaudit_core.report.documents.audit_json import cohort_size

AuditSummary = Mapping[str, Any]

CHAI_NAMESPACE: Final = "https://mc.chai.org/v0.2/schema.xsd"
#: how every field begins that the audit cannot fill
A_PERSON: Final = "A person must add: "


def chai_card(audit_summary: AuditSummary, model: AuditSummary) -> dict[str, Any]:
    """Return the applied model card: section -> element -> text, in the order of its schema; see `templates/chai_card.yaml`."""
    main = next((task for task in model["tasks"] if task["main"]), model["tasks"][0])
    level = round(100 * audit_summary["config"]["fairness"]["confidence"])
    lists: dict[str, list[Any]] = {
        "keywords": [*(task["title"] for task in model["tasks"]), "subgroup audit"],
        "overall": _overall_results(model, level),
        "fairness": _fairness_results(model, main, level),
        "safety": _safety_results(audit_summary, model),
    }
    texts = _texts(audit_summary, model, main) | {"level": str(level)}
    return {section: _filled(content, texts, lists) for section, content in _template().items()}


@cache
def _template() -> dict[str, Any]:
    text = files("fmaudit_core.report").joinpath("templates", "chai_card.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def _filled(content: Any, texts: Mapping[str, str], lists: Mapping[str, list[Any]]) -> Any:
    if isinstance(content, Mapping):
        return {name: _filled(one, texts, lists) for name, one in content.items()}
    return lists[content] if content in lists else str(content).format_map(texts)


def _texts(audit_summary: AuditSummary, model: AuditSummary, main: AuditSummary) -> dict[str, str]:
    about = {one["about"]: one["text"] for one in audit_summary["methods"]}
    findings = " ".join(row["sentence"] for row in model["findings"] if row["declared"])
    return {
        "person": A_PERSON,
        "title": model["title"],
        "probe": model["probe"],
        "pooling": model["pooling"],
        "licence": model["licence"],
        "source": model["encoder"].get("source") or "not stated",
        "version": (model["encoder"].get("weights_sha256") or "no weights")[:16],
        "date": audit_summary["generated_at"] or f"{A_PERSON}a date.",
        "name": audit_summary["name"],
        "headline": audit_summary["headline"],
        "tasks": ", ".join(task["title"] for task in model["tasks"]),
        "threshold": _threshold(main),
        "threshold_origin": model["threshold"],
        "cohort": _cohort(audit_summary),
        "data_source": about.get("Cohort", f"{A_PERSON}where the images and outcomes come from."),
        "limits": " ".join([*model["warnings"], *audit_summary["limits"]]),
        "findings": findings or "No comparison between subgroups could be made.",
    }


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

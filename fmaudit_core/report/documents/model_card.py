"""Cards of each audited model, written from audit.json's content: a Hugging Face-style model card here, CHAI's in `chai_card.py`.

A card supports a review; it is no statement that anything complies with anything.

References
----------
Mitchell et al. 2019, Model Cards for Model Reporting; the Hugging Face Hub's metadata of model cards (`model-index`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.common.vocabulary import OVERALL, SCORE_SET
from fmaudit_core.fairness import sentences
from fmaudit_core.report.documents.chai_card import A_PERSON, as_xml, chai_card
from fmaudit_core.report.text.methods import operating_threshold
from fmaudit_core.report.text.templating import environment
from fmaudit_core.storage.report_layout import file_name

AuditSummary = Mapping[str, Any]

#: our metric -> the Hub's name, and whether the Hub's is one minus ours
_HUB: Final = {"auroc": ("roc_auc", False), "udr": ("recall", True), "fpr": ("specificity", True)}
_READABLE: Final = {"auroc": "AUROC", "udr": "Sensitivity", "fpr": "Specificity"}
_LICENCES: Final = {
    "apache-2.0": "apache-2.0", "mit": "mit", "bsd-3-clause": "bsd-3-clause", "cc-by-4.0": "cc-by-4.0",
    "cc-by-nc-4.0": "cc-by-nc-4.0",
}  # fmt: skip


def cards(audit_summary: AuditSummary) -> dict[str, str]:
    """Return cards of every model of an audit that is no control: path below the report's folder -> content.

    Parameters
    ----------
    audit_summary : mapping
        The content of audit.json.
    """
    templates = environment()
    out = {}
    for model in _models(audit_summary):
        folder = f"cards/{file_name(model['name'])}"
        chai = chai_card(audit_summary, model)
        front = yaml.safe_dump(_front_matter(audit_summary, model), sort_keys=False, allow_unicode=True)
        context = {"audit": audit_summary, "model": model, "front": front, "person": A_PERSON, "chai": chai}
        out[f"{folder}/README.md"] = templates.get_template("templates/model_card.md.jinja").render(context)
        out[f"{folder}/chai.xml"] = as_xml(chai)
        out[f"{folder}/chai.html"] = templates.get_template("templates/chai.html.jinja").render(context)
    return out


def _models(audit_summary: AuditSummary) -> Iterator[dict[str, Any]]:
    """Yield the content of each model's cards, by encoder in the order of the audit."""
    known = {one["name"]: one for one in audit_summary["encoders"]}
    names = dict.fromkeys([*known, *(row["encoder"] for row in audit_summary["subgroup_metrics"])])
    for name in names:
        rows = [row for row in audit_summary["subgroup_metrics"] if row["encoder"] == name]
        if not rows or known.get(name, {}).get("control"):
            continue
        main = {row["task"]: tuple(row[part] for part in SCORE_SET) for row in rows}
        yield {
            "name": name,
            "title": known.get(name, {}).get("title") or name,
            "encoder": dict.fromkeys(("dim", "weights_sha256", "source")) | known.get(name, {}),
            "licence": known.get(name, {}).get("licence") or "not stated",
            "tasks": [_task(audit_summary, task, [row for row in rows if row["task"] == task]) for task in main],
            "findings": [
                _finding(audit_summary, row)
                for row in audit_summary["findings"]
                if tuple(row[p] for p in SCORE_SET) == main.get(row["task"])
            ],
            "warnings": [
                row["message"]
                for row in audit_summary["warnings"]
                if tuple(row[p] for p in SCORE_SET) == main.get(row["task"])
            ],
            "threshold": operating_threshold(
                audit_summary["config"]["fairness"]["threshold_policy"],
                {row["threshold_source"] for row in rows if row.get("threshold_source")},
            ),
            "probe": ", ".join(dict.fromkeys(row["probe"] for row in rows)),
            "pooling": ", ".join(dict.fromkeys(row["pooling"] for row in rows)),
        }


def _task(audit_summary: AuditSummary, task: str, rows: Sequence[AuditSummary]) -> dict[str, Any]:
    shown = [row for row in rows if row["metric"] in _READABLE]
    return {
        "name": task,
        "title": formatting.task_title(task, audit_summary["config"]["task_titles"]),
        "overall": [_measure(row) for row in shown if row["attribute"] == OVERALL],
        "subgroups": [_measure(row) for row in shown if row["attribute"] != OVERALL],
        "threshold": next((row["threshold"] for row in rows if row.get("threshold") is not None), None),
        "main": task == audit_summary["main_task"],
    }


def _measure(row: AuditSummary) -> dict[str, Any]:
    """Return a metric as the cards give it: sensitivity and specificity are one minus the shares missed and falsely alarmed."""
    _, turned = _HUB[row["metric"]]
    value, low, high = row["value"], row["ci_low"], row["ci_high"]
    if turned:
        value, low, high = (None if one is None else 1 - one for one in (value, high, low))  # the bounds change places
    return {
        "metric": row["metric"],
        "title": _READABLE[row["metric"]],
        "attribute": row["attribute"],
        "attribute_title": formatting.attribute_title(row["attribute"]),
        "subgroup": row["subgroup"],
        "subgroup_title": vocabulary.subgroup_title(row["subgroup"]),
        "value": value,
        "low": low,
        "high": high,
        "text": _estimate(value, low, high, 2 if row["counts"] == "rounded" else 3),
        "n": formatting.count(row["n"], row["counts"]) if row["counts"] != "withheld" else "not shown",
        "status": row["status"],
    }


def _estimate(value: float | None, low: float | None, high: float | None, decimals: int) -> str:
    if value is None:
        return "not shown"
    if low is None or high is None:
        return f"{value:.{decimals}f}"
    return f"{value:.{decimals}f} ({low:.{decimals}f}{vocabulary.DASH}{high:.{decimals}f})"


def _finding(audit_summary: AuditSummary, row: AuditSummary) -> dict[str, Any]:
    return {
        **row,
        "declared": row["task"] == audit_summary["main_task"] and row["metric"] == audit_summary["primary_metric"],
        "task_title": formatting.task_title(row["task"], audit_summary["config"]["task_titles"]),
        "attribute_title": formatting.attribute_title(row["attribute"]),
        "verdict_title": sentences.verdict_title(row["verdict"]),
    }


def _front_matter(audit_summary: AuditSummary, model: AuditSummary) -> dict[str, Any]:
    """Return metadata as the Hub reads it; the interval of a metric stands in its `args`."""
    licence = _LICENCES.get(model["licence"].lower())
    results = []
    for task in model["tasks"]:
        groups: list[tuple[str, dict[str, str], Sequence[AuditSummary]]] = [("all studies", {}, task["overall"])]
        of_subgroup: dict[tuple[str, str], list[AuditSummary]] = {}
        for one in task["subgroups"]:
            of_subgroup.setdefault((one["attribute"], one["subgroup"]), []).append(one)
        groups += [
            (
                f"{one[0]['attribute_title']}: {one[0]['subgroup_title']}",
                {"attribute": attribute, "subgroup": subgroup},
                one,
            )
            for (attribute, subgroup), one in of_subgroup.items()
        ]
        for title, part, measures in groups:
            metrics = [_hub_metric(one, audit_summary) for one in measures if one["value"] is not None]
            if metrics:
                dataset: dict[str, Any] = {
                    "type": "private",
                    "name": f"{audit_summary['name']}, {title}",
                    "split": "test",
                }
                dataset |= {"args": part} if part else {}
                results.append(
                    {
                        "task": {"type": "image-classification", "name": task["title"]},
                        "dataset": dataset,
                        "metrics": metrics,
                    }
                )
    return {
        "license": licence or "other",
        **({} if licence else {"license_name": model["licence"]}),
        "library_name": "fmaudit",
        "tags": ["medical-imaging", "frozen-encoder", "linear-probe", "subgroup-audit", "fairness"],
        "model-index": [{"name": model["name"], "results": results}],
    }


def _hub_metric(one: AuditSummary, audit_summary: AuditSummary) -> dict[str, Any]:
    kind, _ = _HUB[one["metric"]]
    interval = {
        "confidence": audit_summary["config"]["fairness"]["confidence"],
        "ci_low": one["low"],
        "ci_high": one["high"],
    }
    return {
        "type": kind,
        "name": one["title"],
        "value": round(one["value"], 4),
        "args": _rounded(interval),
        "verified": False,
    }


def _rounded(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items() if value is not None}

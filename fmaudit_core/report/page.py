"""The page: one HTML file that needs nothing else. What it may show: `disclosure/disclosure.py`; how it says it:
`text/formatting.py`.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from fmaudit_core.common import formatting
from fmaudit_core.report.index.mitigation_index import MitigationIndex
from fmaudit_core.report.index.report_data import ReportData, index_report_data
from fmaudit_core.report.index.score_set_index import SHOWN_METRICS, ScoreSetIndex
from fmaudit_core.report.input.report_input import ReportInput
from fmaudit_core.report.sections.aggregation import aggregation_figures, aggregation_views
from fmaudit_core.report.sections.changes import changes_views
from fmaudit_core.report.sections.cohort import baseline_view, cohort_groups, flow_step
from fmaudit_core.report.sections.encoders import control_figures, encoders_view
from fmaudit_core.report.sections.findings import main_findings, q_map
from fmaudit_core.report.sections.mitigation import main_advice, mitigation_view
from fmaudit_core.report.sections.mitigation_figures import mitigation_figure_sets
from fmaudit_core.report.sections.modalities import modality_views
from fmaudit_core.report.sections.model_pairs import more_pairs, pair_figures, pair_views
from fmaudit_core.report.sections.origin import origins
from fmaudit_core.report.sections.outcomes import label_flow_views, note_views
from fmaudit_core.report.sections.reproduction import paper_view
from fmaudit_core.report.sections.sensitivity import sensitivity_views
from fmaudit_core.report.sections.subgroups import cell_figures, cell_id, cell_view
from fmaudit_core.report.sections.summary import executive_summary
from fmaudit_core.report.sections.training_counts import training_count_views
from fmaudit_core.report.sections.who_else import who_else_views
from fmaudit_core.report.sections.why import why_section
from fmaudit_core.report.text.methods import limits, methods
from fmaudit_core.report.text.templating import environment
from fmaudit_core.report.text.titles import variant_title

#: shorter lists are not worth a reference
_SHARED_FROM: Final = 6
#: names of provenance that are programs
_SOFTWARE: Final = ("fmaudit", "python", "numpy", "scipy", "polars", "duckdb", "pydicom")


def render_page(
    inputs: ReportInput, shown: ReportData | None = None, *, companions: Sequence[tuple[str, str]] = ()
) -> str:
    """Return the report as one HTML document: style, script, figures and plotly inside it, no request to anywhere.

    Parameters
    ----------
    inputs : ReportInput
    shown : ReportData, optional
        Its tables as they may be shown, where the caller has them already.
    companions : sequence of (title, path)
        Files in the same folder, to be linked to.

    Returns
    -------
    str
        The same for the same inputs, byte for byte.
    """
    shown = shown or index_report_data(inputs)
    index, mitigation_index = shown.index, shown.mitigation_index
    return (
        environment()
        .get_template("templates/page.html.jinja")
        .render(
            **_context(inputs, shown),
            companions=companions,
            style=_asset("page.css"),
            script=_asset("page.js"),
            plotly=_plotly(),
            data=_packed(
                json.dumps(_data(index, mitigation_index), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            ),
        )
    )


def _context(inputs: ReportInput, shown: ReportData) -> dict[str, Any]:
    tables, index, mitigation_index = shown.tables, shown.index, shown.mitigation_index
    audit = inputs.audit
    withheld = int((tables.metrics.get_column("counts") == "withheld").sum())
    return {
        "audit": audit,
        "generated_at": inputs.generated_at,
        "summary": executive_summary(index),
        "findings": main_findings(index),
        "metric_titles": [formatting.metric_title(metric) for metric in SHOWN_METRICS],
        "ends": ("Most missed", "Least missed") if index.primary_metric == "udr" else ("Fares worst", "Fares best"),
        "primary_metric": formatting.metric_title(index.primary_metric),
        "primary_said": formatting.metric_said(index.primary_metric),
        "cells": [cell_view(index, key) for key in index.keys],
        "origins": {
            cell_id(index, key): origins(inputs.cell_runs, audit.report.dagster_url, key.encoder, key.task)
            for key in index.keys
        },
        "encoders": [{**one, "role": index.role(one["name"])} for one in index.encoders],
        "tasks": [{"name": task, "title": formatting.task_title(task, index.task_titles)} for task in index.tasks],
        "attributes": [formatting.attribute_title(name) for name in audit.attributes],
        "main_task": index.main_task,
        "variants": [variant_title(variant) or "as given" for variant in index.variants],
        "q_map": q_map(index),
        "why": why_section(index, tables.adjusted),
        "training_counts": training_count_views(index, tables.training_counts, tables.learning_curves),
        "who_else": who_else_views(
            index, tables.regions, tables.traits, inputs.montages if audit.report.images else {}
        ),
        "overview": encoders_view(index),
        "pairs": pair_views(index),
        "changes": changes_views(index),
        "gate": {
            "rates": formatting.margin_text("udr", audit.reaudit.margin),
            "auroc": formatting.margin_text("auroc", audit.reaudit.auroc_margin),
        },
        "more_pairs": more_pairs(index),
        "modalities": modality_views(index, inputs.modality_comparisons),
        "aggregations": aggregation_views(index),
        "sensitivity": sensitivity_views(index, inputs.encoder_sensitivity),
        "auroc_margin": formatting.margin_text("auroc", audit.fairness.auroc_margin),
        "help": main_advice(index, mitigation_index),
        "mitigation": mitigation_view(index, mitigation_index),
        "label_flow": label_flow_views(index, tables.label_flow.to_dicts()),
        "notes": note_views(tables.notes.to_dicts(), audit.fairness.suppress_under),
        "baselines": [baseline_view(index, row, audit.fairness.suppress_under) for row in inputs.baselines.to_dicts()],
        "paper": paper_view(tables.paper.to_dicts(), {one["name"]: str(one["title"]) for one in index.encoders}),
        "flow": [flow_step(index, row) for row in inputs.flow.to_dicts()],
        "slice_quality": inputs.slice_quality.to_dicts(),
        "cohort": cohort_groups(index, tables.studies.to_dicts()),
        "methods": methods(inputs, shown),
        "limits": limits(audit),
        "provenance": _provenance(inputs.provenance),
        "runs": sorted(inputs.runs.items()),
        "dagster_url": audit.report.dagster_url,
        "any_withheld": withheld > 0,
        "any_unsaid": bool((tables.intersections.get_column("counts") == "unsaid").any()),
        "alpha": f"{audit.fairness.alpha:g}",
        "margin": formatting.margin_text("udr", audit.fairness.margin),
        "confidence": formatting.percent(audit.fairness.confidence, 0),
        "suppress_under": audit.fairness.suppress_under,
    }


def _provenance(provenance: Mapping[str, str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the inputs of the numbers, and the software that computed them."""
    software = {name: value for name, value in provenance.items() if name in _SOFTWARE}
    inputs = {name: value for name, value in provenance.items() if name not in _SOFTWARE}
    parts = (("Inputs", inputs), ("Software", software))
    return [(title, sorted(part.items())) for title, part in parts if part]


def _data(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> dict[str, Any]:
    cells = {cell_id(index, key): cell_figures(index, key) for key in index.keys}
    arrays: list[Any] = []
    figures = {"cells": cells, "control": control_figures(index), "pairs": pair_figures(index)}
    figures["mitigation"] = mitigation_figure_sets(index, mitigation_index)
    figures["aggregation"] = aggregation_figures(index)
    return {**_shared(figures, arrays, {}), "arrays": arrays}


def _shared(value: Any, arrays: list[Any], places: dict[str, int]) -> Any:
    """Return the value with each list of numbers moved into `arrays`, replaced by ``{"$": place}``: curves share axes."""
    if isinstance(value, dict):
        return {key: _shared(one, arrays, places) for key, one in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) < _SHARED_FROM or any(isinstance(one, str | dict | list) for one in value):
        return [_shared(one, arrays, places) for one in value]
    text = json.dumps(value)
    if text not in places:
        places[text] = len(arrays)
        arrays.append(value)
    return {"$": places[text]}


def _packed(text: str) -> str:
    """Return the text as gzip in base64, which the page's script unpacks: figures and their library are bulky."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def _asset(name: str) -> str:
    return files("fmaudit_core.report").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return _packed(str(get_plotlyjs()))

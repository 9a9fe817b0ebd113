"""The report as files: the page for people; JSON, CSV, cards and checklists. All of it passed through
`disclosure/disclosure.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from fmaudit_core.report.documents.audit_json import SCHEMA, schema_text, summary, with_report_sentences
from fmaudit_core.report.documents.checklists import checklists, titles
from fmaudit_core.report.documents.model_card import cards
from fmaudit_core.report.index.report_data import ReportData, index_report_data
from fmaudit_core.report.input.report_input import ReportInput
from fmaudit_core.report.page import render_page
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.report_layout import JSON, PAGE

#: the table of findings, which audit.json has too
_FINDINGS: Final = "audit_findings"
#: folders of the report that hold one file or folder per model or checklist
_DOCUMENTS: Final = ("cards", "checklists")


@dataclass(frozen=True)
class ReportFiles:
    """What was written.

    Parameters
    ----------
    page, summary, schema : Path
        The HTML page, audit.json and its JSON Schema.
    tables : mapping of table name to CSV
    documents : sequence of Path
        Model cards and filled checklists.
    """

    page: Path
    summary: Path
    schema: Path
    tables: Mapping[str, Path]
    documents: Sequence[Path]

    @property
    def folder(self) -> Path:
        """Return the folder of the report."""
        return self.page.parent

    def all(self) -> list[Path]:
        """Return every file, the page first."""
        return [self.page, self.summary, self.schema, *self.tables.values(), *self.documents]


def write_report(folder: Path, inputs: ReportInput) -> ReportFiles:
    """Write the page, audit.json with its schema, one CSV per table, cards and checklists; each by one rename, the page last.

    A kill leaves every file whole; audit.json names the SHA-256 of the tables it belongs to. Cards of models that are no
    longer audited are removed.

    Parameters
    ----------
    folder : Path
        Made where missing.
    inputs : ReportInput
    """
    shown = index_report_data(inputs)
    frames = _frames(inputs, shown)
    written: dict[str, Path] = {}
    digests: dict[str, str] = {}
    for name, frame in frames.items():
        content = as_csv(frame)
        written[name] = _published(folder / f"{name}.csv", content)
        digests[f"{name}.csv"] = hashlib.sha256(content).hexdigest()
    audit_summary = summary(inputs, shown, frames[_FINDINGS], digests)
    model_cards = cards(audit_summary)
    page = render_page(inputs, shown, companions=_companions(model_cards))
    schema = _published(folder / SCHEMA, schema_text().encode())
    audit_json = _published(folder / JSON, _as_json(audit_summary))
    anchors = set(re.findall(r'\bid="([a-z-]+)"', page))
    contents = model_cards | checklists(audit_summary, anchors=anchors)
    documents = [_published(folder / name, text.encode()) for name, text in contents.items()]
    _remove_old(folder, set(documents))
    return ReportFiles(_published(folder / PAGE, page.encode()), audit_json, schema, written, documents)


def _companions(model_cards: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return titles and paths of the files the page links to."""
    kinds = {"README.md": "Model card", "chai.html": "Applied model card"}
    named = [(path.split("/")[1], path) for path in model_cards]
    return [
        ("audit.json, the audit for machines", JSON),
        ("Its JSON Schema", SCHEMA),
        *((title, f"checklists/{name}.html") for name, title in titles().items()),
        *((f"{kinds[path.split('/')[-1]]}: {name}", path) for name, path in named if path.split("/")[-1] in kinds),
    ]


def _published(path: Path, content: bytes) -> Path:
    with written_beside(path) as file:
        file.write_bytes(content)
    return path


def as_csv(frame: pl.DataFrame) -> bytes:
    """Return a frame as CSV: lists joined, and an apostrophe before text that a spreadsheet would run as a formula."""
    joined = frame.with_columns(pl.col(pl.List(pl.String)).list.join("; "))
    # a number with a sign is no formula
    return (
        joined.with_columns(pl.col(pl.String).str.replace(r"^([=@\t\r]|[+-][\d.]*[^\d.])", "'${1}"))
        .write_csv()
        .encode()
    )


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _remove_old(folder: Path, current: set[Path]) -> None:
    """Remove documents of an audit before that this one did not write; only files called as ours are touched."""
    names = {path.name for path in current}
    for top in _DOCUMENTS:
        for path in sorted((folder / top).rglob("*"), reverse=True):
            if path.is_file() and path.name in names and path not in current:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _frames(inputs: ReportInput, shown: ReportData) -> dict[str, pl.DataFrame]:
    tables = shown.tables
    further = {
        "adjusted_gaps": tables.adjusted,
        "training_counts": tables.training_counts,
        "learning_curves": tables.learning_curves,
        "discovered_subgroups": tables.regions,
        "discovered_traits": tables.traits,
        "paper_comparison": tables.paper,
        "label_flow": tables.label_flow,
    }
    return {
        _FINDINGS: with_report_sentences(shown),
        "fairness_gaps": tables.gaps,
        "subgroup_metrics": tables.metrics,
        "threshold_sweep": tables.sweep,
        "subgroup_calibration": tables.calibration,
        "calibration_tests": tables.calibration_tests,
        "cross_group_auroc": tables.cross,
        "intersections": tables.intersections,
        "model_comparisons": tables.comparisons,
        "audit_changes": tables.changes,
        "modality_comparisons": inputs.modality_comparisons,
        "score_warnings": tables.warnings,
        **{name: frame for name, frame in tables.mitigation.tables().items() if frame.height},
        **{name: frame for name, frame in further.items() if frame.height},
        "spatial_aggregation": tables.aggregations,
        "cohort_counts": tables.studies,
        "cohort_flow": inputs.flow,
        "slice_quality": inputs.slice_quality,
    }

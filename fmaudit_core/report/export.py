"""The report as files: the page for people, JSON and CSV for machines. All of it passed through `disclosure.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

import fmaudit_core
from fmaudit_core.config import Audit
from fmaudit_core.publish import written_beside
from fmaudit_core.report import overview
from fmaudit_core.report.book import Book, Key
from fmaudit_core.report.cells import gap_view
from fmaudit_core.report.disclosure import Disclosed, disclose
from fmaudit_core.report.inputs import OVERALL, SCORE_SET, ReportInput
from fmaudit_core.report.page import render_page

PAGE: Final = "index.html"
JSON: Final = "audit.json"
#: settings that say where things lie on one machine, and nothing about the audit
_PLACES: Final[dict[str, Any]] = {
    "encoders": True,
    "home": True,
    "cohort": {"table", "images", "root", "ehr", "demographics"},
}
#: of each score set and metric, so many of the intersections that fare worst go into the summary
_WORST: Final = 3


@dataclass(frozen=True)
class ReportFiles:
    """What was written.

    Parameters
    ----------
    page, summary : Path
        The HTML page and audit.json.
    tables : mapping of table name to CSV
    """

    page: Path
    summary: Path
    tables: Mapping[str, Path]

    def all(self) -> list[Path]:
        """Every file, the page first."""
        return [self.page, self.summary, *self.tables.values()]


def told_config(audit: Audit) -> dict[str, Any]:
    """The settings a report tells: all but where things lie."""
    return audit.model_dump(mode="json", exclude=_PLACES)


def write_report(folder: Path, inputs: ReportInput) -> ReportFiles:
    """Write the page, audit.json and one CSV per table, each by one rename, the page last.

    A kill leaves every file whole; audit.json names the SHA-256 of the tables it belongs to.

    Parameters
    ----------
    folder : Path
        Made where missing.
    inputs : ReportInput
    """
    tables = disclose(inputs)
    frames = _frames(inputs, tables)
    written: dict[str, Path] = {}
    digests: dict[str, str] = {}
    for name, frame in frames.items():
        content = frame.write_csv().encode()
        written[name] = _published(folder / f"{name}.csv", content)
        digests[f"{name}.csv"] = hashlib.sha256(content).hexdigest()
    summary = _published(folder / JSON, _as_json(_summary(inputs, tables, digests)))
    page = _published(folder / PAGE, render_page(inputs, tables).encode())
    return ReportFiles(page=page, summary=summary, tables=written)


def _published(path: Path, content: bytes) -> Path:
    with written_beside(path) as beside:
        beside.write_bytes(content)
    return path


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _frames(inputs: ReportInput, tables: Disclosed) -> dict[str, pl.DataFrame]:
    return {
        "audit_findings": _resaid(inputs, tables),
        "fairness_gaps": tables.gaps,
        "subgroup_metrics": tables.metrics,
        "threshold_sweep": tables.sweep,
        "subgroup_calibration": tables.calibration,
        "cross_group_auroc": tables.cross,
        "intersections": tables.intersections,
        "model_comparisons": tables.comparisons,
        "audit_changes": tables.changes,
        "spatial_aggregation": tables.aggregations,
        "cohort_counts": tables.studies,
        "cohort_flow": inputs.flow,
        "slice_quality": inputs.slice_quality,
    }


def _resaid(inputs: ReportInput, tables: Disclosed) -> pl.DataFrame:
    """Findings with the page's own sentences: those that came with the table may count a neighbour of a small group."""
    book = Book(inputs, tables)
    rows = tables.findings.to_dicts()
    said = [gap_view(book, Key.of(row), row)["sentence"] for row in rows]
    return tables.findings.with_columns(sentence=pl.Series(said, dtype=pl.String))


def _summary(inputs: ReportInput, tables: Disclosed, digests: Mapping[str, str]) -> dict[str, Any]:
    book = Book(inputs, tables)
    told = overview.executive_summary(book)
    return {
        "name": inputs.audit.name,
        "generated_at": inputs.generated_at,
        "fmaudit": fmaudit_core.__version__,
        "headline": told["headline"],
        "verdicts": {one["verdict"]: one["n"] for one in told["counts"]},
        "findings": [_finding(row) for row in _resaid(inputs, tables).iter_rows(named=True)],
        **_beside_findings(tables),
        "config": told_config(inputs.audit),
        "encoders": [dict(one) for one in inputs.encoders],
        "cohort_flow": inputs.flow.to_dicts(),
        "slice_quality": inputs.slice_quality.to_dicts(),
        "provenance": dict(sorted(inputs.provenance.items())),
        "tables": dict(digests),
    }


def _beside_findings(tables: Disclosed) -> dict[str, list[dict[str, Any]]]:
    """Of the larger tables what a reader asks first; the rest is in the CSV files."""
    tested = tables.cross.filter(status="tested").drop_nulls("value").sort("value")
    ranked = tables.intersections.filter(pl.col("rank") <= _WORST)
    return {
        "calibration": tables.calibration.filter(attribute=OVERALL).to_dicts(),
        "lowest_cross_group_auroc": tested.group_by(*SCORE_SET, "attribute", maintain_order=True)
        .first()
        .sort(*SCORE_SET, "attribute")
        .to_dicts(),
        "worst_intersections": ranked.sort(*SCORE_SET, "metric", "rank").to_dicts(),
        "model_comparisons": tables.comparisons.filter(attribute=OVERALL).to_dicts(),
        "worse_than_before": tables.changes.filter("worse").to_dicts(),
        "spatial_aggregation": tables.aggregations.to_dicts(),
    }


def _finding(row: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        *SCORE_SET, "attribute", "metric", "confirmatory", "verdict", "gap", "null_expected_gap",
        "worst_subgroup", "best_subgroup", "p_value", "p_gap", "p_adjusted", "q_value", "sentence",
    )  # fmt: skip
    return {name: row[name] for name in names if name in row}

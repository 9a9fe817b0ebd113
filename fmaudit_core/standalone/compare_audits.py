"""Comparison of two audits: their differences in inputs and results, with paired tests if the predictions are available.

The second audit is compared with the first. If both are workspaces, each model is compared with itself on the studies that both
audits scored, by the paired tests of `fairness/reaudit.py`. With audit.json alone there is no test: whether two intervals overlap
is not a test. For the page see `report/documents/comparison_page.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from fmaudit_core.common.errors import FmauditError
from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import CONFIG_NAME
from fmaudit_core.fairness.reaudit import audit_changes
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.workspace import Workspace, open_workspace
from fmaudit_core.report.disclosure.disclosure import disclosed_changes
from fmaudit_core.report.documents.audit_json import SCHEMA_VERSION, cohort_size
from fmaudit_core.report.documents.comparison_page import Comparison, render_comparison
from fmaudit_core.report.errors import ReportError
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.report_layout import JSON

_METRICS: Final = ("auroc", "udr", "fpr")
_LEVEL: Final = ("task", "attribute", "subgroup")
#: settings that do not affect the results
_NOT_COMPARED: Final = ("name",)


@dataclass(frozen=True)
class Audited:
    """One opened audit.

    Parameters
    ----------
    path : Path
        Path as given by the user.
    audit_summary : mapping
        The content of its audit.json.
    workspace : Workspace, optional
        Workspace with the predictions, if there is one.
    """

    path: Path
    audit_summary: Mapping[str, Any]
    workspace: Workspace | None


def compare(first: Path, second: Path) -> Comparison:
    """Compare two audits.

    Parameters
    ----------
    first, second : Path
        Each an audit.yaml or its folder, a report's folder, or an audit.json.

    Raises
    ------
    ReportError
        There is no audit at a path, it has no report, or its audit.json has another major version.
    """
    before, after = opened(first), opened(second)
    fairness = after.audit_summary["config"]["fairness"]
    pairs, why_not = _paired(before, after)
    if pairs is not None and after.workspace is not None:
        rows, facts = _tested(before.audit_summary, after.audit_summary, after.workspace, pairs), _in_common(*pairs)
    else:
        rows, facts = list(_side_by_side(before.audit_summary, after.audit_summary)), {}
    return Comparison(
        first=before.audit_summary,
        second=after.audit_summary,
        differences=[*_differences(before.audit_summary, after.audit_summary), *facts.items()],
        only_first=_only(before.audit_summary, after.audit_summary),
        only_second=_only(after.audit_summary, before.audit_summary),
        findings=list(_findings(before.audit_summary, after.audit_summary)),
        rows=rows,
        no_test=why_not,
        alpha=fairness["alpha"],
        confidence=fairness["confidence"],
    )


def write_comparison(path: Path, comparison: Comparison) -> Path:
    """Write the page of a comparison in one rename."""
    with written_beside(path) as temporary:
        temporary.write_text(render_comparison(comparison), encoding="utf-8")
    return path


def opened(path: Path) -> Audited:
    """Open the audit at a path; see `compare`."""
    config = path / CONFIG_NAME if path.is_dir() else path
    if config.suffix in (".yaml", ".yml") and config.is_file():
        workspace = open_workspace(config)
        workspace.root.fetch_report()
        return Audited(path, _read_audit_summary(workspace.reports / JSON, fix="Run `fmaudit run` first."), workspace)
    summary = path / JSON if path.is_dir() else path
    fix = f"Give an audit's folder with its {CONFIG_NAME}, a report's folder, or an {JSON}."
    return Audited(path, _read_audit_summary(summary, fix=fix), None)


def _read_audit_summary(path: Path, *, fix: str) -> dict[str, Any]:
    try:
        audit_summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReportError("does not exist.", where=str(path), fix=fix) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise ReportError("is not an audit.json.", where=str(path), fix=fix) from error
    version = str(audit_summary.get("schema_version", "")) if isinstance(audit_summary, dict) else ""
    if not version:
        raise ReportError("has no schema version.", where=str(path), fix="Create the report again: `fmaudit run`.")
    if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise ReportError(
            f"has version {version}, but this fmaudit reads {SCHEMA_VERSION}.", where=str(path),
            fix="Create both reports with the same version of fmaudit.",
        )  # fmt: skip
    return dict(audit_summary)


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield differences between the inputs of two audits: cohort, settings, encoders, software."""
    for name, title in (("n_studies", "studies"), ("n_patients", "patients")):
        yield from _apart(f"cohort, {title}", *(cohort_size(one).get(name) for one in (first, second)))
    settings = [dict(_flat(audit_summary["config"])) for audit_summary in (first, second)]
    for key in sorted({*settings[0], *settings[1]}):
        if key not in _NOT_COMPARED:
            yield from _apart(key, *(one.get(key) for one in settings))
    weights = [
        {one["name"]: one.get("weights_sha256") or "none" for one in audit_summary["encoders"]}
        for audit_summary in (first, second)
    ]
    for name in sorted(set(weights[0]) & set(weights[1])):
        yield from _apart(f"weights of {name}", *(one[name][:12] for one in weights))
    provenance = [audit_summary["provenance"] for audit_summary in (first, second)]
    for key in sorted(set(provenance[0]) & set(provenance[1])):
        if not key.startswith(("version of the embeddings", "version of audit_findings")):
            yield from _apart(key, *(str(one[key])[:12] for one in provenance))


def _apart(about: str, first: Any, second: Any) -> Iterator[tuple[str, str]]:
    if first != second:
        yield about, f"{_shown(first)} before, {_shown(second)} now"


def _shown(value: Any) -> str:
    return "not given" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _flat(one, f"{key}.{name}" if key else str(name))
    else:
        yield key, json.dumps(value) if isinstance(value, list) else value


def _models(audit_summary: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    return {tuple(row[name] for name in SCORE_SET) for row in audit_summary["subgroup_metrics"]}


def _only(audit_summary: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the models (encoder and task) of one audit that the other does not have."""
    return [f"{key[0]}, {key[1]}" for key in sorted(_models(audit_summary) - _models(other))]


def _findings(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the findings that both audits have for their primary models, in pairs."""
    keys = (*SCORE_SET, "attribute", "metric")
    models = _models(first) & _models(second)
    before = {tuple(row[name] for name in keys): row for row in first["findings"]}
    for row in second["findings"]:
        key = tuple(row[name] for name in keys)
        if key in before and key[: len(SCORE_SET)] in models:
            yield {name: row[name] for name in keys} | {"first": before[key], "second": row}


def _paired(first: Audited, second: Audited) -> tuple[tuple[pl.DataFrame, pl.DataFrame] | None, str | None]:
    """Return the test predictions of both audits, or the reason for having no test."""
    if first.workspace is None or second.workspace is None:
        return None, "No test without the predictions: give both audits' folders with their audit.yaml."
    frames = []
    for one in (first.workspace, second.workspace):
        try:
            cells = snapshot_of(one).audited_cells()
            if not cells:
                return None, "No test without the predictions: an audit's tables are missing."
            frames.append(queries.compared_predictions(one, cells))
        except FmauditError:
            return None, "No test without the predictions: an audit's tables cannot be read."
    before, after = frames
    people = [frame.select("study_id", "patient_id").unique("study_id") for frame in frames]
    both = people[0].join(people[1], on="study_id", suffix="_now")
    if both.is_empty():
        return None, "No test: the audits have no test study in common."
    if both.filter(pl.col("patient_id") != pl.col("patient_id_now")).height:
        return None, "No test: the same study ids belong to different patients, so the cohorts differ."
    return (before, after), None


def _tested(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    workspace: Workspace,
    pairs: tuple[pl.DataFrame, pl.DataFrame],
) -> list[dict[str, Any]]:
    """Return rows with paired tests after disclosure control, by the settings of the second audit."""
    before, after = pairs
    audit = workspace.audit
    attributes = [name for name in audit.attributes if name in after.columns]
    changes = audit_changes(after, before, attributes, audit.fairness, audit.reaudit)
    return disclosed_changes(changes, _withheld(first, second), audit.fairness).to_dicts()


def _withheld(*audits: Mapping[str, Any]) -> pl.DataFrame:
    """Return the subgroups that either audit withholds."""
    rows = [
        {name: row[name] for name in _LEVEL}
        for audit_summary in audits
        for row in audit_summary["subgroup_metrics"]
        if row["counts"] == "withheld"
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(_LEVEL, pl.String)).unique()


def _in_common(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, str]:
    """Return sentences on the test studies that both audits scored, and on outcomes that differ."""
    keys = ["study_id", "task"]
    labels = [frame.select(*keys, "y_true").unique(keys) for frame in (before, after)]
    both = labels[0].join(labels[1], on=keys, suffix="_now")
    counts = [frame.get_column("study_id").n_unique() for frame in (*labels, both)]
    notes = {}
    if len(set(counts)) > 1:
        notes["scored test studies"] = f"{counts[0]:,} before, {counts[1]:,} now; tests use the {counts[2]:,} in both"
    relabelled = both.filter(pl.col("y_true") != pl.col("y_true_now")).height
    if relabelled:
        notes["outcomes"] = f"{relabelled:,} of {both.height:,} changed; tests use the current ones"
    return notes


def _side_by_side(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of both audits with their own intervals, without a test."""
    keys = (*SCORE_SET, "attribute", "subgroup", "metric")
    before = {tuple(row[name] for name in keys): row for row in first["subgroup_metrics"]}
    for row in second["subgroup_metrics"]:
        key = tuple(row[name] for name in keys)
        if row["metric"] in _METRICS and key in before:
            yield _row(before[key], row, keys)


def _row(before: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    counts = "withheld" if "withheld" in (before["counts"], now["counts"]) else now["counts"]
    row = {name: now[name] for name in keys} | {"status": now["status"], "counts": counts}
    if counts == "withheld" or before["value"] is None or now["value"] is None:
        return row | dict.fromkeys(("value", "previous_value", "change", "ci_low", "ci_high"))
    return row | {
        "value": now["value"], "previous_value": before["value"], "change": now["value"] - before["value"],
        "interval": (now["ci_low"], now["ci_high"]), "previous_interval": (before["ci_low"], before["ci_high"]),
        "rounded": "rounded" in (before["counts"], now["counts"]), "ci_low": None, "ci_high": None,
    }  # fmt: skip

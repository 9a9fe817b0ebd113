"""Gathers from a workspace what the report shows. How it is shown: `report/`."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version as installed

import polars as pl

import fmaudit_core
from fmaudit_core.encoders.store import read_provenance
from fmaudit_core.report.export import ReportFiles
from fmaudit_core.report.inputs import SLICE_QUALITY, ReportInput, count_series, count_studies
from fmaudit_core.versions import Versions
from fmaudit_core.workspace import Workspace


def report_input(workspace: Workspace, versions: Versions) -> ReportInput:
    """Everything the page shows, as counts: no row about a study or a patient."""
    warehouse, cells = workspace.warehouse, versions.audited_cells()
    encoders = [
        {
            "name": name,
            "title": spec.label,
            "dim": spec.dim,
            "weights_sha256": spec.sha256,
            "licence": spec.licence,
            "source": spec.source,
            "control": spec.control,
            "n_studies": int(read_provenance(warehouse.embeddings_path(name))["n_studies"]),
        }
        for name, spec in versions.encoders.items()
        if any(cell.encoder == name for cell in cells)
    ]
    return ReportInput(
        audit=workspace.audit,
        subgroup_metrics=warehouse.read_cells("subgroup_metrics", cells),
        fairness_gaps=warehouse.read_cells("fairness_gaps", cells),
        threshold_sweep=warehouse.read_cells("threshold_sweep", cells),
        audit_findings=warehouse.read("audit_findings"),
        subgroup_calibration=warehouse.read_cells("subgroup_calibration", cells),
        cross_group_auroc=warehouse.read_cells("cross_group_auroc", cells),
        intersections=warehouse.read_cells("intersections", cells),
        model_comparisons=warehouse.read("model_comparisons"),
        audit_changes=warehouse.read("audit_changes"),
        spatial_aggregation=warehouse.read("spatial_aggregation"),
        studies=count_studies(warehouse.read("studies"), workspace.audit.attributes),
        flow=warehouse.read("cohort_flow"),
        slice_quality=_series(workspace, versions),
        encoders=encoders,
        provenance=_provenance(workspace, versions),
    )


def report_files(written: ReportFiles) -> pl.DataFrame:
    """The files of a report with their sizes and digests, one row each."""
    rows = [
        {
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in written.all()
    ]
    return pl.DataFrame(rows, schema={"file": pl.String, "bytes": pl.Int64, "sha256": pl.String})


def _series(workspace: Workspace, versions: Versions) -> pl.DataFrame:
    """Series by status and reason; none where no encoder looks at CT."""
    if not versions.views_seen():
        return pl.DataFrame(schema=SLICE_QUALITY)
    return count_series(workspace.warehouse.read("slice_quality"))


def _provenance(workspace: Workspace, versions: Versions) -> dict[str, str]:
    """What every number descends from: versions of the inputs, of the encoders, and of the software."""
    warehouse = workspace.warehouse
    told = {f"version of {name}": warehouse.version(name) or "" for name in ("studies", "labels", "audit_findings")}
    absent = versions.unaudited().group_by("encoder", maintain_order=True).agg("task", "lacks")
    for name, tasks, lacks in absent.iter_rows():
        told[f"without findings: {name}"] = f"no {', '.join(sorted(set(lacks)))} for {', '.join(tasks)}"
    if versions.retired():
        told["retired encoders, results kept"] = ", ".join(versions.retired())
    told["version of the slices"] = warehouse.version("slice_quality") or ""
    for name in versions.encoders:
        path = warehouse.embeddings_path(name)
        if path.exists():
            told[f"version of the embeddings of {name}"] = read_provenance(path)["version"]
    told |= {name: installed(name) for name in ("numpy", "scipy", "polars", "duckdb", "pydicom")}
    return told | {"fmaudit": fmaudit_core.__version__, "python": platform.python_version()}

"""Gathers from a workspace what the report shows. How it is shown: `report/`."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed
from itertools import product
from typing import Any, Final

import polars as pl

import fmaudit_core
from fmaudit_core.encoders.embeddings_reader import read_provenance
from fmaudit_core.mitigation.recommend import recommend
from fmaudit_core.pipeline.run_montages import montages
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.stale_steps import StaleStep
from fmaudit_core.pipeline.steps import STEPS, step_of
from fmaudit_core.pipeline.versions import is_left_out
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.report.export import ReportFiles
from fmaudit_core.report.index.mitigation_index import mitigated_findings
from fmaudit_core.report.input.report_input import SLICE_QUALITY, ReportInput, count_series, count_studies
from fmaudit_core.reproduction.compare import compare_with_paper
from fmaudit_core.reproduction.our_values import Audited
from fmaudit_core.storage.warehouse import WHOLE, Cell
from fmaudit_core.tables.cohort import COHORT_NOTES
from fmaudit_core.tables.findings import MITIGATION_RECOMMENDATIONS

#: tables of mitigation that the report shows: of an encoder and task, of an encoder, of all together
_BY_CELL: Final = ("mitigation_results", "mitigation_subgroups")
_BY_ENCODER: Final = ("mitigation_leakage", "demographic_probes")
_WHOLE: Final = ("mitigation_capacity", "mitigation_interactions", "mitigation_ladder")


def report_input(
    workspace: Workspace,
    look: Snapshot,
    runs: Mapping[str, str] | None = None,
    cell_runs: Mapping[tuple[str, str, str], str] | None = None,
) -> ReportInput:
    """Everything the page shows, as counts: no row about a study or a patient, and slices only if the audit asks for them.

    Parameters
    ----------
    runs : mapping of str to str, optional
        Of what was made the id of the run that made it. Shown, and no part of the report's version.
    cell_runs : mapping of (table, encoder, task) to str, optional
        The same of single partitions.
    """
    warehouse, cells = workspace.warehouse, look.audited_cells()
    encoders = [
        {
            "name": name,
            "title": spec.label,
            "dim": spec.dim,
            "weights_sha256": spec.sha256,
            "licence": spec.licence,
            "source": spec.source,
            "control": spec.control,
            "baseline": not spec.embeds,
            "n_studies": _n_studies(workspace, name, cells, embeds=spec.embeds),
        }
        for name, spec in look.encoders.items()
        if any(cell.encoder == name for cell in cells)
    ]
    return ReportInput(
        audit=workspace.audit,
        subgroup_metrics=warehouse.read_cells("subgroup_metrics", cells),
        fairness_gaps=warehouse.read_cells("fairness_gaps", cells),
        threshold_sweep=warehouse.read_cells("threshold_sweep", cells),
        audit_findings=warehouse.read("audit_findings"),
        subgroup_calibration=warehouse.read_cells("subgroup_calibration", cells),
        calibration_tests=warehouse.read_cells("calibration_tests", cells),
        cross_group_auroc=warehouse.read_cells("cross_group_auroc", cells),
        intersections=warehouse.read_cells("intersections", cells),
        model_comparisons=warehouse.read("model_comparisons"),
        audit_changes=warehouse.read("audit_changes"),
        modality_comparisons=warehouse.read("modality_comparisons"),
        paper_comparison=paper_comparison(workspace, look),
        **_beside(workspace, look),
        spatial_aggregation=warehouse.read("spatial_aggregation"),
        studies=count_studies(workspace.audited_studies(), workspace.audit.attributes),
        flow=warehouse.read("cohort_flow"),
        slice_quality=_series(workspace, look),
        montages=montages(workspace, look),
        encoders=encoders,
        provenance=_provenance(workspace, look),
        runs=runs or {},
        cell_runs=cell_runs or {},
    )


def paper_comparison(workspace: Workspace, look: Snapshot) -> pl.DataFrame:
    """Return published figures next to this audit's; see `reproduction/`."""
    warehouse, cells = workspace.warehouse, look.audited_cells()
    notes = _whole(workspace, "cohort_notes")
    release = notes.filter(pl.col("note").str.starts_with("release ")) if notes.height else notes
    audited = Audited(
        audit=workspace.audit,
        encoders=look.encoders,
        metrics=warehouse.read_cells("subgroup_metrics", cells),
        gaps=warehouse.read_cells("fairness_gaps", cells),
        sweep=warehouse.read_cells("threshold_sweep", cells),
        comparisons=warehouse.read("model_comparisons"),
        flow=warehouse.read("cohort_flow"),
        modalities=_whole(workspace, "modality_comparisons"),
        mitigation=_of_cells(workspace, "mitigation_results", look.mitigated_cells()),
    )
    return compare_with_paper(audited, labels_file=release.get_column("detail")[0] if release.height else "")


def _beside(workspace: Workspace, look: Snapshot) -> dict[str, Any]:
    """Return further frames that exist, by the report's field; none of mitigation if it is left out."""
    predicted = [cell for cell in look.audited_cells() if cell.encoder in look.baselines()]
    cells = look.mitigated_cells() if workspace.audit.mitigation.enabled else []
    encoders = [Cell(name) for name in sorted({cell.encoder for cell in cells})]
    compared = cells and not is_left_out(look, step_of("audit_report"), "mitigation_capacity")
    found = {
        "label_flow": _whole(workspace, "label_flow"),
        "score_warnings": _of_cells(workspace, "score_warnings", look.audited_cells()),
        "adjusted_gaps": _standardised(workspace, look),
        **_explored(workspace, look),
        "notes": _noted(workspace),
        "baselines": _of_cells(workspace, "baseline_joins", predicted),
        "encoder_sensitivity": _sensitivity(workspace, look),
        **{name: _of_cells(workspace, name, cells) for name in _BY_CELL},
        **{name: _of_cells(workspace, name, encoders) for name in _BY_ENCODER},
        **{name: _whole(workspace, name) if compared else pl.DataFrame() for name in _WHOLE},
    }
    tasks = pl.col("task").is_in(["", *workspace.audit.tasks])
    if cells:
        found["mitigation_recommendations"] = _recommended(workspace, found)
    return {
        name: frame.filter(tasks) if "task" in frame.columns else frame for name, frame in found.items() if frame.width
    }


def _noted(workspace: Workspace) -> pl.DataFrame:
    """Return the notes of the cohort, and how many training studies no probe was trained on."""
    notes, most = _whole(workspace, "cohort_notes"), workspace.audit.probes.max_training
    studies = workspace.warehouse.read("studies")
    left_out = studies.height - workspace.capped(studies).height
    if not left_out:
        return notes
    detail = f"at most {most:,} are used (`probes: max_training`); whole patients are drawn by a hash of their id"
    row = COHORT_NOTES.frame(
        [{"note": "training studies not used", "n": left_out, "unit": "studies", "detail": detail}]
    )
    return pl.concat([notes, row]) if notes.width else row


def _standardised(workspace: Workspace, look: Snapshot) -> pl.DataFrame:
    """Return the gaps standardised for covariates; without columns if none is declared."""
    return _of_cells(workspace, "adjusted_gaps", look.audited_cells()) if workspace.audit.covariates else pl.DataFrame()


def _sensitivity(workspace: Workspace, look: Snapshot) -> pl.DataFrame:
    """Return what was measured of the audited encoders under their present specs; without columns if none was."""
    found = _of_cells(workspace, "encoder_sensitivity", [Cell(name) for name in look.encoders])
    specs = pl.DataFrame(
        [(name, spec.digest()) for name, spec in look.encoders.items()], ["encoder", "spec_digest"], orient="row"
    )
    return found.join(specs, on=["encoder", "spec_digest"], how="semi", maintain_order="left") if found.width else found


def _explored(workspace: Workspace, look: Snapshot) -> dict[str, pl.DataFrame]:
    """Return the tables of the exploratory steps; without columns if a step is switched off."""
    cells = [cell for cell in look.audited_cells() if look.encoders[cell.encoder].embeds]
    asked = {
        "training_counts": ("training_counts", "learning_curves"),
        "discovered_subgroups": ("discovered_subgroups", "discovered_traits"),
    }
    tables = [name for step, names in asked.items() if getattr(workspace.audit.exploration, step) for name in names]
    return {name: _of_cells(workspace, name, cells) for name in tables}


def _recommended(workspace: Workspace, found: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return the recommended strategies. Whether there is a disparity is decided by the findings, corrected over their family."""
    audit = workspace.audit
    rows = mitigated_findings(workspace.warehouse.read("audit_findings"), audit)
    subgroups = found["mitigation_subgroups"]
    return pl.concat(
        recommend(
            results,
            subgroups.filter(encoder=encoder, task=task),
            rows.filter(encoder=encoder, task=task),
            audit.fairness,
        )
        for (encoder, task), results in found["mitigation_results"].group_by("encoder", "task", maintain_order=True)
    )


def _of_cells(workspace: Workspace, table: str, cells: Sequence[Cell]) -> pl.DataFrame:
    """Rows of those cells that are published, without columns where none is."""
    there = [cell for cell in cells if workspace.warehouse.version(table, cell) is not None]
    return workspace.warehouse.read_cells(table, there) if there else pl.DataFrame()


def _whole(workspace: Workspace, table: str) -> pl.DataFrame:
    """Read a whole table; without columns if it is not published."""
    return _of_cells(workspace, table, [WHOLE])


def _n_studies(workspace: Workspace, name: str, cells: Sequence[Cell], *, embeds: bool) -> int:
    """Studies an encoder embedded, or a baseline predicted."""
    if embeds:
        return int(read_provenance(workspace.warehouse.embeddings_path(name))["n_studies"])
    own = workspace.warehouse.read_cells("probe_predictions", [cell for cell in cells if cell.encoder == name])
    return own.get_column("study_id").n_unique()


def recommendations(written: ReportFiles) -> pl.DataFrame:
    """Return the recommendations in a report's audit.json: a frame of `MITIGATION_RECOMMENDATIONS`."""
    rows = json.loads(written.summary.read_text(encoding="utf-8"))["recommendations"]
    return MITIGATION_RECOMMENDATIONS.frame(
        [{name: row[name] for name in MITIGATION_RECOMMENDATIONS.schema} for row in rows]
    )


def report_files(written: ReportFiles) -> pl.DataFrame:
    """Return the files of a report with their sizes and digests, one row each."""
    rows = [
        {
            "file": path.relative_to(written.folder).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in written.all()
    ]
    return pl.DataFrame(rows, schema={"file": pl.String, "bytes": pl.Int64, "sha256": pl.String})


def _series(workspace: Workspace, look: Snapshot) -> pl.DataFrame:
    """Series by status and reason; none where no encoder looks at CT."""
    if not look.views_seen():
        return pl.DataFrame(schema=SLICE_QUALITY)
    return count_series(workspace.warehouse.read("slice_quality"))


def _record(workspace: Workspace) -> str:
    """Return what was read of the medical record."""
    if workspace.record is None:
        return "none, or left out: imaging alone"
    if workspace.warehouse.version("ehr_rows") is None:
        return "could not be read: imaging alone"
    rows, codes = (workspace.warehouse.read(name) for name in ("ehr_rows", "ehr_vocabulary"))
    rule = workspace.audit.ehr.cutoff
    marked = "" if rule == "strict" else ", cutoffs of the INSPECT baseline: events up to the study itself count"
    return f"{int(rows.get_column('n_events').sum()):,} events before cutoffs, {codes.height:,} codes{marked}"


def _left_out(look: Snapshot) -> list[str]:
    """Return what the predictions and the report were made without, by step and encoder."""
    found = set()
    for step in (one for one in STEPS if one.optional):
        for cell, name in product(step.cells(look, look.encoders, look.workspace.audit.tasks), step.optional):
            source = step.input_steps[name]
            made = StaleStep(source, source.by.cell(cell), ())
            if source.when(look, made.cell) and is_left_out(look, step, name, cell):
                found.add(made.name)
    return sorted(found)


def _provenance(workspace: Workspace, look: Snapshot) -> dict[str, str]:
    """Return the provenance of every number: versions of the inputs, the encoders and the software."""
    warehouse = workspace.warehouse
    rows = {f"version of {name}": warehouse.version(name) or "" for name in ("studies", "labels", "audit_findings")}
    absent = look.unaudited().group_by("encoder", maintain_order=True).agg("task", "lacks")
    for name, tasks, lacks in absent.iter_rows():
        rows[f"without findings: {name}"] = f"no {', '.join(sorted(set(lacks)))} for {', '.join(tasks)}"
    for name in _left_out(look):
        rows[f"left out: {name}"] = "this step failed, or has not run on these inputs"
    if look.retired():
        rows["retired encoders, results kept"] = ", ".join(look.retired())
    rows["version of the slices"] = warehouse.version("slice_quality") or ""
    rows["medical record"] = _record(workspace)
    for name in look.encoders:
        path = warehouse.embeddings_path(name)
        if path.exists():
            rows[f"version of the embeddings of {name}"] = read_provenance(path)["version"]
    software = ("numpy", "scipy", "polars", "duckdb", *(["pydicom"] if look.views_seen() else []))
    rows |= {name: installed(name) for name in software}
    return rows | {"fmaudit": fmaudit_core.__version__, "python": platform.python_version()}

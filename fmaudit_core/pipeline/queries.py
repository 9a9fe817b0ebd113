"""Queries of steps on a workspace: predictions, scores, design matrices, counts. Paths: `workspace.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from fmaudit_core.common.vocabulary import THRESHOLD_OF_VALIDATION, family_task
from fmaudit_core.ehr.design_matrix import Design, designs
from fmaudit_core.encoders.check import CohortSize
from fmaudit_core.encoders.embeddings_reader import read_study_ids
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.window import View
from fmaudit_core.pipeline.snapshot import Snapshot, snapshot_of
from fmaudit_core.pipeline.steps import FURTHER_FITS, step_of
from fmaudit_core.pipeline.versions import is_left_out
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.probes.primary_score_set import (
    PRIMARY_MODALITY,
    PRIMARY_PROBE,
    of_primary_probe,
    of_primary_score_set,
)
from fmaudit_core.storage.warehouse import PREVIOUS, Cell


def score_tables(look: Snapshot, encoder: str) -> list[tuple[str, Cell]]:
    """Return the published tables of scores that an encoder's predictions contain besides the logistic probes on CT.

    A table that could not be computed from the current inputs is left out.
    """
    cell, predictions = Cell(encoder), step_of("probe_predictions")
    steps = [step_of(name) for name in FURTHER_FITS]
    return [
        (step.name, step.by.cell(cell))
        for step in steps
        if step.when(look, cell) and not is_left_out(look, predictions, step.name, cell)
    ]


def ehr_designs(workspace: Workspace) -> dict[str, Design]:
    """Return the design matrices of the published features of the medical record, by cutoff."""
    settings = workspace.audit.ehr
    return designs(
        *(workspace.warehouse.read(name) for name in ("ehr_features", "ehr_rows", "ehr_vocabulary")),
        windows_days=settings.windows_days,
        most=settings.max_columns,
    )


def chosen_c(workspace: Workspace, cell: Cell, pooling: str) -> float:
    """Return the C that validation chose for the primary probe of a cell, in one pooling."""
    tried = workspace.warehouse.read("probe_selection", cell)
    chosen = tried.filter(pl.col("chosen"), probe=PRIMARY_PROBE, modality=PRIMARY_MODALITY, pooling=pooling)
    return float(chosen.get_column("c").item())


def predictions(workspace: Workspace, cells: Sequence[Cell]) -> pl.DataFrame:
    """Return the scores of some cells with the attributes of their studies, the input of `fairness.assess`."""
    attributes = workspace.audited_studies().select("study_id", *workspace.audit.attributes)
    scores = workspace.warehouse.read_cells("probe_predictions", cells)
    # all thresholds of an audit are chosen on validation
    sources = scores.with_columns(
        threshold_source=pl.when(pl.col("threshold").is_not_null()).then(pl.lit(THRESHOLD_OF_VALIDATION))
    )
    return sources.join(attributes, on="study_id", how="left", maintain_order="left")


def standardised_predictions(workspace: Workspace, cell: Cell) -> pl.DataFrame:
    """Return the test scores of the primary probe and pooling of a cell, with the levels of attributes and covariates."""
    audit = workspace.audit
    levels = workspace.audited_studies().select("study_id", *dict.fromkeys((*audit.attributes, *audit.covariates)))
    test = workspace.warehouse.read("probe_predictions", cell).filter(pl.col("split") == "test")
    return of_primary_score_set(test, audit.fairness.primary_pooling).join(levels, on="study_id", how="left")


def confirmatory_predictions(
    workspace: Workspace, cells: Sequence[Cell], encoders: Mapping[str, EncoderSpec]
) -> pl.DataFrame:
    """Return the scores of the declared family, possibly none: its task, probe and pooling, without controls and baselines."""
    task = family_task(workspace.audit.tasks)
    declared = {name for name, spec in encoders.items() if spec.embeds and not spec.control}
    family = [cell for cell in cells if cell.task == task and cell.encoder in declared]
    if not family:
        return pl.DataFrame()
    return of_primary_score_set(predictions(workspace, family), workspace.audit.fairness.primary_pooling)


def compared_predictions(workspace: Workspace, cells: Sequence[Cell]) -> pl.DataFrame:
    """Return the test scores of the primary probe and pooling, by which encoders are compared in pairs."""
    test = predictions(workspace, cells).filter(pl.col("split") == "test")
    return of_primary_score_set(test, workspace.audit.fairness.primary_pooling)


def modality_predictions(workspace: Workspace, cells: Sequence[Cell]) -> pl.DataFrame:
    """Return the test scores that show the contribution of each modality: all on the record, and the primary ones on CT."""
    test = workspace.warehouse.read_cells("probe_predictions", cells).filter(pl.col("split") == "test")
    with_record = test.filter(pl.col("modality").str.contains("ehr"))
    on_ct = of_primary_score_set(test, workspace.audit.fairness.primary_pooling)
    return pl.concat([on_ct, with_record])


def previous_predictions(workspace: Workspace, cells: Sequence[Cell]) -> pl.DataFrame:
    """Return the test scores of the primary probe and pooling in each cell's previous audit; empty if there is none."""
    primary = workspace.audit.fairness.primary_pooling
    frames = [workspace.warehouse.read(PREVIOUS, cell) for cell in cells if workspace.warehouse.version(PREVIOUS, cell)]
    if not frames:
        return pl.DataFrame(schema=workspace.warehouse.read("probe_predictions", cells[0]).schema)
    before = pl.concat(frames, how="diagonal_relaxed").filter(pl.col("split") == "test")
    return of_primary_score_set(before, primary)


def cohort_size(workspace: Workspace, view: View) -> CohortSize | None:
    """Return the studies and slices, volumes or patches, that an encoder with that view has to embed; None if unknown."""
    warehouse = workspace.warehouse
    if warehouse.version("slice_quality") is not None:
        used = warehouse.read("slice_quality").filter(pl.col("used"))
        return CohortSize(used.height, sum(_n_items(view, row) for row in used.iter_rows(named=True)))
    if warehouse.version("studies") is not None:
        n_studies = warehouse.read("studies").height
        return CohortSize(n_studies, n_studies if view.item == "volume" else None)
    return None


def _n_items(view: View, series: Mapping[str, Any]) -> int:
    """Return the number of slices, volumes or patches of a row of `slice_quality`."""
    if view.volume is None:
        return len(view.chosen(series["n_slices"]))
    shape = (series["n_slices"], series["rows"], series["columns"])
    return view.volume.n_items(shape, (series["spacing_mm"], series["in_plane_mm"], series["in_plane_mm"]))


def unscored(workspace: Workspace, cell: Cell) -> int:
    """Count studies of val and test with a known label that lack a finite score in some score set that should have them.

    Those are the embedded studies; of score sets that read the medical record, the ones that have a time. Studies that a
    baseline does not score are counted in `baseline_joins`; here only its scores that are not finite count.
    """
    warehouse = workspace.warehouse
    look = snapshot_of(workspace)
    spec = look.encoders.get(cell.encoder)
    if spec is not None and not spec.embeds:
        return warehouse.read("probe_predictions", cell).filter(~pl.col("y_score").is_finite()).height
    embedded = read_study_ids(warehouse.embeddings_path(cell.encoder))
    known = warehouse.read("labels").filter((pl.col("task") == cell.task) & pl.col("label").is_not_null())
    audited = warehouse.read("studies").filter(pl.col("split") != "train")
    expected = known.filter(pl.col("study_id").is_in(embedded)).join(audited, on="study_id", how="semi")
    finite = warehouse.read("probe_predictions", cell).filter(pl.col("y_score").is_finite())
    lacking = sum(
        expected.join(of_primary_probe(finite).filter(pooling=pooling), on="study_id", how="anti").height
        for pooling in workspace.poolings(cell.encoder)
    )
    for table, of in score_tables(look, cell.encoder):
        of_task = warehouse.read(table, of).filter(task=cell.task)
        for (probe, modality), _ in of_task.group_by("probe", "modality", maintain_order=True):
            scored = finite.filter((pl.col("probe") == probe) & (pl.col("modality") == modality))
            whom = expected
            if "ehr" in str(modality):
                whom = expected.join(warehouse.read("ehr_rows"), on="study_id", how="semi")
            lacking += whom.join(scored, on="study_id", how="anti").height
    return lacking

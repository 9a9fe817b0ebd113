"""Steps of the medical record: its features, its probes, and the predictions that contain them."""

from __future__ import annotations

from contextlib import suppress

import polars as pl

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.ehr.errors import EhrError
from fmaudit_core.ehr.features import EhrTables, checked, ehr_tables
from fmaudit_core.ehr.record_look import RecordLook
from fmaudit_core.fairness.thresholds import with_thresholds
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.probes.errors import OneClassError
from fmaudit_core.probes.record import Fitted, fit_fusions, fit_record
from fmaudit_core.probes.selection import Predictions, choose_and_predict
from fmaudit_core.storage.warehouse import Cell

#: where the trail of a table of scores is kept; what networks were chosen by is `probe_seeds`
TRAIL_OF = {"ehr_fits": "ehr_selection", "fusion_fits": "fusion_selection"}


def look_at_events(workspace: Workspace, studies: pl.DataFrame) -> RecordLook | None:
    """Check the cohort's file of events without computing features; None if the record has another form, or there is none.

    Raises
    ------
    EhrError, CohortError
        The file cannot be used as it is.
    """
    record = workspace.record
    if record is None or record.form != "events":
        return None
    return checked(record, studies, workspace.audit.ehr, cache=workspace.ehr_cache).look


def read_record(workspace: Workspace, *, progress: Progress = silent) -> EhrTables:
    """Compute the features of the cohort's medical record."""
    record = workspace.record
    if record is None:
        raise EhrError(
            "the cohort has no medical record, or the audit leaves it out.",
            where=str(workspace.audit_yaml),
            fix="Name one under `cohort: events:` (INSPECT: `cohort: ehr:`) and keep `ehr` among `probes: modalities:`.",
        )
    studies = workspace.warehouse.read("studies")
    if "time" not in studies.columns:
        studies = studies.with_columns(time=pl.lit(None, pl.Datetime("us")))
    return ehr_tables(record, studies, workspace.audit.ehr, cache=workspace.ehr_cache, progress=progress)


def fit_of_record(workspace: Workspace) -> Fitted:
    """Fit the probes on the record alone, for every task."""
    audit, warehouse = workspace.audit, workspace.warehouse
    return fit_record(
        queries.ehr_designs(workspace), workspace.probed_studies(), warehouse.read("labels"),
        tasks=audit.tasks, c_grid=audit.probes.c_grid, settings=audit.ehr,
    )  # fmt: skip


def fuse(workspace: Workspace, encoder: str) -> Fitted:
    """Fit early and late fusion of one encoder, in its primary pooling."""
    audit, warehouse = workspace.audit, workspace.warehouse
    pooling = workspace.primary_pooling(encoder)
    embeddings = workspace.embeddings(encoder)[pooling]
    fits, studies, labels = (
        warehouse.read("probe_fits", Cell(encoder)),
        workspace.probed_studies(),
        warehouse.read("labels"),
    )
    ct = {}
    for task in audit.tasks:
        # a task without a probe on CT cannot be fused; its own step reports why
        with suppress(OneClassError):
            ct[task] = choose_and_predict(fits, {pooling: embeddings}, studies, labels, encoder=encoder, task=task)
    return fit_fusions(
        queries.ehr_designs(workspace), embeddings, ct, warehouse.read("ehr_fits"), studies, labels,
        pooling=pooling, c_grid=audit.probes.c_grid, settings=audit.ehr,
    )  # fmt: skip


def predict(workspace: Workspace, cell: Cell) -> Predictions:
    """Scores and thresholds of one encoder for one task: of its probes on CT, and of every further table on the same studies."""
    warehouse = workspace.warehouse
    on_ct = choose_and_predict(
        warehouse.read("probe_fits", Cell(cell.encoder)),
        workspace.embeddings(cell.encoder),
        warehouse.read("studies"),
        warehouse.read("labels"),
        encoder=cell.encoder,
        task=cell.task,
    )
    tables, of_cell = queries.score_tables(snapshot_of(workspace), cell.encoder), pl.lit(cell.encoder).alias("encoder")
    scored = on_ct.scores.select("study_id").unique()
    further = [
        warehouse.read(table, of)
        .filter(task=cell.task)
        .join(scored, on="study_id", how="semi", maintain_order="left")
        .with_columns(of_cell)
        .select(on_ct.scores.columns)
        for table, of in tables
    ]
    trails = [
        warehouse.read(TRAIL_OF[table], of).filter(task=cell.task).with_columns(of_cell)
        for table, of in tables
        if table in TRAIL_OF
    ]
    scores = with_thresholds(pl.concat([on_ct.scores, *further]), workspace.audit.fairness)
    return Predictions(scores, pl.concat([on_ct.trail, *trails], how="diagonal"), on_ct.n_unscored)

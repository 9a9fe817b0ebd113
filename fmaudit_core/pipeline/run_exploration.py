"""What the exploratory steps read: studies of one encoder and task with embeddings, labels, scores and metadata."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.cohort.acquisition_levels import with_acquisition
from fmaudit_core.common.matrix_rows import rows_of
from fmaudit_core.common.vocabulary import ACQUISITION, ACQUISITION_NUMBERS, ACQUISITION_TEXTS, SCORE_SET, SPLITS
from fmaudit_core.ehr.cutoffs import cutoff_of
from fmaudit_core.fairness.region_search import Searched
from fmaudit_core.fairness.seeding import seed_of
from fmaudit_core.fairness.small_groups import metric_status
from fmaudit_core.fairness.thresholds import choose_threshold
from fmaudit_core.fairness.training_counts import Probed
from fmaudit_core.pipeline.queries import chosen_c
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.steps import step_of
from fmaudit_core.pipeline.versions import is_left_out
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.probes.cross_fitting import cross_fitted
from fmaudit_core.probes.primary_score_set import of_primary_score_set
from fmaudit_core.probes.selection import aligned
from fmaudit_core.storage.warehouse import Cell

#: prefix of a record code among the columns of metadata
RECORD: Final = "record"
#: the most frequent codes that rules and descriptions look at
_MOST_CODES: Final = 200
#: a column with more levels is no metadata to look at
_MOST_LEVELS: Final = 10

Float32Array = npt.NDArray[np.float32]
Levels = dict[str, npt.NDArray[np.str_]]


def studies_of_probe(workspace: Workspace, cell: Cell) -> Probed:
    """Return all studies of the cell's primary probe with a known outcome, split by split, and the C that validation chose."""
    key = _primary(workspace, cell).select(SCORE_SET).row(0, named=True)
    ids, matrix = workspace.embeddings(cell.encoder)[key["pooling"]]
    labels = workspace.warehouse.read("labels").filter((pl.col("task") == cell.task) & pl.col("label").is_not_null())
    columns = ["study_id", "patient_id", "split", *workspace.audit.attributes]
    cohort = workspace.capped(workspace.audited_studies())
    studies = cohort.select(columns).join(labels.select("study_id", y_true="label"), on="study_id")
    # the embeddings of a split lie together, so that none of the copies of a million are made
    rows = aligned(ids, studies).sort(pl.col("split").cast(pl.Enum(SPLITS)), "study_id")
    x, c = matrix[rows.get_column("at").to_numpy()], chosen_c(workspace, cell, key["pooling"])
    return Probed(x, rows.drop("at"), c, key)


def _primary(workspace: Workspace, cell: Cell) -> pl.DataFrame:
    """Return the scores of the primary probe in the primary pooling."""
    every = workspace.warehouse.read("probe_predictions", cell)
    return of_primary_score_set(every, workspace.audit.fairness.primary_pooling)


def searched_studies(workspace: Workspace, cell: Cell) -> Searched:
    """Return the studies of the cell's primary probe with scores, embeddings and all metadata there is.

    Training studies are scored by probes that did not see their patient, with a threshold chosen on these scores. If they are too
    few for that, they are left out.
    """
    probed = studies_of_probe(workspace, cell)
    studies, x = _with_scores(workspace, probed, _primary(workspace, cell))
    ids = studies.get_column("study_id")
    levels = _metadata(workspace, ids)
    step = step_of("discovered_subgroups")
    if workspace.record is not None and not is_left_out(snapshot_of(workspace), step, "ehr_features", cell):
        levels |= _codes(workspace, ids, cell.task)
    return Searched(x, studies, levels, probed.key)


def _with_scores(workspace: Workspace, probed: Probed, scores: pl.DataFrame) -> tuple[pl.DataFrame, Float32Array]:
    """Return training studies, if enough, and those of val and test, with scores and thresholds; and their embeddings."""
    settings, train = workspace.audit.fairness, probed.inside("train")
    studies = probed.studies.select("study_id", "patient_id", "split", "y_true")
    rest = studies.filter(pl.Series(~train)).join(
        scores.select("study_id", "y_score", "threshold"), on="study_id", how="left", maintain_order="left"
    )
    y, patient = probed.y_true[train], probed.patient[train]
    if metric_status(y, patient, settings)["auroc"] != "tested":
        return rest, rows_of(probed.x, ~train)
    seed = seed_of(settings.seed, f"{probed.key['task']}/cross_fitted")
    score = cross_fitted(rows_of(probed.x, train), y, patient - 1, c=probed.c, seed=seed)
    threshold = choose_threshold(y, score, settings, where=probed.key["task"])
    first = studies.filter(pl.Series(train)).with_columns(y_score=pl.Series(score), threshold=pl.lit(threshold))
    return pl.concat([first, rest]), probed.x


def _metadata(workspace: Workspace, ids: pl.Series) -> Levels:
    """Return attributes, covariates and facts of acquisition with few levels, in the order of the studies."""
    audit, warehouse = workspace.audit, workspace.warehouse
    studies = workspace.audited_studies()
    names = [*dict.fromkeys((*audit.attributes, *audit.covariates))]
    if warehouse.version(ACQUISITION) is not None:
        facts = [f"{ACQUISITION}.{name}" for name in (*ACQUISITION_TEXTS, *ACQUISITION_NUMBERS)]
        further = [name for name in facts if name not in names]
        facts_of = warehouse.read(ACQUISITION)
        at_least = audit.fairness.suppress_under
        studies = with_acquisition(studies, facts_of, further, audit.acquisition, at_least=at_least)
        names += further
    rows = pl.DataFrame({"study_id": ids}).join(
        studies.select("study_id", *names), on="study_id", how="left", maintain_order="left"
    )
    return {
        name: rows.get_column(name).to_numpy().astype(str)
        for name in names
        if rows.get_column(name).n_unique() in range(2, _MOST_LEVELS + 1)
    }


def _codes(workspace: Workspace, ids: pl.Series, task: str) -> Levels:
    """Return the most frequent codes of the medical record before the task's cutoff, each with the levels `yes` and `no`."""
    warehouse = workspace.warehouse
    cutoff = cutoff_of(task, workspace.audit.ehr.day_before)
    rows = warehouse.read("ehr_rows").filter(pl.col("study_id").is_in(ids.implode()), cutoff=cutoff)
    vocabulary = warehouse.read("ehr_vocabulary").select("code_id", "code")
    has = warehouse.read("ehr_features").select("row", "code_id").join(rows.select("row", "study_id"), on="row")
    kept = has.get_column("code_id").value_counts().sort("count", "code_id", descending=[True, False]).head(_MOST_CODES)
    named = has.join(kept, on="code_id").join(vocabulary, on="code_id")
    place = {study: at for at, study in enumerate(ids)}
    levels: Levels = {}
    for (code,), of_code in named.sort("code").group_by("code", maintain_order=True):
        column = np.full(len(ids), "no", dtype="<U3")
        column[[place[study] for study in of_code.get_column("study_id")]] = "yes"
        levels[f"{RECORD}.{code}"] = column
    return levels

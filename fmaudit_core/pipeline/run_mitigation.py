"""Mitigation and demographic probing of one audit on disk: what the steps of the platform call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import polars as pl

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.common.vocabulary import family_task
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.mitigation.capacity import capacity, interactions, ladder, widths
from fmaudit_core.mitigation.dataset import Embedded, embedded
from fmaudit_core.mitigation.demographics import demographic_probes
from fmaudit_core.mitigation.errors import MitigationError
from fmaudit_core.mitigation.evaluate import evaluate
from fmaudit_core.mitigation.fit import Mitigated, baselines, mitigate
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.probes.selection import Embeddings, choose_and_predict, fit_probes
from fmaudit_core.storage.warehouse import Cell
from fmaudit_core.tables.mitigation import MITIGATION_LADDER

#: strategies of the ladder: one that changes the weights, one the embedding in closed form, one that trains an encoder
_ON_THE_LADDER: Final = ("reweighting", "leace", "adversarial")


@dataclass(frozen=True)
class CellTables:
    """What one encoder and task give."""

    mitigation_results: pl.DataFrame
    mitigation_subgroups: pl.DataFrame


@dataclass(frozen=True)
class CapacityTables:
    """What encoders give together, and one along its ladder."""

    mitigation_capacity: pl.DataFrame
    mitigation_interactions: pl.DataFrame
    mitigation_ladder: pl.DataFrame


def embedded_studies(workspace: Workspace, encoder: str) -> Embedded:
    """Return the studies of one encoder in its primary pooling."""
    audit, warehouse = workspace.audit, workspace.warehouse
    return embedded(
        workspace.embeddings(encoder)[workspace.primary_pooling(encoder)],
        workspace.capped(workspace.audited_studies()),
        warehouse.read("labels"),
        tasks=audit.tasks,
        attributes=audit.attributes,
    )


def mitigate_encoder(workspace: Workspace, encoder: str, *, progress: Progress = silent) -> Mitigated:
    """Fit and score every strategy of one encoder, for all tasks."""
    fits = workspace.warehouse.read("probe_fits", Cell(encoder))
    cohort = embedded_studies(workspace, encoder)
    return _mitigated(workspace, cohort, fits, encoder, workspace.audit.tasks, progress=progress)


def probe_demographics(workspace: Workspace, encoder: str) -> pl.DataFrame:
    """How well every attribute is read off one encoder's embeddings."""
    audit = workspace.audit
    return demographic_probes(
        embedded_studies(workspace, encoder),
        encoder=encoder,
        c_grid=audit.probes.c_grid,
        shuffles=audit.mitigation.control_shuffles,
        settings=audit.fairness,
        device=workspace.training_device(),
    )


def evaluate_cell(workspace: Workspace, cell: Cell, *, progress: Progress = silent) -> CellTables:
    """Hold the strategies of one encoder and task against the probe as it was."""
    audit, warehouse = workspace.audit, workspace.warehouse
    of_encoder = Cell(cell.encoder)
    scores = warehouse.read("mitigation_scores", of_encoder).filter(pl.col("task") == cell.task)
    runs = warehouse.read("mitigation_runs", of_encoder).filter(pl.col("task") == cell.task)
    found = evaluate(
        _with_attributes(workspace, scores), runs, audit.attributes, audit.fairness,
        n_bootstrap=audit.mitigation.n_bootstrap, progress=progress,
    )  # fmt: skip
    return CellTables(found.results, found.subgroups)


def compare_capacity(
    workspace: Workspace,
    cells: Sequence[Cell],
    encoders: Mapping[str, EncoderSpec],
    *,
    progress: Progress = silent,
) -> CapacityTables:
    """Reductions against separability over all encoders, encoders in pairs, and the ladder of one.

    Parameters
    ----------
    cells : cells with published results
    encoders : the registry
    progress : called with the number of finished rungs of the ladder
    """
    audit, warehouse = workspace.audit, workspace.warehouse
    names = sorted({cell.encoder for cell in cells})
    probes = warehouse.read_cells("demographic_probes", [Cell(name) for name in names])
    scores = {}
    for name in names:
        tasks = [cell.task for cell in cells if cell.encoder == name]
        test = warehouse.read("mitigation_scores", Cell(name)).filter(
            (pl.col("split") == "test") & pl.col("task").is_in(tasks)
        )
        runs = warehouse.read("mitigation_runs", Cell(name)).filter("chosen")
        keys = ["task", "strategy", "target_attribute", "alpha", "seed"]
        scores[name] = _with_attributes(workspace, test.join(runs, on=keys, how="semi", nulls_equal=True))
    return CapacityTables(
        capacity(warehouse.read_cells("mitigation_results", cells), probes),
        interactions(scores, audit.attributes, audit.fairness, n_bootstrap=audit.mitigation.n_bootstrap),
        _ladder(workspace, ladder_encoder(workspace, names, encoders), progress),
    )


def ladder_encoder(workspace: Workspace, names: Sequence[str], encoders: Mapping[str, EncoderSpec]) -> str | None:
    """Return the encoder of the ladder: the configured one, else the widest that is not a control; None if there is none.

    Raises
    ------
    MitigationError
        The configured one is none of the registry.
    """
    settings = workspace.audit.mitigation
    if not settings.ladder_from:
        return None
    if settings.ladder_encoder is not None:
        if settings.ladder_encoder not in encoders:
            raise MitigationError(
                f"`mitigation: ladder_encoder` names {settings.ladder_encoder!r}, which is none of the registered encoders.",
                fix=f"Name one of {', '.join(sorted(encoders))}, or leave it out for the widest.",
            )
        return settings.ladder_encoder if settings.ladder_encoder in names else None
    able = [name for name in names if not encoders[name].control and encoders[name].dim > settings.ladder_from]
    return max(able, key=lambda name: (encoders[name].dim, name), default=None)


def _ladder(workspace: Workspace, encoder: str | None, progress: Progress) -> pl.DataFrame:
    """Evaluate the family's task at every width: separability of each attribute, and the reduction by three strategies."""
    if encoder is None:
        return MITIGATION_LADDER.frame()
    audit = workspace.audit
    task = family_task(audit.tasks)
    strategies = tuple(one for one in audit.mitigation.strategies if one in _ON_THE_LADDER)
    whole, pooling = embedded_studies(workspace, encoder), workspace.primary_pooling(encoder)
    rungs: list[pl.DataFrame] = []
    studies, labels = workspace.probed_studies(), workspace.warehouse.read("labels")
    built = ladder(whole.x, narrowest=audit.mitigation.ladder_from, seed=audit.fairness.seed)
    n_rungs = len(widths(whole.x.shape[1], audit.mitigation.ladder_from))
    for width, x in built:
        progress(len(rungs), n_rungs)
        cohort = replace(whole, x=x)
        embeddings: Embeddings = {pooling: (cohort.studies.get_column("study_id").to_list(), x)}
        fits = fit_probes(embeddings, studies, labels, encoder=encoder, tasks=[task], c_grid=audit.probes.c_grid)
        found = _mitigated(workspace, cohort, fits, encoder, [task], strategies=strategies)
        results = evaluate(
            _with_attributes(workspace, found.scores), found.runs, audit.attributes, audit.fairness,
            n_bootstrap=audit.mitigation.n_bootstrap,
        ).results  # fmt: skip
        probes = demographic_probes(
            cohort,
            encoder=encoder,
            c_grid=audit.probes.c_grid,
            shuffles=1,
            settings=audit.fairness,
            probes=("logistic",),
        ).select("attribute", "balanced_auroc", balanced_auroc_low="ci_low", balanced_auroc_high="ci_high")
        own = results.filter((pl.col("attribute") == pl.col("target_attribute")) & pl.col("seed").is_null())
        rungs.append(own.join(probes, on="attribute", how="left").with_columns(width=pl.lit(width, dtype=pl.Int64)))
    progress(n_rungs, n_rungs)
    return pl.concat(rungs).select(*MITIGATION_LADDER.schema).sort("strategy", "attribute", "alpha", "width")


def _mitigated(
    workspace: Workspace,
    cohort: Embedded,
    fits: pl.DataFrame,
    encoder: str,
    tasks: Sequence[str],
    strategies: tuple[str, ...] | None = None,
    progress: Progress = silent,
) -> Mitigated:
    audit, warehouse = workspace.audit, workspace.warehouse
    pooling = workspace.primary_pooling(encoder)
    embeddings: Embeddings = {pooling: (cohort.studies.get_column("study_id").to_list(), cohort.x)}
    studies, labels = workspace.probed_studies(), warehouse.read("labels")
    predictions = {}
    validated = [task for task in tasks if cohort.validated(task)]
    for task in validated:
        found = choose_and_predict(fits, embeddings, studies, labels, encoder=encoder, task=task)
        predictions[task] = (found.scores, float(found.trail.filter("chosen").get_column("c").item()))
    settings = audit.mitigation
    if strategies is not None:
        settings = settings.model_copy(update={"strategies": strategies, "reprobed_seeds": 0})
    return mitigate(
        cohort,
        baselines(predictions, cohort),
        encoder=encoder,
        mitigation=settings,
        fairness=audit.fairness,
        unvalidated=[task for task in tasks if task not in validated],
        device=workspace.training_device(),
        progress=progress,
    )


def _with_attributes(workspace: Workspace, scores: pl.DataFrame) -> pl.DataFrame:
    attributes = workspace.audited_studies().select("study_id", *workspace.audit.attributes)
    return scores.join(attributes, on="study_id", how="left", maintain_order="left")

"""What must hold of each asset. A failed blocking check stops what is downstream in its run."""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import cast

import dagster as dg
import polars as pl
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from fmaudit_core.cohort.schema import validate_labels, validate_studies
from fmaudit_core.common.errors import FmauditError
from fmaudit_core.common.vocabulary import DIAGNOSIS_TASK
from fmaudit_core.ehr.cutoffs import check_past
from fmaudit_core.encoders.embeddings_reader import check_embeddings
from fmaudit_core.fairness.reaudit import worsenings
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.empty_cells import why_empty
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.steps import step_of, step_of_asset
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.probes.primary_score_set import of_primary_score_set
from fmaudit_core.storage.warehouse import WHOLE, Cell
from fmaudit_dagster.execution.run_history import latest_materialization
from fmaudit_dagster.partitions import PARTITIONS, cells_of, partition_key
from fmaudit_dagster.resources import AuditWorkspace

#: whether one cell of an asset is as it must be
_Examine = Callable[[Workspace, Cell], dg.AssetCheckResult]


def check_of_cells(asset: str, examine: _Examine) -> dg.AssetChecksDefinition:
    """Make a blocking check of the partitions of an asset; a run of a range has one result for each."""
    step, name = step_of_asset(asset), examine.__name__

    def check(
        context: dg.AssetCheckExecutionContext, audit: AuditWorkspace
    ) -> Iterator[dg.AssetCheckResult | dg.AssetCheckEvaluation | dg.Output[None]]:
        workspace = audit.open()
        look = snapshot_of(workspace)
        for cell in cells_of(context):
            why = why_empty(look, step, cell)
            result = examine(workspace, cell) if why is None else _empty(why)
            yield result if context.has_partition_key else _evaluation(context, asset, name, cell, result)
        if context.has_partition_key_range:
            yield dg.Output(None)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # its interface may change; the version is pinned
        return dg.asset_check(
            asset=asset,
            name=name,
            description=inspect.cleandoc(examine.__doc__ or ""),
            blocking=True,
            partitions_def=PARTITIONS[step.by],
        )(cast("Callable[..., dg.AssetCheckResult]", check))  # which may also be yielded, as in a range


def _evaluation(
    context: dg.AssetCheckExecutionContext, asset: str, name: str, cell: Cell, result: dg.AssetCheckResult
) -> dg.AssetCheckEvaluation:
    """Return the result of a check for one partition of a range, and what was checked."""
    made = latest_materialization(context.instance, asset, cell)
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset),
        check_name=name,
        passed=result.passed,
        metadata=result.metadata,
        target_materialization_data=made
        and AssetCheckEvaluationTargetMaterializationData(
            storage_id=made.storage_id, run_id=made.run_id, timestamp=made.timestamp
        ),
        severity=result.severity,
        description=result.description,
        blocking=True,
        partition=str(partition_key(cell)),
    )


@dg.asset_check(asset="studies", blocking=True)
def no_patient_in_two_splits(audit: AuditWorkspace) -> dg.AssetCheckResult:
    """Every rule of the study table holds of what was published; above all, a patient is in one split."""
    studies = audit.open().warehouse.read("studies")
    problem = _broken(lambda: validate_studies(studies, where="studies"))
    patients = studies.get_column("patient_id").n_unique()
    return dg.AssetCheckResult(passed=problem is None, description=problem, metadata={"patients": patients})


@dg.asset_check(asset="labels", blocking=True)
def one_label_per_study_and_task(audit: AuditWorkspace) -> dg.AssetCheckResult:
    """No study has two labels for one task."""
    labels = audit.open().warehouse.read("labels")
    problem = _broken(lambda: validate_labels(labels, where="labels"))
    known = labels.drop_nulls("label").height
    return dg.AssetCheckResult(passed=problem is None, description=problem, metadata={"known labels": known})


@dg.asset_check(asset="ct_slices")
def most_series_are_readable(audit: AuditWorkspace) -> dg.AssetCheckResult:
    """Fewer than one study in twenty is without a usable series."""
    workspace = audit.open()
    if (why := why_empty(snapshot_of(workspace), step_of("ct_slices"), WHOLE)) is not None:
        return _empty(why)
    quality = workspace.warehouse.read("slice_quality")
    usable = quality.group_by("study_id").agg(pl.col("used").any()).get_column("used")
    share = 1.0 - float(usable.sum()) / len(usable)
    return dg.AssetCheckResult(
        passed=share < 0.05, severity=dg.AssetCheckSeverity.WARN, metadata={"share of studies lost": share}
    )


def embeddings_are_finite_and_whole(workspace: Workspace, cell: Cell) -> dg.AssetCheckResult:
    """Every usable study has a finite vector of the spec's dimension in every pooling, or is listed among the failed."""
    spec = workspace.registry.spec(cell.encoder)
    path, usable = workspace.warehouse.embeddings_path(cell.encoder), workspace.usable_studies(spec)
    problem = _broken(functools.partial(check_embeddings, path, dim=spec.dim, studies=usable))
    return dg.AssetCheckResult(passed=problem is None, description=problem)


@dg.asset_check(asset="ehr_features", blocking=True)
def features_are_of_the_past(audit: AuditWorkspace) -> dg.AssetCheckResult:
    """No feature of the medical record counts an event at or after the cutoff of its study."""
    workspace = audit.open()
    if (why := why_empty(snapshot_of(workspace), step_of("ehr_features"), WHOLE)) is not None:
        return _empty(why)
    rows, studies = workspace.warehouse.read("ehr_rows"), workspace.warehouse.read("studies")
    problem = _broken(lambda: check_past(rows, studies, workspace.audit.ehr.cutoff))
    return dg.AssetCheckResult(passed=problem is None, description=problem, metadata={"rows": rows.height})


def every_known_label_is_scored(workspace: Workspace, cell: Cell) -> dg.AssetCheckResult:
    """Scores are finite, and every embedded study of val and test with a known label has one per score set."""
    lacking = queries.unscored(workspace, cell)
    return dg.AssetCheckResult(passed=not lacking, metadata={"studies without a score": lacking})


@dg.asset_check(asset="audit_findings")
def encoders_beat_the_control(audit: AuditWorkspace) -> dg.AssetCheckResult:
    """On the diagnosis, every encoder's test AUROC lies above the control's: one that does not helps nobody."""
    workspace = audit.open()
    specs = workspace.registry.specs()
    cells = [cell for cell in snapshot_of(workspace).audited_cells() if cell.task == DIAGNOSIS_TASK]
    metrics = workspace.warehouse.read_cells("subgroup_metrics", cells) if cells else pl.DataFrame()
    if metrics.is_empty():
        return dg.AssetCheckResult(passed=True, description="The audit has no diagnosis task.")
    overall = of_primary_score_set(
        metrics.filter((pl.col("attribute") == "overall") & (pl.col("metric") == "auroc")),
        workspace.audit.fairness.primary_pooling,
    )
    # on a pilot's few positives there is no estimate to compare
    auroc = dict(overall.drop_nulls("value").select("encoder", "value").iter_rows())
    bar = max((value for name, value in auroc.items() if specs[name].control), default=None)
    below = [name for name, value in auroc.items() if bar is not None and not specs[name].control and value <= bar]
    return dg.AssetCheckResult(
        passed=not below,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Not above the control: {', '.join(below)}." if below else None,
        metadata={name: float(value) for name, value in auroc.items()},
    )


@dg.asset_check(asset="audit_findings")
def every_encoder_is_audited(audit: AuditWorkspace) -> dg.AssetCheckResult:
    """Every registered encoder has findings for every task; one that failed is named, with what it lacks."""
    workspace = audit.open()
    absent = snapshot_of(workspace).unaudited()
    lacking = absent.group_by("encoder", maintain_order=True).agg("lacks", n=pl.len())
    problem_texts = [f"{name} lacks {lacks[0]} for {n} task(s)" for name, lacks, n in lacking.iter_rows()]
    problems = workspace.registry.problems()
    problem_texts += [f"{file} is not a usable spec" for file in problems]
    return dg.AssetCheckResult(
        passed=not problem_texts,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(problem_texts) or None,
        metadata=problems,
    )


@dg.asset_check(asset="audit_findings")
def no_subgroup_got_worse(audit: AuditWorkspace) -> dg.AssetCheckResult:
    """No subgroup fares worse than in the audit before by more than the margin, beyond chance: the gate of a re-audit."""
    workspace = audit.open()
    changes = workspace.warehouse.read("audit_changes")
    worse = worsenings(changes)
    severity = {"warn": dg.AssetCheckSeverity.WARN, "error": dg.AssetCheckSeverity.ERROR}
    return dg.AssetCheckResult(
        passed=not worse,
        severity=severity[workspace.audit.reaudit.severity],
        description=" ".join(worse) or None,
        metadata={"compared": changes.filter(pl.col("status") == "tested").height, "got worse": len(worse)},
    )


def _empty(why: str) -> dg.AssetCheckResult:
    """Return the result of a check of what has nothing to make."""
    return dg.AssetCheckResult(passed=True, description=f"Nothing to check: {why}")


def _broken(validate: Callable[[], object]) -> str | None:
    """Return the message of a failed core validation, None if it passes."""
    try:
        validate()
    except FmauditError as error:
        return str(error)
    return None


CHECKS = [
    no_patient_in_two_splits,
    one_label_per_study_and_task,
    most_series_are_readable,
    features_are_of_the_past,
    check_of_cells("study_embeddings", embeddings_are_finite_and_whole),
    check_of_cells("probe_predictions", every_known_label_is_scored),
    encoders_beat_the_control,
    every_encoder_is_audited,
    no_subgroup_got_worse,
]

"""Probes on the medical record, and on record and CT together. For CT alone see `selection.py`.

Early fusion is one logistic regression on the embedding and the record's columns concatenated, each block with half of the
variance. Late fusion is one logistic regression on the log odds of the two logistic probes, fitted on validation, as in the
INSPECT evaluator. Its C is large enough that the penalty has no effect unless validation is separable, in which case an
unpenalised fit would not converge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import logit

from fmaudit_core.config import EhrSection
from fmaudit_core.ehr.cutoffs import cutoff_of
from fmaudit_core.ehr.design_matrix import Design
from fmaudit_core.probes.boosting import fit_boosted
from fmaudit_core.probes.errors import OneClassError, ProbeError
from fmaudit_core.probes.logistic import fit_logistic
from fmaudit_core.probes.selection import Predictions, aligned, auroc, choose_and_predict, fit_probes

Float32Array = npt.NDArray[np.float32]

EHR: Final = "ehr"
BOTH: Final = "ct+ehr"
BOOSTING: Final = "gbm"
LATE: Final = "late_fusion"
#: the record is not pooled
NO_POOLING: Final = "none"
_UNPENALISED: Final = 1e4
_SCORE: Final = (
    "task",
    "probe",
    "modality",
    "pooling",
    "strategy",
    "study_id",
    "patient_id",
    "split",
    "y_true",
    "y_score",
)


@dataclass(frozen=True)
class Fitted:
    """Scores of the record and fusion probes, and how they were chosen.

    Parameters
    ----------
    scores : frame of the columns of `probe_predictions` without threshold
    trail : frame of `task, probe, modality, pooling`, `c` or `leaves`, `val_auroc, chosen`
    coefficients : frame of `task, code, kind, coefficient`, of the chosen logistic probe on the record, for standardised columns;
        empty for fusions
    not_fitted : task -> reason, of tasks with one class only among the studies used
    """

    scores: pl.DataFrame
    trail: pl.DataFrame
    coefficients: pl.DataFrame
    not_fitted: Mapping[str, str]


def fit_record(
    designs: Mapping[str, Design],
    studies: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    tasks: Sequence[str],
    c_grid: Sequence[float],
    settings: EhrSection,
) -> Fitted:
    """Fit logistic regression and boosted trees on the record alone, for every task.

    Parameters
    ----------
    designs : cutoff -> Design
        Each task uses the design of its own cutoff.

    Raises
    ------
    OneClassError
        Every task has one class only among the studies with a time, in train or in validation.
    """
    fitted, not_fitted = list[Fitted](), dict[str, str]()
    for cutoff, of_cutoff in _by_cutoff(tasks, settings).items():
        design = designs[cutoff]
        vectors, gaps = {NO_POOLING: (design.ids, design.filled())}, design.with_gaps()
        try:
            fits = fit_probes(vectors, studies, labels, encoder="", tasks=of_cutoff, c_grid=c_grid)
        except OneClassError as error:
            not_fitted |= dict.fromkeys(of_cutoff, str(error))
            continue
        for task in of_cutoff:
            try:
                found = choose_and_predict(fits, vectors, studies, labels, encoder="", task=task, modality=EHR)
                boosted, trail = _boosted(design, gaps, studies, labels, task, settings)
            except OneClassError as error:
                not_fitted[task] = str(error)
                continue
            weights = _coefficients(fits, found, design, vectors[NO_POOLING][1], studies, task)
            fitted.append(
                _of_task([found.scores.select(_SCORE), boosted], [found.trail.drop("encoder"), trail], weights)
            )
    return _together(fitted, not_fitted)


def fit_fusions(
    design_of: Mapping[str, Design],
    embeddings: tuple[Sequence[str], Float32Array],
    ct: Mapping[str, Predictions],
    ehr: pl.DataFrame,
    studies: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    pooling: str,
    c_grid: Sequence[float],
    settings: EhrSection,
) -> Fitted:
    """Fit early and late fusion of one encoder's embedding with the record, for every task of `ct`.

    Parameters
    ----------
    embeddings : study ids and (studies, d) float32, of one pooling
    ct : task -> scores of the logistic probe on that pooling
    ehr : frame
        Scores of `fit_record`.
    pooling : str
        Its name, recorded with the fusions.
    """
    fitted, not_fitted = list[Fitted](), dict[str, str]()
    for cutoff, tasks in _by_cutoff(list(ct), settings).items():
        vectors = {pooling: _side_by_side(embeddings, design_of[cutoff])}
        balanced = _balanced(embeddings[1].shape[1], design_of[cutoff].matrix.shape[1])
        try:
            fits = fit_probes(vectors, studies, labels, encoder="", tasks=tasks, c_grid=c_grid, emphasis=balanced)
        except OneClassError as error:
            not_fitted |= dict.fromkeys(tasks, str(error))
            continue
        for task in tasks:
            try:
                early = choose_and_predict(fits, vectors, studies, labels, encoder="", task=task, modality=BOTH)
                late, trail = _late(ct[task].scores.filter(pooling=pooling), ehr.filter(task=task), task)
            except OneClassError as error:
                not_fitted[task] = str(error)
                continue
            trails = [early.trail.drop("encoder"), trail]
            fitted.append(_of_task([early.scores.select(_SCORE), late], trails, _NO_COEFFICIENTS))
    return _together(fitted, not_fitted)


def _of_task(scores: Sequence[pl.DataFrame], trails: Sequence[pl.DataFrame], coefficients: pl.DataFrame) -> Fitted:
    return Fitted(pl.concat(scores), pl.concat(trails, how="diagonal"), coefficients, {})


def _together(fitted: Sequence[Fitted], not_fitted: Mapping[str, str]) -> Fitted:
    if not fitted:
        raise OneClassError(" ".join(dict.fromkeys(not_fitted.values())))
    return Fitted(
        pl.concat([one.scores for one in fitted]),
        pl.concat([one.trail for one in fitted], how="diagonal"),
        pl.concat([one.coefficients for one in fitted]),
        not_fitted,
    )


_NO_COEFFICIENTS: Final = pl.DataFrame(
    schema={"task": pl.String, "code": pl.String, "kind": pl.String, "coefficient": pl.Float64}
)


def _by_cutoff(tasks: Sequence[str], settings: EhrSection) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for task in tasks:
        groups.setdefault(cutoff_of(task, settings.day_before), []).append(task)
    return groups


def _coefficients(
    fits: pl.DataFrame, found: Predictions, design: Design, filled: Float32Array, studies: pl.DataFrame, task: str
) -> pl.DataFrame:
    """Return the chosen probe's coefficients, per standard deviation of each column among training studies."""
    c = found.trail.filter("chosen").get_column("c").item()
    raw = fits.filter(task=task, c=c).get_column("coefficients").to_list()[0]
    train = aligned(design.ids, studies.filter(split="train")).get_column("at").to_numpy()
    spread = filled[train].std(axis=0, dtype=np.float64)
    return design.columns.select(
        task=pl.lit(task), code="code", kind="kind", coefficient=pl.Series(np.asarray(raw) * spread)
    )


def _boosted(
    design: Design,
    x: Float32Array,
    studies: pl.DataFrame,
    labels: pl.DataFrame,
    task: str,
    settings: EhrSection,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    known = studies.join(labels.filter((pl.col("task") == task) & pl.col("label").is_not_null()), on="study_id")
    rows = aligned(design.ids, known)
    of = {split: rows.filter(split=split) for split in ("train", "val")}
    arrays = {
        split: (x[one.get_column("at").to_numpy()], one.get_column("label").to_numpy()) for split, one in of.items()
    }
    evaluated = rows.filter(pl.col("split") != "train")
    tried = fit_boosted(
        arrays["train"], arrays["val"], x[evaluated.get_column("at").to_numpy()],
        leaves=settings.leaves, max_trees=settings.max_trees, task=task,
    )  # fmt: skip
    # with too few studies for a single split all scores are equal: not a model, and the trail records that none was chosen
    able = [one for one in tried if np.ptp(one.scores) > 0]
    best = max(able, key=lambda one: (one.val_auroc, -one.leaves), default=None)
    named = {"task": task, "probe": BOOSTING, "modality": EHR, "pooling": NO_POOLING}
    trail = pl.DataFrame(
        [
            named | {"leaves": one.leaves, "trees": one.trees, "val_auroc": one.val_auroc, "chosen": one is best}
            for one in tried
        ]
    )
    if best is None:
        return _scored(evaluated.clear(), named, np.empty(0)), trail
    return _scored(evaluated, named, best.scores), trail


def _scored(rows: pl.DataFrame, named: Mapping[str, str], scores: npt.NDArray[np.float64]) -> pl.DataFrame:
    return rows.select(
        *(pl.lit(value).alias(name) for name, value in named.items()),
        pl.lit("none").alias("strategy"),
        "study_id",
        "patient_id",
        "split",
        y_true="label" if "label" in rows.columns else "y_true",
        y_score=pl.Series(scores),
    ).select(_SCORE)


def _side_by_side(embeddings: tuple[Sequence[str], Float32Array], design: Design) -> tuple[list[str], Float32Array]:
    """Return the ids and the concatenated embedding and record of the studies that have both."""
    ids, matrix = embeddings
    ours = pl.DataFrame({"study_id": ids, "at": np.arange(len(ids))})
    both = pl.DataFrame({"study_id": design.ids, "of_record": np.arange(len(design.ids))}).join(ours, on="study_id")
    both = both.sort("study_id")
    if both.is_empty():
        raise ProbeError("no study has both an embedding and a time, which is the cutoff of its medical record.")
    filled = design.filled()[both.get_column("of_record").to_numpy()]
    x = np.concatenate([matrix[both.get_column("at").to_numpy()], filled], axis=1, dtype=np.float32)
    return both.get_column("study_id").to_list(), x


def _balanced(n_ct: int, n_ehr: int) -> npt.NDArray[np.float64]:
    """Return the factors, (n_ct + n_ehr,), that give both blocks of features half of the variance whatever their widths.

    Otherwise, under one penalty, a thousand dimensions of an embedding would outweigh eighty columns of a record.
    """
    half = (n_ct + n_ehr) / 2
    emphasis: npt.NDArray[np.float64] = np.sqrt(np.repeat([half / n_ct, half / n_ehr], [n_ct, n_ehr]))
    return emphasis


def _late(ct: pl.DataFrame, ehr: pl.DataFrame, task: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the scores of late fusion, and its row of the trail with the AUROC on the validation it was fitted on."""
    record = ehr.filter((pl.col("probe") == "logistic") & (pl.col("modality") == EHR)).select(
        "study_id", record="y_score"
    )
    both = ct.join(record, on="study_id").sort("study_id")
    in_val = (both.get_column("split") == "val").to_numpy()
    y = both.get_column("y_true").to_numpy()
    if y[in_val].all() or not y[in_val].any():
        raise OneClassError(
            f"late fusion cannot be fitted for {task}: validation has only one class among the studies with both "
            "modalities."
        )
    odds = np.stack([_log_odds(both.get_column(name)) for name in ("y_score", "record")], axis=1).astype(np.float32)
    fit = fit_logistic(odds[in_val], {task: y[in_val].astype(np.float64)}, c_grid=(_UNPENALISED,))
    scores = fit.score(odds, task, _UNPENALISED)
    named = {"task": task, "probe": LATE, "modality": BOTH, "pooling": str(both.get_column("pooling")[0])}
    trail = pl.DataFrame([named | {"val_auroc": auroc(y[in_val], scores[in_val], task), "chosen": True}])
    return _scored(both, named, scores), trail


def _log_odds(scores: pl.Series) -> npt.NDArray[np.float64]:
    edge = np.finfo(np.float64).eps
    odds: npt.NDArray[np.float64] = logit(np.clip(scores.to_numpy(), edge, 1 - edge))
    return odds

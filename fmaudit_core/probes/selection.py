"""Choice of C on validation alone, predictions on val and test, and a record of how C was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import expit

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.probes.errors import OneClassError
from fmaudit_core.probes.logistic import fit_logistic, logits
from fmaudit_core.probes.primary_score_set import PRIMARY_MODALITY, PRIMARY_PROBE
from fmaudit_core.probes.training import ranked_auroc

Float32Array = npt.NDArray[np.float32]
_ONE_CLASS_FIX = "See slice_quality for why studies were quarantined, or leave the task out."
#: pooling -> (study ids, (studies, d) embeddings)
Embeddings = Mapping[str, tuple[Sequence[str], Float32Array]]


@dataclass(frozen=True)
class Predictions:
    """Scores of one encoder for one task.

    Parameters
    ----------
    scores : frame
        A row per score set and study with a known label in val or test; the threshold is chosen in `fairness`.
    trail : frame
        Every C tried, its validation AUROC, and whether it was chosen.
    n_unscored : int
        Studies of val and test with a known label but no embedding.
    """

    scores: pl.DataFrame
    trail: pl.DataFrame
    n_unscored: int


def fit_probes(
    embeddings: Embeddings,
    studies: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    encoder: str,
    tasks: Sequence[str],
    c_grid: Sequence[float],
    emphasis: npt.NDArray[np.float64] | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """Fit the logistic probes of an encoder for every pooling, task and C.

    Parameters
    ----------
    emphasis : (d,) float, optional
        See `fit_logistic`.

    Returns
    -------
    frame, one row per pooling, task and C
        Columns `encoder, pooling, strategy, task, c, n_train, iterations, intercept, coefficients`, the last two for raw
        embeddings. A task whose known training labels are of one class in some pooling has no rows.

    Raises
    ------
    OneClassError
        No task can be fitted on the studies that have an embedding.
    ProbeError
        An embedding is not finite.
    """
    rows = []
    train = studies.filter(pl.col("split") == "train")
    training = {pooling: aligned(ids, train) for pooling, (ids, _) in embeddings.items()}
    targets = {
        pooling: {task: target_of(of_pooling, labels, task) for task in tasks}
        for pooling, of_pooling in training.items()
    }
    fittable = [task for task in tasks if all(_has_both_classes(of_pooling[task]) for of_pooling in targets.values())]
    if not fittable:
        raise _one_class_in_training(tasks, encoder)
    for done, (pooling, (_, matrix)) in enumerate(embeddings.items()):
        progress(done, len(embeddings))
        fits = fit_logistic(
            matrix[training[pooling].get_column("at").to_numpy()],
            {task: targets[pooling][task] for task in fittable},
            c_grid=c_grid,
            emphasis=emphasis,
        )
        rows += [
            {
                "encoder": encoder,
                "pooling": pooling,
                "strategy": strategy,
                "task": task,
                "c": c,
                "n_train": int(fits.n_train[t]),
                "iterations": int(fits.iterations[t, w, i]),
                "intercept": float(fits.intercepts[t, w, i]),
                "coefficients": fits.coefficients[t, w, i],
            }
            for t, task in enumerate(fits.tasks)
            for w, strategy in enumerate(fits.strategies)
            for i, c in enumerate(fits.c_grid)
        ]
    progress(len(embeddings), len(embeddings))
    return pl.DataFrame(rows, schema_overrides={"coefficients": pl.List(pl.Float64)})


def choose_and_predict(
    fits: pl.DataFrame,
    embeddings: Embeddings,
    studies: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    encoder: str,
    task: str,
    modality: str = PRIMARY_MODALITY,
) -> Predictions:
    """Choose C by validation AUROC (the smaller in a tie, which is smoother) and score val and test.

    Parameters
    ----------
    modality : str
        Modality of the embeddings, recorded in the scores.

    Raises
    ------
    OneClassError
        The task has no fit, since training holds one class only among the studies that have an embedding, or validation holds
        one class only.
    ProbeError
        An embedding is not finite.
    """
    if fits.filter(task=task).is_empty():
        raise _one_class_in_training([task], encoder)
    scores, trail, unscored = [], [], 0
    for pooling, (ids, matrix) in embeddings.items():
        audited = studies.filter(pl.col("split") != "train")
        known = audited.join(
            labels.filter((pl.col("task") == task) & pl.col("label").is_not_null()), on="study_id"
        ).sort("study_id")
        rows = aligned(ids, known)
        unscored = max(unscored, known.height - rows.height)
        x = matrix[rows.get_column("at").to_numpy()]
        in_val = (rows.get_column("split") == "val").to_numpy()
        y = rows.get_column("label").to_numpy()
        columns = fits.filter((pl.col("pooling") == pooling) & (pl.col("task") == task)).sort("c")
        w = np.stack(columns.get_column("coefficients").to_list())
        scored = expit(logits(x, w, columns.get_column("intercept").to_numpy()))
        aurocs = [auroc(y[in_val], scored[in_val, i], task, encoder) for i in range(len(w))]
        best = int(np.argmax(aurocs))
        named = {
            "encoder": encoder,
            "task": task,
            "probe": PRIMARY_PROBE,
            "modality": modality,
            "pooling": pooling,
        }
        scores.append(
            rows.select(
                *(pl.lit(value).alias(name) for name, value in named.items()),
                pl.lit("none").alias("strategy"),
                "study_id",
                "patient_id",
                "split",
                y_true="label",
                y_score=pl.Series(scored[:, best]),
            )
        )
        chosen = [i == best for i in range(len(w))]
        trail.append(
            pl.DataFrame({"c": columns.get_column("c"), "val_auroc": aurocs, "chosen": chosen}).select(
                *(pl.lit(value).alias(name) for name, value in named.items()), "c", "val_auroc", "chosen"
            )
        )
    return Predictions(pl.concat(scores), pl.concat(trail), unscored)


def _one_class_in_training(tasks: Sequence[str], encoder: str) -> OneClassError:
    what = (
        f"no probe can be fitted for {', '.join(tasks)}: the known training labels have only one class among the "
        "studies used."
    )
    return OneClassError(what, where=encoder or None, fix=_ONE_CLASS_FIX)


def _has_both_classes(target: npt.NDArray[np.float64]) -> bool:
    return bool((target == 0).any() and (target == 1).any())


def aligned(ids: Sequence[str], studies: pl.DataFrame) -> pl.DataFrame:
    """Return the studies that have an embedding, with its row as `at`, sorted by study."""
    rows = pl.DataFrame({"study_id": ids, "at": np.arange(len(ids))})
    return studies.join(rows, on="study_id").sort("study_id")


def target_of(studies: pl.DataFrame, labels: pl.DataFrame, task: str) -> npt.NDArray[np.float64]:
    """Return the labels in the order of `studies`, (n,): 0, 1, NaN if unknown."""
    of_task = labels.filter(pl.col("task") == task).select("study_id", "label")
    joined = studies.select("study_id").join(of_task, on="study_id", how="left", maintain_order="left")
    return joined.get_column("label").cast(pl.Float64).fill_null(np.nan).to_numpy()


def auroc(y: npt.NDArray[np.bool_], score: npt.NDArray[np.float64], task: str, encoder: str | None = None) -> float:
    """Return the share of correctly ranked positive-negative pairs, ties counted half; `fairness` computes it with intervals."""
    if y.all() or not y.any():
        raise OneClassError(
            f"validation has only one class for {task} among the studies with an embedding, so no C can be chosen.",
            where=encoder,
            fix=_ONE_CLASS_FIX,
        )
    return ranked_auroc(y, score)

"""The studies of one encoder as arrays: embeddings, splits, labels of every task, and subgroups of every attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.vocabulary import UNKNOWN

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: code of a study whose subgroup is not recorded, or too small to be targeted
UNTARGETED = -1


@dataclass(frozen=True)
class Levels:
    """Subgroups of one attribute.

    Parameters
    ----------
    names : the g subgroups, sorted, without the level of studies whose value is not recorded
    code : (n,) int, index in `names`, -1 if not recorded
    """

    names: tuple[str, ...]
    code: IntArray


@dataclass(frozen=True)
class Embedded:
    """Studies that have an embedding, sorted by study.

    Parameters
    ----------
    studies : frame of n rows: `study_id, patient_id, split` and the attributes
    x : (n, d) float32, raw embeddings
    patient : (n,) int, patient code
    targets : task -> (n,) float64: 0, 1, NaN if censored or unknown
    levels : attribute -> subgroups
    """

    studies: pl.DataFrame
    x: Float32Array
    patient: IntArray
    targets: Mapping[str, Float64Array]
    levels: Mapping[str, Levels]

    def of(self, *splits: str) -> BoolArray:
        """Return whether each study is in one of the splits, (n,)."""
        return self.studies.get_column("split").is_in(splits).to_numpy()

    def known(self, task: str) -> BoolArray:
        """Return whether each study's label of a task is known, (n,)."""
        return ~np.isnan(self.targets[task])

    def validated(self, task: str) -> bool:
        """Return whether validation has positives and negatives of a task, so that thresholds can be chosen."""
        known = self.targets[task][self.of("val") & self.known(task)]
        return len(np.unique(known)) == 2


def embedded(
    embeddings: tuple[Sequence[str], Float32Array],
    studies: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    tasks: Sequence[str],
    attributes: Sequence[str],
) -> Embedded:
    """Join embeddings of one pooling to the study and label tables.

    Parameters
    ----------
    embeddings : study ids and (studies, d) float32
    studies, labels : the cohort's tables
    """
    ids, matrix = embeddings
    at = pl.DataFrame({"study_id": ids, "at": np.arange(len(ids))})
    frame = studies.select("study_id", "patient_id", "split", *attributes).join(at, on="study_id").sort("study_id")
    targets = {}
    for task in tasks:
        known = labels.filter(pl.col("task") == task).select("study_id", "label")
        joined = frame.select("study_id").join(known, on="study_id", how="left", maintain_order="left")
        targets[task] = joined.get_column("label").cast(pl.Float64).fill_null(np.nan).to_numpy()
    return Embedded(
        studies=frame.drop("at"),
        x=matrix[frame.get_column("at").to_numpy()],
        patient=frame.get_column("patient_id").rank("dense").cast(pl.Int64).to_numpy() - 1,
        targets=targets,
        levels={attribute: levels_of(frame.get_column(attribute)) for attribute in attributes},
    )


def levels_of(column: pl.Series) -> Levels:
    """Return the subgroups of a column of names; nulls and unrecorded values get -1."""
    recorded = column.fill_null(UNKNOWN)
    names = tuple(sorted(set(recorded.to_list()) - {UNKNOWN}))
    code = recorded.replace_strict({name: i for i, name in enumerate(names)}, default=UNTARGETED, return_dtype=pl.Int64)
    return Levels(names, code.to_numpy())


def targeted(levels: Levels, y: Float64Array, inside: BoolArray, least: int) -> IntArray:
    """Return the subgroups that a strategy can target: those with enough positives and negatives among its training studies.

    Parameters
    ----------
    y : (n,) float64: 0, 1, NaN
    inside : (n,) bool, the training studies of the strategy
    least : int
        Minimum number of positives and of negatives of a subgroup.

    Returns
    -------
    (n,) int, 0..k-1 over the subgroups that can be targeted, -1 elsewhere
    """
    out = np.full(len(levels.code), UNTARGETED, dtype=np.int64)
    place = 0
    for g in range(len(levels.names)):
        of_group = levels.code == g
        if min(np.sum(of_group & inside & (y == outcome)) for outcome in (0.0, 1.0)) >= least:
            out[of_group] = place
            place += 1
    return out

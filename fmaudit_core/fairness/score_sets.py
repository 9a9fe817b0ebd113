"""Score sets of checked predictions: their arrays, and groups of score sets on the same studies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.vocabulary import OVERALL, SCORE_SET
from fmaudit_core.fairness.auroc import Auroc, auroc
from fmaudit_core.fairness.rates import Rate, rate

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Studies:
    """Studies of one score set, as arrays in order of study.

    Parameters
    ----------
    threshold : float, the operating threshold; NaN if the score set has none
    threshold_source : str, ``given`` or ``validation``; None if the score set has no threshold, or its source is not recorded
    """

    y_true: BoolArray
    y_score: Float64Array
    patient: npt.NDArray[np.int64]
    threshold: float
    threshold_source: str | None = None

    @property
    def has_threshold(self) -> bool:
        """Return whether there is a threshold. Without one, only AUROC is reported."""
        return not math.isnan(self.threshold)

    @cached_property
    def ranked(self) -> Auroc:
        """Return AUROC."""
        return auroc(self.y_true, self.y_score, self.patient)

    @cached_property
    def missed(self) -> Rate:
        """Return the share of positives below the threshold (UDR)."""
        return rate(self.y_score[self.y_true] < self.threshold, self.patient[self.y_true])

    @cached_property
    def alarmed(self) -> Rate:
        """Return the share of negatives at or above the threshold (FPR)."""
        return rate(self.y_score[~self.y_true] >= self.threshold, self.patient[~self.y_true])

    def only(self, inside: BoolArray) -> Studies:
        """Return the studies selected by `inside`, (n,) bool."""
        return replace(self, y_true=self.y_true[inside], y_score=self.y_score[inside], patient=self.patient[inside])


def studies_of(frame: pl.DataFrame) -> Studies:
    """Return the rows of a score set as arrays."""
    threshold = frame.get_column("threshold").head(1).drop_nulls()
    source = frame.get_column("threshold_source")[0] if "threshold_source" in frame.columns and frame.height else None
    return Studies(
        y_true=frame.get_column("y_true").to_numpy(),
        y_score=frame.get_column("y_score").to_numpy(),
        patient=frame.get_column("patient_id").rank("dense").cast(pl.Int64).to_numpy(),
        threshold=float(threshold[0]) if len(threshold) else float("nan"),
        threshold_source=source,
    )


@dataclass(frozen=True)
class ScoreSet:
    """Rows of one score set, with arrays that are read once and cached.

    Parameters
    ----------
    frame : checked predictions with `threshold`
    """

    frame: pl.DataFrame
    _codes: dict[str, tuple[list[str], npt.NDArray[np.uint32]]] = field(default_factory=dict, repr=False, compare=False)
    _by_level: dict[str, dict[str, Studies]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def studies(self) -> Studies:
        """Return all studies."""
        return studies_of(self.frame)

    def levels(self, attribute: str) -> list[str]:
        """Return the subgroups of an attribute by name, sorted."""
        return self.codes(attribute)[0]

    def codes(self, attribute: str) -> tuple[list[str], npt.NDArray[np.uint32]]:
        """Return the sorted subgroups of an attribute, and the index of each study's subgroup: (n,) uint32."""
        if attribute not in self._codes:
            if attribute == OVERALL:
                self._codes[attribute] = ["all"], np.zeros(self.frame.height, dtype=np.uint32)
            else:
                column = self.frame.get_column(attribute)
                names = sorted(column.unique().to_list())
                place = column.replace_strict(names, list(range(len(names))), return_dtype=pl.UInt32)
                self._codes[attribute] = names, place.to_numpy()
        return self._codes[attribute]

    def by_level(self, attribute: str) -> dict[str, Studies]:
        """Return the studies of every subgroup of an attribute, each with what was estimated of it. Patients keep their codes."""
        if attribute not in self._by_level:
            names, place = self.codes(attribute)
            self._by_level[attribute] = {
                level: self.studies if attribute == OVERALL else self.studies.only(place == at)
                for at, level in enumerate(names)
            }
        return self._by_level[attribute]


#: score sets by their key, in the order of `SCORE_SET`
ScoreSets = dict[tuple[Any, ...], ScoreSet]


def named(key: tuple[Any, ...]) -> dict[str, Any]:
    """Return the key of a score set as columns of a table row."""
    return dict(zip(SCORE_SET, key, strict=True))


def by_studies(test: pl.DataFrame) -> Iterator[ScoreSets]:
    """Yield groups of score sets of one task on identical studies. They share their permutations."""
    alike: dict[tuple[Any, ...], ScoreSets] = {}
    for key, frame in test.group_by(*SCORE_SET, maintain_order=True):
        task = key[SCORE_SET.index("task")]
        studies = frame.select("study_id", "y_true").hash_rows().to_numpy().tobytes()
        alike.setdefault((task, studies), {})[key] = ScoreSet(frame)
    yield from alike.values()

"""Record of the runs of one encoder: scores, thresholds chosen on validation, and how each run was fitted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.auroc import structural_components
from fmaudit_core.fairness.small_groups import status_of
from fmaudit_core.fairness.thresholds import choose_threshold
from fmaudit_core.mitigation.dataset import Embedded
from fmaudit_core.mitigation.runs import NONE
from fmaudit_core.tables.mitigation import MITIGATION_RUNS, MITIGATION_SCORES

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """The identity of a run, and its settings."""

    task: str
    strategy: str
    target_attribute: str
    alpha: float | None = None
    seed: int | None = None
    c: float | None = None
    epochs: int | None = None


@dataclass
class Recorder:
    """Collects the runs of one encoder, in order of arrival.

    Parameters
    ----------
    cohort : Embedded
    encoder : str
    settings : FairnessSection
        The threshold policy, and the minimum size of validation subgroups.
    """

    cohort: Embedded
    encoder: str
    settings: FairnessSection
    _scores: list[pl.DataFrame] = field(default_factory=list)
    _runs: list[dict[str, Any]] = field(default_factory=list)

    def score(
        self, run: Run, score: Float64Array, *, threshold: Float64Array | None = None, status: str = "fitted"
    ) -> dict[str, Any]:
        """Record a run's scores of val and test; return its row of the runs, which may be extended.

        Parameters
        ----------
        score : (n,) float64 of the embedded studies; values of training studies are ignored
        threshold : (n,) float64, optional
            Threshold of each study; by default chosen on validation by the policy.
        """
        known = self.cohort.known(run.task)
        y = self.cohort.targets[run.task] == 1
        val = known & self.cohort.of("val")
        if threshold is None:
            where = f"{self.encoder} x {run.task}"
            threshold = np.full(len(score), choose_threshold(y[val], score[val], self.settings, where=where))
        kept = known & ~self.cohort.of("train")
        row = self._row(run, status) | {
            "val_auroc": float(structural_components(y[val], score[val])[y[val]].mean()),
            "val_worst_udr": self._worst(run, score < threshold),
        }
        named = {name: row[name] for name in ("encoder", "task", "strategy", "target_attribute", "alpha", "seed")}
        studies = self.cohort.studies.filter(pl.Series(kept)).select("study_id", "patient_id", "split")
        self._scores.append(
            studies.with_columns(
                *(pl.lit(value, dtype=MITIGATION_SCORES.schema[name]).alias(name) for name, value in named.items()),
                y_true=pl.Series(y[kept]),
                y_score=pl.Series(score[kept]),
                threshold=pl.Series(threshold[kept]),
            ).select(*MITIGATION_SCORES.schema)
        )
        self._runs.append(row)
        return row

    def refuse(self, run: Run, reason: str, status: str = "not_fitted") -> dict[str, Any]:
        """Record that a run has no scores, with the reason; return its row of the runs."""
        row = self._row(run, status) | {"reason": reason, "chosen": False}
        self._runs.append(row)
        return row

    def row_of(self, task: str, strategy: str = NONE) -> dict[str, Any]:
        """Return the first row of a strategy for a task; by default of the unmitigated probe."""
        return next(row for row in self._runs if (row["task"], row["strategy"]) == (task, strategy))

    def scores(self) -> pl.DataFrame:
        """`MITIGATION_SCORES`."""
        return pl.concat([MITIGATION_SCORES.frame(), *self._scores])

    def runs(self) -> pl.DataFrame:
        """`MITIGATION_RUNS`."""
        return MITIGATION_RUNS.frame(self._runs)

    def _row(self, run: Run, status: str) -> dict[str, Any]:
        return asdict(run) | {"encoder": self.encoder, "status": status, "chosen": True}

    def _worst(self, run: Run, missed: npt.NDArray[np.bool_]) -> float | None:
        """Return the highest validation UDR among the target's subgroups with enough patients; None if there are none."""
        if run.target_attribute not in self.cohort.levels:
            return None
        levels, y = self.cohort.levels[run.target_attribute], self.cohort.targets[run.task]
        val, found = self.cohort.of("val"), []
        for g, name in enumerate(levels.names):
            inside = val & (levels.code == g)
            positives, known = inside & (y == 1), inside & ((y == 1) | (y == 0))
            rule = status_of(y[known] == 1, self.cohort.patient[known], self.settings, name)
            if rule in ("tested", "interval_only"):
                found.append(float(missed[positives].mean()))
        return max(found, default=None)

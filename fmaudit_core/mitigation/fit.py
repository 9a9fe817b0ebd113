"""Fitting of every strategy of one encoder, for every attribute and task, with thresholds chosen again for each run.

Strategies are fitted on train and choose on validation; test is scored but never used here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import expit

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.config import FairnessSection, MitigationSection
from fmaudit_core.mitigation.adversarial_runs import adversarial_runs
from fmaudit_core.mitigation.attribute_leakage import Representation, reprobed
from fmaudit_core.mitigation.dataset import Embedded, IntArray, targeted
from fmaudit_core.mitigation.group_thresholds import equal_opportunity
from fmaudit_core.mitigation.last_layer import DRO_TOLERANCE, balanced_subsets, group_dro
from fmaudit_core.mitigation.leace import Covariance
from fmaudit_core.mitigation.linear_heads import LinearHeads
from fmaudit_core.mitigation.recorder import Recorder, Run
from fmaudit_core.mitigation.reweighting import resampling, reweighing
from fmaudit_core.mitigation.runs import NONE

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

_UNVALIDATED: Final = "validation has one class only among the studies with an embedding, so no threshold can be chosen"
_TOO_SMALL: Final = "fewer than two subgroups have {least} positives and negatives in {split}"


@dataclass(frozen=True)
class Baseline:
    """The unmitigated probe of one task.

    Parameters
    ----------
    c : its inverse regularisation strength, used by every strategy's head, so that nothing else differs
    score : (n,) float64 in the order of the embedded studies, NaN in train and for unknown labels
    """

    c: float
    score: Float64Array


@dataclass(frozen=True)
class Mitigated:
    """Result tables of one encoder.

    Parameters
    ----------
    scores : `MITIGATION_SCORES`: val and test of every run
    runs : `MITIGATION_RUNS`: how each run was fitted, which alpha was chosen, what could not be fitted and why
    leakage : `MITIGATION_LEAKAGE`: how well fresh probes read the attribute before and after
    """

    scores: pl.DataFrame
    runs: pl.DataFrame
    leakage: pl.DataFrame


def baselines(predictions: Mapping[str, tuple[pl.DataFrame, float]], cohort: Embedded) -> dict[str, Baseline]:
    """Return the unmitigated probes, aligned to the embedded studies.

    Parameters
    ----------
    predictions : task -> (frame with `study_id, y_score`, the chosen C)
    """
    ids = cohort.studies.select("study_id")
    out = {}
    for task, (scores, c) in predictions.items():
        joined = ids.join(scores.select("study_id", "y_score"), on="study_id", how="left", maintain_order="left")
        out[task] = Baseline(c, joined.get_column("y_score").fill_null(np.nan).to_numpy())
    return out


def mitigate(
    cohort: Embedded,
    probes: Mapping[str, Baseline],
    *,
    encoder: str,
    mitigation: MitigationSection,
    fairness: FairnessSection,
    unvalidated: Sequence[str] = (),
    device: str = "cpu",
    progress: Progress = silent,
) -> Mitigated:
    """Fit and score every configured strategy.

    Parameters
    ----------
    cohort : Embedded
    probes : task -> the unmitigated probe; the strategies use its C
    unvalidated : tasks without a probe, because validation has one class only; their runs are recorded as not fitted
    device : "cpu" or "cuda", for the networks
    progress : receives the finished batches of the adversarial networks, which take most of the time

    Raises
    ------
    MitigationError, FairnessError
        A head does not converge, or validation lacks a class of a task.
    """
    recorder = Recorder(cohort, encoder, fairness)
    for task, probe in probes.items():
        recorder.score(Run(task, NONE, NONE, c=probe.c), probe.score)
    for task, strategy, attribute in itertools.product(unvalidated, mitigation.strategies, cohort.levels):
        recorder.refuse(Run(task, strategy, attribute), _UNVALIDATED)
    work = _Work(cohort, probes, mitigation, fairness, recorder)
    wanted: set[str] = set(mitigation.strategies) if probes else set()
    if wanted & {"reweighting", "resampling", "dfr"}:
        work.weighted(wanted)
    if "group_dro" in wanted:
        work.worst_group()
    if "group_thresholds" in wanted:
        work.thresholds()
    if "leace" in wanted:
        work.erased()
    if "adversarial" in wanted:
        found = adversarial_runs(cohort, recorder, mitigation, fairness, work.aims, device, progress)
        work.representations += found
    read = work.representations if mitigation.reprobed_seeds else []
    leakage = reprobed(cohort, read, encoder=encoder, fairness=fairness, device=device)
    return Mitigated(recorder.scores(), recorder.runs(), leakage)


@dataclass
class _Work:
    """Fits the deterministic strategies and resampling: heads on the original or the erased embeddings."""

    cohort: Embedded
    probes: Mapping[str, Baseline]
    mitigation: MitigationSection
    fairness: FairnessSection
    recorder: Recorder
    representations: list[Representation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.train = self.cohort.of("train")
        self.heads = LinearHeads(self.cohort.x[self.train])
        #: (task, attribute) -> (n,) subgroups that training can target
        self.aims: dict[tuple[str, str], IntArray] = {
            (task, attribute): targeted(levels, self.cohort.targets[task], self.train, self.fairness.suppress_under)
            for task in self.probes
            for attribute, levels in self.cohort.levels.items()
        }

    def aimed(self, strategy: str) -> Iterator[tuple[str, str, IntArray]]:
        """Yield the tasks and attributes that a strategy can target, with the subgroups; others are recorded as not fitted."""
        for (task, attribute), group in self.aims.items():
            if group.max() < 1:
                reason = _TOO_SMALL.format(least=self.fairness.suppress_under, split="train")
                self.recorder.refuse(Run(task, strategy, attribute), reason)
            else:
                yield task, attribute, group

    def weighted(self, wanted: set[str]) -> None:
        """Fit reweighting, resampling and DFR: weight vectors are columns of one problem."""
        runs: list[tuple[Run, list[Float64Array]]] = []
        for strategy in ("reweighting", "resampling", "dfr"):
            if strategy not in wanted:
                continue
            for task, attribute, group in self.aimed(strategy):
                y, g, c = self.cohort.targets[task][self.train], group[self.train], self.probes[task].c
                if strategy == "reweighting":
                    runs.append((Run(task, strategy, attribute, c=c), [reweighing(y, g)]))
                elif strategy == "dfr":
                    subsets = balanced_subsets(y, g, self.fairness.seed)
                    runs.append((Run(task, strategy, attribute, c=c), list(subsets.T)))
                else:
                    for seed in range(self.mitigation.seeds):
                        weights = [resampling(y, g, self.fairness.seed + seed)]
                        runs.append((Run(task, strategy, attribute, seed=seed, c=c), weights))
        if not runs:
            return
        columns = [(run, weight) for run, weights in runs for weight in weights]
        y = np.stack([np.nan_to_num(self.cohort.targets[run.task][self.train]) for run, _ in columns], axis=1)
        weight = np.stack([one for _, one in columns], axis=1)
        coefficients, intercepts = self.heads.fit(y, weight, np.array([run.c for run, _ in columns], dtype=np.float64))
        start = 0
        for run, weights in runs:
            some = slice(start, start + len(weights))
            self._score(run, self.cohort.x, coefficients[some].mean(axis=0), float(intercepts[some].mean()))
            start += len(weights)

    def worst_group(self) -> None:
        """Fit GroupDRO for every task and attribute together."""
        aimed = list(self.aimed("group_dro"))
        if not aimed:
            return
        y = np.stack([self.cohort.targets[task][self.train] for task, _, _ in aimed], axis=1)
        group = np.stack([group[self.train] for _, _, group in aimed], axis=1)
        c = np.array([self.probes[task].c for task, _, _ in aimed])
        found = group_dro(self.heads, self.cohort.x[self.train], y, group, c)
        for (task, attribute, _), w, b, short in zip(aimed, *found, strict=True):
            run = Run(task, "group_dro", attribute, c=self.probes[task].c)
            row = self._score(run, self.cohort.x, w, float(b))
            if short > DRO_TOLERANCE:
                row["reason"] = f"ended with the worst loss up to {short:.3f} nats above the least possible"

    def erased(self) -> None:
        """Apply LEACE per attribute, then fit the probe again on the erased embeddings."""
        covariance = Covariance(self.cohort.x[self.train])
        tasks = list(self.probes)
        c = np.array([self.probes[task].c for task in tasks])
        for attribute, levels in self.cohort.levels.items():
            if len(np.unique(levels.code[self.train & (levels.code >= 0)])) < 2:
                for task in tasks:
                    self.recorder.refuse(Run(task, "leace", attribute), "train has fewer than two recorded subgroups")
                continue
            x = covariance.eraser(levels.code[self.train])(self.cohort.x)
            y = np.stack([self.cohort.targets[task][self.train] for task in tasks], axis=1)
            heads = LinearHeads(x[self.train])
            coefficients, intercepts = heads.fit(np.nan_to_num(y), (~np.isnan(y)).astype(np.float64), c)
            for j, task in enumerate(tasks):
                run = Run(task, "leace", attribute, c=self.probes[task].c)
                self._score(run, x, coefficients[j], float(intercepts[j]))
            held_out = ~self.train
            for stage, features in (("before", self.cohort.x[held_out]), ("after", x[held_out])):
                self.representations.append(Representation("leace", attribute, "", None, None, stage, features))

    def thresholds(self) -> None:
        """Choose group-specific thresholds on the probe's own scores, for subgroups with enough validation patients."""
        least = self.fairness.suppress_under
        val = self.cohort.of("val")
        for task, probe in self.probes.items():
            seen = val & self.cohort.known(task)
            y = self.cohort.targets[task]
            for attribute, levels in self.cohort.levels.items():
                group = targeted(levels, y, seen, least)
                run = Run(task, "group_thresholds", attribute, c=probe.c)
                if group.max() < 1:
                    self.recorder.refuse(run, _TOO_SMALL.format(least=least, split="val"))
                    continue
                chosen = equal_opportunity(y[seen] == 1, probe.score[seen], group[seen], self.fairness)
                each = np.array([chosen[int(g)] for g in group])
                self.recorder.score(run, probe.score, threshold=each)

    def _score(self, run: Run, x: Float32Array, w: Float64Array, b: float) -> dict[str, Any]:
        return self.recorder.score(run, expit(x @ w + b))

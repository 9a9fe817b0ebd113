"""The neural probes of one encoder: perceptrons on study embeddings, attention and recurrence over slices.

Every network is trained from several seeds, and a study's score is the mean of their probabilities. A single seed is arbitrary;
selecting the best seed on a small validation set is optimistically biased; and a mean of log odds could be dominated by one
overconfident network. The results of single seeds are recorded as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import expit

from fmaudit_core.common.errors import needs_extra
from fmaudit_core.common.progress import Counted, Progress, silent
from fmaudit_core.config import NetworksSection
from fmaudit_core.encoders.pooling import OF_SLICES
from fmaudit_core.probes.primary_score_set import PRIMARY_MODALITY
from fmaudit_core.probes.selection import aligned, target_of
from fmaudit_core.probes.slice_store import SliceBags
from fmaudit_core.probes.training import Schedule, Trained, aurocs_of, ranked_auroc, trainable
from fmaudit_core.tables.probes import EQUAL_ATTENTION, NEURAL_FITS, PROBE_SEEDS

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
#: (studies, training studies) -> their slices, available within the context
OpenBags = Callable[[Sequence[str], Sequence[str]], AbstractContextManager[SliceBags]]

#: log odds with a smaller range do not rank studies
_FLAT: Final = 1e-6
#: batch size, learning rate, and minimum number of steps of patience
_STEPS: Final = {"mlp": (256, 1e-3, 0), "abmil": (32, 3e-3, 100), "lrcn": (64, 1e-3, 100)}

#: the `shape` of attention with equal slice weights: the start of its training and its reference for comparison
EQUAL: Final = "equal weights"

NAMED: Final = ("encoder", "task", "probe", "modality", "pooling")


@dataclass(frozen=True)
class NetworkFits:
    """Results of the neural probes of one encoder.

    Parameters
    ----------
    scores : frame of `NEURAL_FITS`
        A row per probe, task and study of val and test with a known label.
    seeds : frame of `PROBE_SEEDS`
        A row per network: `status` is ``fitted``, ``collapsed`` (it ranks nobody, and is left out of the mean) or ``one_class``
        (training or validation lacks a class, so none was trained); `chosen` those whose mean is the score.
    equal : frame of `EQUAL_ATTENTION`
        Scores of attention with equal weights: what is left of its gain over the logistic probe on the mean is not attention's.
    """

    scores: pl.DataFrame
    seeds: pl.DataFrame
    equal: pl.DataFrame


@dataclass
class _Cohort:
    """Studies of one encoder, sorted by study, with their labels."""

    studies: pl.DataFrame
    y: Float64Array
    tasks: list[str]
    train: IntArray = field(init=False)
    val: IntArray = field(init=False)
    test: IntArray = field(init=False)

    def __post_init__(self) -> None:
        split = self.studies.get_column("split").to_numpy()
        self.train, self.val, self.test = (np.flatnonzero(split == name) for name in ("train", "val", "test"))

    @property
    def scored(self) -> IntArray:
        return np.concatenate([self.val, self.test])


def fit_networks(
    embeddings: tuple[Sequence[str], Float32Array],
    studies: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    encoder: str,
    kinds: Sequence[str],
    pooling: str,
    tasks: Sequence[str],
    settings: NetworksSection,
    seed: int,
    open_bags: OpenBags | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> NetworkFits:
    """Train every network of one encoder for every task, and score validation and test.

    Parameters
    ----------
    embeddings : study ids and (studies, d) float32
        Input of the perceptrons.
    kinds : sequence of str
        Any of ``mlp``, ``abmil`` and ``lrcn``; the last two need `open_bags`.
    pooling : str
        The pooling of `embeddings`.
    seed : int
        The first seed.
    progress : receives the number of finished trainings, one for each shape and seed of a kind

    Raises
    ------
    ProbeError
        No study of a split has an embedding, or a slice embedding is not finite.
    MissingExtraError
        torch is not installed.
    """
    ids, matrix = embeddings
    frame = aligned(ids, studies)
    y = np.stack([target_of(frame, labels, task) for task in tasks], axis=1)
    cohort = _Cohort(frame, y, list(tasks))
    able = trainable(y[cohort.train], y[cohort.val])
    # perceptrons come first, whatever the requested order
    requested = [kind for kind in kinds if kind not in OF_SLICES]
    requested += [kind for kind in kinds if kind in OF_SLICES and open_bags is not None]
    runs: dict[str, list[_Run]] = {}
    if requested and able.any():
        seeds = [seed + k for k in range(settings.seeds)]
        trainings = sum(len(settings.shapes) if kind == "mlp" else 1 for kind in requested) * len(seeds)
        training = _Training(cohort, able, settings, seeds, device, Counted(progress, trainings))
        runs = training.runs(requested, matrix, open_bags)
    recorder = _Recorder(encoder, cohort, able)
    for kind in requested:
        recorder.take(kind, OF_SLICES.get(kind, pooling), runs.get(kind, []))
    return recorder.fits()


#: shape, seed (None if nothing is random), and the result for the trainable tasks
_Run = tuple[str, int | None, Trained]


@dataclass(frozen=True)
class _Training:
    """Common settings for training every network of one encoder.

    Parameters
    ----------
    able : (t,) bool
        Tasks that can be trained; at least one.
    """

    cohort: _Cohort
    able: npt.NDArray[np.bool_]
    settings: NetworksSection
    seeds: list[int]
    device: str
    counted: Counted

    def runs(self, kinds: Sequence[str], matrix: Float32Array, open_bags: OpenBags | None) -> dict[str, list[_Run]]:
        """Return the results of the networks of each kind."""
        with needs_extra("encoders", f"the probe {kinds[0]}"):
            import torch  # noqa: F401  # a missing torch is reported before any slice is read
        runs = {"mlp": self._perceptrons(matrix)} if "mlp" in kinds else {}
        of_slices = [kind for kind in kinds if kind in OF_SLICES]
        if of_slices and open_bags is not None:
            names = self.cohort.studies.get_column("study_id").to_list()
            with open_bags(names, [names[row] for row in self.cohort.train]) as bags:
                place = {study: at for at, study in enumerate(bags.study_ids)}
                at = np.array([place[study] for study in names], dtype=np.int64)
                runs |= {kind: self._over_slices(kind, bags, at) for kind in of_slices}
        return runs

    def _schedule(self, kind: str) -> Schedule:
        return Schedule(self.settings.epochs, self.settings.patience, *_STEPS[kind])

    def _labels(self, rows: IntArray) -> Float64Array:
        return self.cohort.y[rows][:, self.able]

    def _perceptrons(self, matrix: Float32Array) -> list[_Run]:
        from fmaudit_core.probes.mlp import Mlp, native_bfloat16, train_mlps

        x, of = matrix[self.cohort.studies.get_column("at").to_numpy()], self.cohort
        runs: list[_Run] = []
        for shape in self.settings.shapes:
            mlp = Mlp(shape, self.settings.dropout, half_precision=native_bfloat16(self.device))
            for seed in self.seeds:
                trained = train_mlps(
                    x[of.train], self._labels(of.train), x[of.val], self._labels(of.val), x[of.scored],
                    mlp=mlp, schedule=self._schedule("mlp"), seed=seed, device=self.device,
                )  # fmt: skip
                runs.append(("-".join(map(str, shape)), seed, trained))
                self.counted.one()
        return runs

    def _over_slices(self, kind: str, bags: SliceBags, at: IntArray) -> list[_Run]:
        from fmaudit_core.probes.attention import Attention, linear_start, train_attention
        from fmaudit_core.probes.recurrent import Recurrent, train_recurrent
        from fmaudit_core.probes.slice_dataset import BaggedCohort

        of, dropout, schedule = self.cohort, self.settings.dropout, self._schedule(kind)
        bagged = BaggedCohort(
            bags, at[of.train], self._labels(of.train), at[of.val], self._labels(of.val), at[of.scored]
        )
        runs: list[_Run] = []
        if kind == "abmil":
            start = linear_start(bagged)
            untrained = _untrained(start.logits(bags, bagged.score), start.logits(bags, bagged.val), bagged.y_val)
            runs.append((EQUAL, None, untrained))
            train = partial(train_attention, start=start, attention=Attention(dropout=dropout))
        else:
            train = partial(train_recurrent, recurrent=Recurrent(dropout=dropout))
        for seed in self.seeds:
            runs.append(("", seed, train(bagged, schedule=schedule, seed=seed, device=self.device)))
            self.counted.one()
        return runs


def _untrained(logits: Float64Array, of_val: Float64Array, y_val: Float64Array) -> Trained:
    """Return the start of the networks as an untrained result with 0 epochs."""
    none = np.zeros(logits.shape[1], dtype=np.int64)
    return Trained(logits, aurocs_of(y_val, of_val), none, none)


@dataclass
class _Recorder:
    """Collects networks: their scores, averaged over the seeds of the shape with the best validation, and a row for each."""

    encoder: str
    cohort: _Cohort
    able: npt.NDArray[np.bool_]
    _scores: list[pl.DataFrame] = field(default_factory=list)
    _equal: list[pl.DataFrame] = field(default_factory=list)
    _seeds: list[dict[str, Any]] = field(default_factory=list)

    def take(self, probe: str, pooling: str, runs: list[_Run]) -> None:
        """Record the runs of one probe."""
        column = {t: k for k, t in enumerate(np.flatnonzero(self.able).tolist())}
        for t, task in enumerate(self.cohort.tasks):
            named = {
                "encoder": self.encoder, "task": task, "probe": probe, "modality": PRIMARY_MODALITY, "pooling": pooling,
            }  # fmt: skip
            n_train = int((~np.isnan(self.cohort.y[:, t][self.cohort.train])).sum())
            if t not in column:
                self._seeds.append(named | {"status": "one_class", "n_train": n_train, "chosen": False})
                continue
            rows = [
                named | {"n_train": n_train} | self._row(shape, seed, one, column[t], t) for shape, seed, one in runs
            ]
            chosen = _chosen(rows)
            for row, is_chosen in zip(rows, chosen, strict=True):
                row["chosen"] = is_chosen
            self._seeds += rows
            self._equal += [
                self._scored(named, expit(one.logits[:, column[t]]), t).select(EQUAL_ATTENTION.schema.names())
                for shape, _, one in runs
                if shape == EQUAL
            ]
            logits = [one.logits[:, column[t]] for (_, _, one), of in zip(runs, chosen, strict=True) if of]
            if logits:
                self._scores.append(self._scored(named, expit(np.stack(logits)).mean(axis=0), t))

    def _row(self, shape: str, seed: int | None, trained: Trained, column: int, t: int) -> dict[str, Any]:
        logits = trained.logits[:, column]
        fitted = bool(np.isfinite(logits).all()) and float(np.ptp(logits)) > _FLAT
        return {
            "shape": shape,
            "seed": seed,
            "status": "fitted" if fitted else "collapsed",
            "epochs": int(trained.epochs[column]),
            "best_epoch": int(trained.best_epoch[column]),
            "val_auroc": float(trained.val_auroc[column]),
            "test_auroc": self._on_test(logits, t) if fitted else None,
        }

    def _on_test(self, logits: Float64Array, t: int) -> float | None:
        y, of_test = self.cohort.y[:, t][self.cohort.test], logits[len(self.cohort.val) :]
        known = ~np.isnan(y)
        both = len(np.unique(y[known])) == 2
        return ranked_auroc(y[known] == 1, of_test[known]) if both else None

    def _scored(self, named: dict[str, str], score: Float64Array, t: int) -> pl.DataFrame:
        y = self.cohort.y[:, t][self.cohort.scored]
        known = np.flatnonzero(~np.isnan(y))
        return self.cohort.studies[self.cohort.scored[known]].select(
            *(pl.lit(value).alias(name) for name, value in named.items()),
            pl.lit("none").alias("strategy"),
            "study_id",
            "patient_id",
            pl.col("split").cast(pl.String),
            y_true=pl.Series(y[known] == 1),
            y_score=pl.Series(score[known]),
        )

    def fits(self) -> NetworkFits:
        """Return all recorded results."""
        scores, equal = (
            pl.concat([pl.DataFrame(schema=schema), *parts]).sort(*NAMED, "study_id")
            for schema, parts in ((NEURAL_FITS.schema, self._scores), (EQUAL_ATTENTION.schema, self._equal))
        )
        return NetworkFits(scores, PROBE_SEEDS.frame(self._seeds), equal)


def _chosen(rows: Sequence[dict[str, Any]]) -> list[bool]:
    """Return, per row, whether it is a fitted seed of the shape with the best mean validation AUROC (the first in a tie)."""
    of_shape: dict[str, list[float]] = {}
    for row in rows:
        if row["status"] == "fitted" and row["shape"] != EQUAL:
            of_shape.setdefault(row["shape"], []).append(row["val_auroc"])
    best = max(of_shape, key=lambda shape: float(np.mean(of_shape[shape])), default=None)
    return [row["status"] == "fitted" and row["shape"] == best for row in rows]

"""Training of networks on frozen embeddings: seeded batches, early stopping with patience, and the best epoch on validation.

The networks are in `mlp.py`, `attention.py` and `recurrent.py`; `neural.py` trains them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import scipy

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Schedule:
    """Length of training and size of its steps.

    Parameters
    ----------
    epochs : int
        Maximum number of epochs.
    patience : int
        Epochs without a better validation AUROC after which a network stops.
    least_steps : int
        Minimum length of patience in steps, and half of the minimum for the maximum length of a training: in a small cohort an
        epoch has few steps.
    batch_size : int
        Studies per step; the batches of an epoch are of equal size to within one study.
    """

    epochs: int = 60
    patience: int = 8
    batch_size: int = 256
    learning_rate: float = 1e-3
    least_steps: int = 0

    def in_epochs(self, steps: int) -> tuple[int, int]:
        """Return the maximum number of epochs and the epochs of patience, given the steps per epoch."""
        least = -(-self.least_steps // steps)
        return max(self.epochs, 2 * least), max(self.patience, least)


@dataclass(frozen=True)
class Trained:
    """Results of the networks of one seed, a column per task.

    Parameters
    ----------
    logits : (n, t) float64, log odds of the studies to be scored, at each network's best epoch
    val_auroc : (t,) float64, at that epoch
    best_epoch, epochs : (t,) int, that epoch and the last one trained, from 1; 0 if no epoch was better than the start
    """

    logits: Float64Array
    val_auroc: Float64Array
    best_epoch: IntArray
    epochs: IntArray


@dataclass
class Stopping:
    """Early stopping of m networks.

    Parameters
    ----------
    members : int
    patience : int
    """

    members: int
    patience: int
    best: Float64Array = field(init=False)
    best_epoch: IntArray = field(init=False)
    epochs: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.best = np.full(self.members, -np.inf)
        self.best_epoch = np.zeros(self.members, dtype=np.int64)
        self.epochs = np.zeros(self.members, dtype=np.int64)

    def see(self, members: IntArray, aurocs: Float64Array, epoch: int) -> tuple[BoolArray, BoolArray]:
        """Record the validation AUROC of some networks after an epoch.

        Returns
        -------
        Whether each of `members` has reached its best AUROC so far, and whether it goes on: two (len(members),) bool
        """
        self.epochs[members] = epoch
        better = aurocs > self.best[members]
        risen = members[better]
        self.best[risen], self.best_epoch[risen] = aurocs[better], epoch
        return better, epoch - self.best_epoch[members] < self.patience


def batches(rng: np.random.Generator, n: int, size: int) -> list[IntArray]:
    """Return one epoch: all n studies in a new order, in batches of equal size."""
    return np.array_split(rng.permutation(n), max(1, -(-n // size)))


def balanced_draw(rng: np.random.Generator, y: Float64Array, known: IntArray, size: int) -> list[IntArray]:
    """Draw one epoch with replacement and balanced classes: as many draws as known labels, both classes equally likely.

    Parameters
    ----------
    y : (n,) float64: 0, 1, NaN
    known : indices of the known labels
    """
    positive = y[known] == 1
    chance = np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum())
    drawn = rng.choice(known, len(known), p=chance)
    return np.array_split(drawn, max(1, -(-len(known) // size)))


def ranked_auroc(y: BoolArray, score: Float64Array) -> float:
    """Return the share of correctly ranked positive-negative pairs, ties counted half; both classes must be present.

    With intervals: `fairness/auroc.py`.
    """
    positive = int(y.sum())
    ranks = scipy.stats.rankdata(score)
    return float((ranks[y].sum() - positive * (positive + 1) / 2) / (positive * (len(y) - positive)))


def aurocs_of(y: Float64Array, logits: Float64Array) -> Float64Array:
    """Return the AUROC of each column over its known labels, (t,).

    Parameters
    ----------
    y : (n, t) float64: 0, 1, NaN
    logits : (n, t) float64; a column that is not finite has AUROC 0.5
    """
    out = np.empty(y.shape[1])
    for t in range(y.shape[1]):
        known = ~np.isnan(y[:, t])
        score = logits[known, t]
        out[t] = ranked_auroc(y[known, t] == 1, score) if np.isfinite(score).all() else 0.5
    return out


def trainable(y_train: Float64Array, y_val: Float64Array) -> BoolArray:
    """Return whether each task has both classes in training and in validation, (t,)."""
    out: BoolArray = np.ones(y_train.shape[1], dtype=bool)
    for y in (y_train, y_val):
        out &= np.any(y == 0.0, axis=0) & np.any(y == 1.0, axis=0)
    return out

"""Gated attention pooling over slices (ABMIL): one network per task; the networks of one seed are trained together.

A slice's weight is the softmax, over its study's slices, of w . (tanh(V h) * sigmoid(U h)). The study's embedding is the weighted
mean of its slices, and its log odds are linear in that mean. With equal weights this is the logistic probe on mean pooling.
Training starts there: a few hundred studies are too few to reach that solution from random weights, and a start that already
knows the direction of the outcome shows from the first step which slices to weigh. The start itself is a candidate, so any gain
that validation prefers over it comes from unequal slice weights.

References
----------
Ilse, Tomczak & Welling 2018, Attention-based Deep Multiple Instance Learning, equation 9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fmaudit_core.probes.mlp_stack import masked_loss
from fmaudit_core.probes.shared_matrix import SharedMatrix
from fmaudit_core.probes.slice_dataset import BLOCK, BaggedCohort, BagStack, train_bags
from fmaudit_core.probes.slice_store import SliceBags
from fmaudit_core.probes.solver import minimise
from fmaudit_core.probes.training import Schedule, Trained, aurocs_of, batches

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: inverse regularisation strengths of the linear start; chosen on validation
_C_GRID: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Attention:
    """Settings of a probe with gated attention.

    Parameters
    ----------
    hidden : width of V and U
    dropout : share of the pooled features that are dropped at a step
    weight_decay : weight decay of AdamW
    """

    hidden: int = 64
    dropout: float = 0.2
    weight_decay: float = 1e-2


@dataclass(frozen=True)
class LinearStart:
    """A logistic probe on the mean of a study's slice components: attention with equal weights.

    Parameters
    ----------
    head, bias : (t, r) and (t,) float64
    """

    head: Float64Array
    bias: Float64Array

    def logits(self, bags: SliceBags, places: IntArray) -> Float64Array:
        """Return the log odds of studies, (n, t)."""
        found: Float64Array = _means(bags, places) @ self.head.T + self.bias
        return found


def linear_start(cohort: BaggedCohort) -> LinearStart:
    """Fit a logistic probe for every task, with C chosen on validation.

    Components keep their variances, unlike features elsewhere, which are standardised: the last components are mostly noise.
    """
    n_train, y_train = len(cohort.train), cohort.y_train
    means = _means(cohort.bags, np.concatenate([cohort.train, cohort.val])).astype(np.float64)
    k, t = len(_C_GRID), y_train.shape[1]
    center = means[:n_train].mean(axis=0)
    solved, _ = minimise(
        SharedMatrix(means[:n_train] - center),
        np.repeat(np.nan_to_num(y_train), k, axis=1),
        np.repeat(~np.isnan(y_train), k, axis=1).astype(np.float64),
        1.0 / np.tile(np.array(_C_GRID), t),
    )
    scores = (means[n_train:] - center) @ solved[:-1] + solved[-1]
    reached = aurocs_of(np.repeat(cohort.y_val, k, axis=1), scores).reshape(t, k)
    best = np.arange(t) * k + np.argmax(reached, axis=1)
    head = solved[:-1, best].T
    return LinearStart(head, solved[-1, best] - head @ center)


class AttentionStack(BagStack):
    """A stack of attention networks that start from the same weights, one per task.

    Parameters
    ----------
    bags : SliceBags
    train : (n,) indices of the training studies in `bags`
    members : number of networks
    seed : seed of the initial weights, which all members share, and of dropout
    """

    def __init__(
        self, bags: SliceBags, train: IntArray, members: int, attention: Attention, seed: int, device: str = "cpu"
    ) -> None:
        super().__init__(bags, train, device)
        self.attention, self.members = attention, members
        self.drops = torch.Generator(device).manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        h, width = attention.hidden, bags.width

        def start(*shape: int, fan_in: int) -> Tensor:
            drawn = (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(fan_in)
            return drawn.expand(members, *shape).clone().to(device).requires_grad_()

        #: layers in the layout of torch.nn.Linear, stacked over the members
        self.v, self.v0 = start(h, width, fan_in=width), start(h, fan_in=width)
        self.u, self.u0 = start(h, width, fan_in=width), start(h, fan_in=width)
        #: 0: all slices have equal weights at the start
        self.w = torch.zeros(members, h, device=device, requires_grad=True)
        self.head, self.bias = start(width, fan_in=width), start(fan_in=width)

    def start_from(self, start: LinearStart) -> None:
        """Set the members' heads to a linear probe on mean pooling."""
        with torch.no_grad():
            self.head.copy_(torch.from_numpy(start.head))
            self.bias.copy_(torch.from_numpy(start.bias))

    def free(self) -> list[Tensor]:
        """Return the parameters, each stacked over the members."""
        return [self.v, self.v0, self.u, self.u0, self.w, self.head, self.bias]

    def state(self) -> list[Tensor]:
        """Return the parameters; there is no other state."""
        return self.free()

    def load(self, state: Sequence[Tensor]) -> None:
        """Load copies of a `state`, of all members or of a subset."""
        self.v, self.v0, self.u, self.u0, self.w, self.head, self.bias = (
            one.detach().clone().requires_grad_() for one in state
        )
        self.members = len(self.w)

    def weights(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the slice weights, (b, m, s): 0 for padding, summing to 1 over a study's slices.

        Parameters
        ----------
        x, mask : (b, s, r) and (b, s) bool
        """
        shape = (*x.shape[:2], self.members, self.attention.hidden)
        hidden = torch.tanh(functional.linear(x, self.v.flatten(0, 1), self.v0.flatten()))
        gate = torch.sigmoid(functional.linear(x, self.u.flatten(0, 1), self.u0.flatten()))
        score = ((hidden * gate).view(shape) * self.w).sum(dim=3).transpose(1, 2)
        return score.masked_fill(~mask[:, None], -torch.inf).softmax(dim=2)

    def logits(self, x: Tensor, mask: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the log odds of studies, (b, m).

        Parameters
        ----------
        kept : (b, r), optional
            0 for a pooled feature that is dropped and 1 / (1 - dropout) for one that is kept; without it, no feature is dropped.
        """
        pooled = torch.bmm(self.weights(x, mask), x)
        if kept is not None:
            pooled = pooled * kept[:, None]
        return (pooled * self.head).sum(dim=2) + self.bias

    def descend(self, rows: IntArray, y: Tensor, known: Tensor) -> None:
        """Compute the gradient of a batch's loss into every parameter's `grad`."""
        for one in self.free():
            one.grad = None
        share = self.attention.dropout
        kept = torch.rand(len(rows), self.bags.width, generator=self.drops, device=self.device) >= share
        logits = self.logits(*self.read(self.train[rows]), kept.float() / (1.0 - share))
        torch.autograd.backward(masked_loss(logits, y, known))


def train_attention(
    cohort: BaggedCohort,
    *,
    start: LinearStart,
    attention: Attention,
    schedule: Schedule,
    seed: int,
    device: str = "cpu",
) -> Trained:
    """Train one network per task from one seed, with early stopping on validation, and score with each network's best epoch.

    Parameters
    ----------
    start : LinearStart
        Initial weights of the heads; see `linear_start`.
    """
    stack = AttentionStack(cohort.bags, cohort.train, cohort.y_train.shape[1], attention, seed, device)
    stack.start_from(start)
    order = np.random.default_rng([seed, 1])
    return train_bags(
        stack, cohort, schedule=schedule, weight_decay=attention.weight_decay, start_counts=True,
        epoch_of=partial(batches, order, len(cohort.train), schedule.batch_size),
    )  # fmt: skip


def _means(bags: SliceBags, places: IntArray) -> npt.NDArray[np.float32]:
    """Return the mean of each study's slices, (n, r)."""
    parts = []
    for start in range(0, len(places), BLOCK):
        x, mask = bags.batch(places[start : start + BLOCK])
        parts.append(x.sum(axis=1) / mask.sum(axis=1, keepdims=True))
    return np.concatenate(parts).astype(np.float32)

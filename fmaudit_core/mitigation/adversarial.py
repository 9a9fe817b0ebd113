"""Adversarial mitigation: many small networks on one matrix of embeddings, trained together.

Each network consists of an encoder with one hidden layer, a head for its task, and an adversary that predicts its attribute from
the hidden layer through a gradient reversal. The networks share one product with the embeddings. Heads and adversaries are
batched products, and one optimiser updates the stacked parameters, so the time is spent on arithmetic instead of many small
steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.mitigation.row_space import RowSpace
from fmaudit_core.probes.training import aurocs_of

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: maximum number of first-layer weights held at once; more networks are trained in several turns
_MAX_WEIGHTS: Final = 40_000_000
#: maximum number of hidden validation activations held at once
_MAX_HIDDEN: Final = 1 << 24
#: gamma of the ramp (Ganin et al. 2016)
_RAMP: Final = 10.0
_WEIGHT_DECAY: Final = 1e-2
#: ratio of the adversary's learning rate to the encoder's (two time scales, Heusel et al. 2017):
#: an adversary that lags behind accepts an encoder in which the attribute is more separable than before
_ADVERSARY_PACE: Final = 10.0
#: the first batch after which validation is scored, and the number of such evaluations
_FIRST_LOOK: Final = 20
_LOOKS: Final = 24


class GradientReversal(torch.autograd.Function):
    """The identity in the forward pass; multiplies the gradient by -coefficient in the backward pass (Ganin & Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficient: Tensor) -> Tensor:
        """Return `x` unchanged; `coefficient` broadcasts against it."""
        ctx.save_for_backward(coefficient)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Multiply the gradient by -coefficient."""
        (coefficient,) = ctx.saved_tensors
        return gradients[0] * -coefficient, None


def ramp(progress: float) -> float:
    """Return the share of alpha applied at a given share of the training: 2 / (1 + exp(-10 p)) - 1."""
    return 2.0 / (1.0 + math.exp(-_RAMP * progress)) - 1.0


@dataclass(frozen=True)
class Training:
    """Training settings of the networks.

    Parameters
    ----------
    hidden : width of the encoder; the adversary's hidden layer has half of it
    epochs, max_steps : int
        Training ends at whichever is reached first: for large cohorts a few passes are enough.
    half_precision : bool
        Compute the product with the embeddings in bfloat16; its sums and everything else stay in float32.
    """

    hidden: int = 64
    epochs: int = 100
    max_steps: int = 1_000
    batch_size: int = 256
    learning_rate: float = 3e-4
    half_precision: bool = False

    def steps(self, n: int) -> int:
        """Return the number of batches of a training on n studies."""
        return min(self.epochs * math.ceil(n / self.batch_size), self.max_steps)

    @property
    def product(self) -> torch.dtype:
        """Return the precision of the product with the embeddings."""
        return torch.bfloat16 if self.half_precision else torch.float32


@dataclass(frozen=True)
class Networks:
    """Trained networks, stacked.

    Parameters
    ----------
    row_space : preprocessing of the embeddings
    w1 : (m, d or r, h) float32
    b1 : (m, h) float32
    head : (m, h) float32
    bias : (m,) float32
    finite : (m,) bool, whether training stayed finite
    """

    row_space: RowSpace
    w1: Float32Array
    b1: Float32Array
    head: Float32Array
    bias: Float32Array
    finite: npt.NDArray[np.bool_]

    def prepared(self, x: Float32Array) -> Float32Array:
        """Return raw embeddings (n, d) as input of the networks."""
        return self.row_space.prepared(x)

    def hidden(self, prepared: Float32Array, network: int) -> Float32Array:
        """Return one network's hidden layer for prepared embeddings, (n, h)."""
        out: Float32Array = np.maximum(prepared @ self.w1[network] + self.b1[network], 0.0)
        return out

    def logits(self, prepared: Float32Array) -> Float32Array:
        """Return the log odds of the positive class under every network, (m, n)."""
        out = np.empty((len(self.w1), len(prepared)), dtype=np.float32)
        for network in range(len(self.w1)):
            out[network] = self.hidden(prepared, network) @ self.head[network] + self.bias[network]
        return out


def train(
    x: Float32Array,
    y: Float64Array,
    group: IntArray,
    *,
    alpha: Sequence[float],
    seed: Sequence[int],
    training: Training,
    device: str = "cpu",
    progress: Progress = silent,
) -> Networks:
    """Train m networks on the same studies.

    Parameters
    ----------
    x : (n, d) float32, raw embeddings
    y : (n, m) float64, each network's labels: 0, 1, NaN if unknown
    group : (n, m) int, each network's subgroups, -1 if none
    alpha, seed : m reversal coefficients and m seeds; the same seed starts from the same weights
    progress : receives the number of finished batches, over all turns

    Notes
    -----
    Both losses are means; the adversary's is a mean over subgroups, so that each has the same weight, however small. Batches are
    the same for all networks. With fewer studies than features, training uses the studies' row space.
    """
    row_space = RowSpace.of(x)
    standard = row_space.prepared(x)
    turns = _turns(y.shape[1], standard.shape[1], training)
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    for turn, some in enumerate(turns):
        stack = _Stack(
            standard, y[:, some], group[:, some], alpha[some], seed[some], training, device, order=min(seed)
        )  # fmt: skip
        stack.fit(partial(_over_turns, progress, turn, len(turns)))
        parts.append(stack.parameters())
    w1, b1, head, bias, finite = (np.concatenate([part[i] for part in parts]) for i in range(5))
    return Networks(row_space, w1, b1, head, bias, finite)


def training_length(
    x: Float32Array,
    y: Float64Array,
    val: Float32Array,
    y_val: Float64Array,
    *,
    seed: Sequence[int],
    training: Training,
    device: str = "cpu",
) -> int:
    """Return the number of batches after which networks without an adversary have the best mean validation AUROC.

    A network on frozen embeddings overfits within a few passes. One length for all keeps the adversary's coefficients comparable,
    and prevents losses due to overlong training from being attributed to the adversary.

    Parameters
    ----------
    x, val : (n, d) float32, raw embeddings
    y, y_val : (n, m) float64
        Each network's labels: 0, 1, NaN if unknown. A network whose validation has one class is ignored.
    """
    able = np.array([len(np.unique(column[~np.isnan(column)])) == 2 for column in y_val.T])
    total = training.steps(len(x))
    if not able.any():
        return total
    looked_at = np.unique(np.geomspace(min(_FIRST_LOOK, total), total, _LOOKS).round().astype(int))
    row_space = RowSpace.of(x)
    standard, nobody = row_space.prepared(x), np.full(y.shape, -1, dtype=np.int64)
    reached: dict[int, list[float]] = {int(done): [] for done in looked_at}
    of_val = torch.from_numpy(row_space.prepared(val)).to(device, training.product)
    for some in _turns(y.shape[1], standard.shape[1], training):
        silenced = [0.0] * len(seed[some])
        stack = _Stack(standard, y[:, some], nobody[:, some], silenced, seed[some], training, device, order=min(seed))
        stack.fit(partial(_look, stack, of_val, y_val[:, some], able[some], reached))
    return max(reached, key=lambda done: (np.mean(reached[done]), -done))


class _Stack:
    """The networks that are trained at once."""

    def __init__(
        self,
        x: Float32Array,
        y: Float64Array,
        group: IntArray,
        alpha: Sequence[float],
        seed: Sequence[int],
        training: Training,
        device: str,
        *,
        order: int | None = None,
    ) -> None:
        self.training, self.m, self.d = training, y.shape[1], x.shape[1]
        self.x = torch.from_numpy(np.ascontiguousarray(x)).to(device, training.product)
        known = ~np.isnan(y)
        self.y = torch.from_numpy(np.nan_to_num(y).T.astype(np.float32)).to(device)
        # each network's sample weights have mean 1 over its studies
        self.weight = torch.from_numpy((known / np.maximum(known.mean(axis=0), 1e-12)).T.astype(np.float32)).to(device)
        self.n_groups = max(int(group.max()) + 1, 2)
        balance = _balanced(group, self.n_groups, known)
        self.group = torch.from_numpy(np.maximum(group, 0).T.copy()).to(device)
        self.balance = torch.from_numpy(balance.T.astype(np.float32)).to(device)
        absent = np.stack([[not (group[:, j] == g).any() for g in range(self.n_groups)] for j in range(self.m)])
        self.absent = torch.from_numpy(absent).to(device)
        self.alpha = torch.tensor(list(alpha), dtype=torch.float32, device=device)
        self.order = torch.Generator().manual_seed(min(seed) if order is None else order)
        self._start(seed, device)

    def _start(self, seed: Sequence[int], device: str) -> None:
        h, inner = self.training.hidden, max(self.training.hidden // 2, 1)
        first, rest = {}, {}
        for one in sorted(set(seed)):
            generator = torch.Generator().manual_seed(one)
            first[one] = _uniform((self.d, h), self.d, generator)
            rest[one] = (
                _uniform((h,), h, generator),
                _uniform((h, inner), h, generator),
                _uniform((inner, self.n_groups), inner, generator),
            )

        def stacked(which: int) -> Tensor:
            return torch.stack([rest[one][which] for one in seed])

        def free(tensor: Tensor) -> Tensor:
            return tensor.to(device).requires_grad_()

        self.w1 = free(torch.cat([first[one] for one in seed], dim=1))
        self.b1 = free(torch.zeros(self.m * h))
        self.head, self.bias = free(stacked(0)), free(torch.zeros(self.m))
        self.a1, self.c1 = free(stacked(1)), free(torch.zeros(self.m, 1, inner))
        self.a2, self.c2 = free(stacked(2)), free(torch.zeros(self.m, 1, self.n_groups))

    def fit(self, progress: Progress) -> None:
        """Train with one optimiser over the stacked parameters; losses are summed, so gradients of networks are independent."""
        t = self.training
        model, adversary = self.free()[:4], self.free()[4:]
        paced: list[dict[str, Any]] = [
            {"params": model},
            {"params": adversary, "lr": t.learning_rate * _ADVERSARY_PACE},
        ]
        optimiser = torch.optim.AdamW(paced, lr=t.learning_rate, weight_decay=_WEIGHT_DECAY, fused=True)
        n = len(self.x)
        steps = t.steps(n)
        batches = chain.from_iterable(self._batches(n) for _ in range(t.epochs))
        for done, batch in enumerate(islice(batches, steps)):
            progress(done, steps)
            coefficient = self.alpha * ramp(done / steps)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(self.losses(batch, coefficient))
            optimiser.step()
        progress(steps, steps)

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Float64Array:
        """Return the log odds of prepared studies (n, d) under the current networks, (n, m)."""
        w1, b1 = self.w1.to(x.dtype), self.b1.to(x.dtype)
        out = []
        size = max(1, _MAX_HIDDEN // w1.shape[1])
        for some in (x[start : start + size] for start in range(0, len(x), size)):
            hidden = functional.relu(torch.addmm(b1, some, w1)).view(len(some), self.m, -1)
            out.append((torch.einsum("nmh,mh->nm", hidden.float(), self.head) + self.bias).double().cpu())
        logits: Float64Array = torch.cat(out).numpy()
        return logits

    def free(self) -> list[Tensor]:
        """Return the stacked parameters."""
        return [self.w1, self.b1, self.head, self.bias, self.a1, self.c1, self.a2, self.c2]

    def _batches(self, n: int) -> Iterator[Tensor]:
        shuffled = torch.randperm(n, generator=self.order).to(self.x.device)
        size = self.training.batch_size
        yield from (shuffled[start : start + size] for start in range(0, n, size))

    def losses(self, batch: Tensor, coefficient: Tensor) -> Tensor:
        """Return the sum over networks of the task's and the adversary's loss on a batch of studies."""
        h = self.training.hidden
        kind = self.x.dtype
        z = torch.addmm(self.b1.to(kind), self.x[batch], self.w1.to(kind))
        hidden = functional.relu(z, inplace=True).view(len(batch), self.m, h).transpose(0, 1)
        logits = torch.bmm(hidden, self.head.unsqueeze(2).to(kind)).squeeze(2).float() + self.bias[:, None]
        each = functional.binary_cross_entropy_with_logits(logits, self.y[:, batch], reduction="none")
        task = (each * self.weight[:, batch]).sum() / len(batch)
        turned = GradientReversal.apply(hidden, coefficient[:, None, None].to(kind))
        inner = functional.relu(torch.baddbmm(self.c1.to(kind), turned, self.a1.to(kind)), inplace=True)
        of_group = torch.baddbmm(self.c2, inner.float(), self.a2).masked_fill(self.absent[:, None], -1e9)
        apart = functional.cross_entropy(of_group.flatten(0, 1), self.group[:, batch].flatten(), reduction="none")
        adversary = (apart * self.balance[:, batch].flatten()).sum() / len(batch)
        return task + adversary

    def parameters(self) -> tuple[npt.NDArray[Any], ...]:
        """Return first layers (m, d, h), their biases, heads, their biases, and whether all are finite."""
        h = self.training.hidden
        w1 = self.w1.detach().view(self.d, self.m, h).transpose(0, 1).cpu().numpy()
        b1 = self.b1.detach().view(self.m, h).cpu().numpy()
        head, bias = self.head.detach().cpu().numpy(), self.bias.detach().cpu().numpy()
        finite = np.isfinite(w1).all(axis=(1, 2)) & np.isfinite(head).all(axis=1) & np.isfinite(bias)
        return w1, b1, head, bias, finite


def _turns(m: int, width: int, training: Training) -> list[slice]:
    """Return slices of networks to train at once, few enough that their first layers fit into memory."""
    at_once = max(1, _MAX_WEIGHTS // (width * training.hidden))
    return [slice(start, start + at_once) for start in range(0, m, at_once)]


def _look(
    stack: _Stack,
    val: Tensor,
    y_val: Float64Array,
    able: npt.NDArray[np.bool_],
    reached: dict[int, list[float]],
    done: int,
    _total: int,
) -> None:
    """Record the networks' validation AUROC after the given number of batches, if it is one of the evaluation points."""
    if done in reached and able.any():
        reached[done] += aurocs_of(y_val[:, able], stack.logits(val)[:, able]).tolist()


def _over_turns(progress: Progress, turn: int, turns: int, done: int, steps: int) -> None:
    """Report the batches of one turn as batches of all turns."""
    progress(turn * steps + done, turns * steps)


def _balanced(group: IntArray, n_groups: int, known: npt.NDArray[np.bool_]) -> Float64Array:
    """Return adversary weights, (n, m), with equal weight per subgroup and mean 1; 0 for studies without a subgroup."""
    out = np.zeros(group.shape)
    for j in range(group.shape[1]):
        inside = (group[:, j] >= 0) & known[:, j]
        counts = np.bincount(group[inside, j], minlength=n_groups)
        present = np.count_nonzero(counts)
        if present:
            out[inside, j] = len(group) / (present * counts[group[inside, j]])
    return out


def _uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    bound = 1.0 / math.sqrt(fan_in)
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound

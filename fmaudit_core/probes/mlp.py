"""Multilayer perceptrons on study embeddings: the networks of one shape and seed, one per task, are trained together.

Each network is Linear - BatchNorm - ReLU - Dropout per hidden layer with a linear head, the family swept in the audited paper.
The networks of one seed see the same batches and drop the same hidden units. Their first layers are computed as one product with
the embeddings, the others as batched products, and one fused Adam step updates the stacked parameters. Gradients of different
networks are independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fmaudit_core.probes.logistic import standardisation
from fmaudit_core.probes.mlp_stack import masked_loss, train_stack
from fmaudit_core.probes.training import Schedule, Trained, batches

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: defaults of torch.nn.BatchNorm1d
_MOMENTUM: Final = 0.1
_EPSILON: Final = 1e-5
#: studies scored at once
_BLOCK: Final = 2_048


def native_bfloat16(device: str) -> bool:
    """Return whether the device computes bfloat16 products natively, at least twice as fast as in float32."""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported())
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


@dataclass(frozen=True)
class Mlp:
    """Settings of one perceptron of the sweep.

    Parameters
    ----------
    shape : widths of the hidden layers
    dropout : share of hidden units that are dropped at a step
    half_precision : bool
        Compute products in bfloat16; parameters and their updates stay in float32.
    """

    shape: tuple[int, ...]
    dropout: float = 0.2
    half_precision: bool = False


class _HalfProduct(torch.autograd.Function):
    """A product with weights in bfloat16 whose gradient is accumulated in float32 in the weights' own `grad`.

    All copies use buffers allocated once per training: allocating new memory for each would cost more than the arithmetic saves.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, half: Tensor, half_gradient: Tensor) -> Tensor:
        """Compute (m, out, in) float32 times (m, in, b) bfloat16, or times (in, b) that all members share."""
        ctx.save_for_backward(hidden)
        ctx.weight, ctx.half, ctx.half_gradient = weight, half, half_gradient
        half.copy_(weight)
        return _times(half, hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        """Store the weights' gradient where Adam reads it, and return the hidden layer's."""
        (hidden,), (gradient,) = ctx.saved_tensors, gradients
        if hidden.ndim == 2:
            torch.mm(gradient.flatten(0, 1), hidden.T, out=ctx.half_gradient.flatten(0, 1))
        else:
            torch.bmm(gradient, hidden.mT, out=ctx.half_gradient)
        ctx.weight.grad.copy_(ctx.half_gradient)
        return torch.bmm(ctx.half.mT, gradient) if ctx.needs_input_grad[0] else None, None, None, None


def _times(weight: Tensor, hidden: Tensor) -> Tensor:
    """Multiply every member's weights by its input; an input that all members share is one product with the stacked weights."""
    if hidden.ndim == 2:
        return torch.mm(weight.flatten(0, 1), hidden).view(*weight.shape[:2], -1)
    return torch.bmm(weight, hidden)


class MlpStack:
    """A stack of networks of one shape that start from the same weights, one per task.

    Parameters
    ----------
    x : (n, d) the training studies, standardised
    members : number of networks
    seed : seed of the initial weights, which all members share, and of dropout
    """

    def __init__(self, x: Float32Array, members: int, mlp: Mlp, seed: int, device: str = "cpu") -> None:
        self.mlp, self.members, self.device = mlp, members, device
        self.kind = torch.bfloat16 if mlp.half_precision else torch.float32
        self.x = self.given(x)
        self.drops = torch.Generator(device).manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        widths = (x.shape[1], *mlp.shape)
        #: (m, out, in) per hidden layer, and the scale and shift (m, out) of its batch norm
        self.weights = [self._start(generator, (width, before), before) for before, width in pairwise(widths)]
        self.scales = [self._free(torch.ones(members, width)) for width in mlp.shape]
        self.shifts = [self._free(torch.zeros(members, width)) for width in mlp.shape]
        self.head = self._start(generator, (mlp.shape[-1],), mlp.shape[-1])
        self.bias = self._start(generator, (), mlp.shape[-1])
        self.means = [torch.zeros(members, width, device=device) for width in mlp.shape]
        self.variances = [torch.ones(members, width, device=device) for width in mlp.shape]
        self._make_room()

    def given(self, x: Float32Array) -> Tensor:
        """Return standardised studies as an input tensor of the networks."""
        return torch.from_numpy(x).to(self.device, self.kind)

    def _start(self, generator: torch.Generator, shape: tuple[int, ...], fan_in: int) -> Tensor:
        drawn = (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(fan_in)
        return self._free(drawn.expand(self.members, *shape).clone())

    def _free(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device).requires_grad_()

    def _make_room(self) -> None:
        """Allocate buffers for the half-precision copies of the weights and their gradients."""
        if not self.mlp.half_precision:
            return
        self._halves = []
        for weight in self.weights:
            weight.grad = torch.zeros_like(weight)
            self._halves.append((torch.empty_like(weight, dtype=self.kind), torch.empty_like(weight, dtype=self.kind)))

    def _product(self, layer: int, hidden: Tensor) -> Tensor:
        """Return a layer's product, (m, out, b), with input (in, b) that all members share or (m, in, b) of each member."""
        weight = self.weights[layer]
        if self.mlp.half_precision and torch.is_grad_enabled():
            made: Tensor = _HalfProduct.apply(hidden, weight, *self._halves[layer])
            return made
        return _times(weight.to(self.kind), hidden)

    def free(self) -> list[Tensor]:
        """Return the parameters, each stacked over the members."""
        return [*self.weights, *self.scales, *self.shifts, self.head, self.bias]

    def state(self) -> list[Tensor]:
        """Return the parameters and the running statistics of batch norm, each stacked over the members."""
        return [*self.free(), *self.means, *self.variances]

    def load(self, state: Sequence[Tensor]) -> None:
        """Load copies of a `state`, of all members or of a subset."""
        k = len(self.weights)
        parts = [one.detach().clone() for one in state]
        self.members = len(parts[0])
        free = [one.requires_grad_() for one in parts[: 3 * k + 2]]
        self.weights, self.scales, self.shifts = free[:k], free[k : 2 * k], free[2 * k : 3 * k]
        self.head, self.bias = free[3 * k], free[3 * k + 1]
        self.means, self.variances = parts[3 * k + 2 : 4 * k + 2], parts[4 * k + 2 :]
        self._make_room()

    def logits(self, x: Tensor, kept: list[Tensor] | None = None, *, training: bool = False) -> Tensor:
        """Return the log odds, (b, m), of studies (b, d).

        Parameters
        ----------
        kept : list of (h, b), optional
            Per hidden layer, 0 for a unit that is dropped and 1 / (1 - dropout) for one that is kept; without it, no unit is
            dropped.
        """
        b, m = len(x), self.members
        # features first, (m, h, b): every product and batch norm reads its operands without a transpose
        hidden = x.T
        for layer, width in enumerate(self.mlp.shape):
            z = self._product(layer, hidden)
            normal = functional.batch_norm(
                z.view(1, m * width, b), self.means[layer].view(-1), self.variances[layer].view(-1),
                self.scales[layer].view(-1), self.shifts[layer].view(-1), training, _MOMENTUM, _EPSILON,
            )  # fmt: skip
            hidden = functional.relu(normal, inplace=True).view(m, width, b)
            if kept is not None:
                hidden = hidden * kept[layer]
        return torch.bmm(self.head[:, None].to(self.kind), hidden)[:, 0].float().T + self.bias

    def descend(self, rows: IntArray, y: Tensor, known: Tensor) -> None:
        """Compute the gradient of a batch's loss into every parameter's `grad`."""
        replaced = self.weights if self.mlp.half_precision else []
        for one in self.free():
            if not any(one is other for other in replaced):
                one.grad = None
        x = self.x[torch.from_numpy(rows).to(self.device)]
        torch.autograd.backward(masked_loss(self.logits(x, self.lost(len(rows)), training=True), y, known))

    def lost(self, n: int) -> list[Tensor] | None:
        """Return the dropout masks of the hidden units for one batch, shared by all members; None without dropout."""
        share = self.mlp.dropout
        if not share:
            return None
        return [
            (torch.rand(width, n, generator=self.drops, device=self.device) >= share).to(self.kind) / (1.0 - share)
            for width in self.mlp.shape
        ]


def train_mlps(
    train: Float32Array,
    y_train: Float64Array,
    val: Float32Array,
    y_val: Float64Array,
    score: Float32Array,
    *,
    mlp: Mlp,
    schedule: Schedule,
    seed: int,
    device: str = "cpu",
) -> Trained:
    """Train one network per task from one seed, with early stopping on validation, and score with each network's best epoch.

    Parameters
    ----------
    train, val, score : (n, d) float32, raw embeddings
    y_train, y_val : (n, t) float64: 0, 1, NaN if unknown; each task has both classes in both
    """
    mean, spread = standardisation(train)

    def standard(x: Float32Array) -> Float32Array:
        return ((x - mean) / spread).astype(np.float32)

    stack = MlpStack(standard(train), y_train.shape[1], mlp, seed, device)
    of_val, order = stack.given(standard(val)), np.random.default_rng([seed, 1])
    stopping = train_stack(
        stack,
        y_train,
        y_val,
        schedule=schedule,
        optimiser=lambda free: torch.optim.Adam(free, lr=schedule.learning_rate, fused=True),
        epoch_of=lambda: batches(order, len(train), schedule.batch_size),
        val_logits=lambda: _scored(stack, of_val),
        device=device,
    )
    return Trained(_scored(stack, stack.given(standard(score))), stopping.best, stopping.best_epoch, stopping.epochs)


@torch.inference_mode()
def _scored(stack: MlpStack, x: Tensor) -> Float64Array:
    parts = [stack.logits(x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)]
    out: Float64Array = torch.cat(parts).cpu().numpy().astype(np.float64)
    return out

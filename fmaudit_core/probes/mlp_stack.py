"""Networks with parameters stacked over members, trained together: each stops where its own validation tells it to.

One optimiser steps over all, element by element, so no member's step depends on another's. A member that has stopped is taken
out of the stack, and costs nothing from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fmaudit_core.probes.training import Schedule, Stopping, aurocs_of

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
#: parameters -> what steps over them
MakeOptimiser = Callable[[list[Tensor]], torch.optim.Optimizer]


class Stack(Protocol):
    """Networks whose tensors are stacked over them, member first."""

    def free(self) -> list[Tensor]:
        """Parameters."""
        ...

    def state(self) -> list[Tensor]:
        """Parameters, then whatever else a network remembers."""
        ...

    def load(self, state: Sequence[Tensor]) -> None:
        """Take copies of a `state`, of these or of fewer members."""
        ...

    def descend(self, rows: IntArray, y: Tensor, known: Tensor) -> None:
        """Put the gradient of a batch's `masked_loss` into every parameter's `grad`.

        Parameters
        ----------
        rows : (b,) places among the training studies
        y, known : (b, m)
        """
        ...


def masked_loss(logits: Tensor, y: Tensor, known: Tensor) -> Tensor:
    """Sum over members of the mean log loss over the known labels of a batch; none where none is known.

    Parameters
    ----------
    logits, y, known : (b, m); y is 0 or 1, known 1 where the label is known and 0 where not
    """
    each = functional.binary_cross_entropy_with_logits(logits, y, reduction="none") * known
    return (each.sum(dim=0) / known.sum(dim=0).clamp(min=1.0)).sum()


def train_stack(
    stack: Stack,
    y_train: Float64Array,
    y_val: Float64Array,
    *,
    schedule: Schedule,
    optimiser: MakeOptimiser,
    epoch_of: Callable[[], Sequence[IntArray]],
    val_logits: Callable[[], Float64Array],
    device: str,
    start_counts: bool = False,
) -> Stopping:
    """Train every member until its validation AUROC has not risen for a while; the stack is left at each one's best epoch.

    Parameters
    ----------
    y_train, y_val : (n, m) float64: 0, 1, NaN where unknown; each member has both classes in both
    epoch_of : function
        The batches of the next epoch, as places among the training studies.
    val_logits : function
        (n, m) log odds of the validation studies under the members the stack has just then.
    start_counts : bool
        Whether the members as they start are candidates too, as epoch 0.
    """
    known = torch.from_numpy((~np.isnan(y_train)).astype(np.float32)).to(device)
    y = torch.from_numpy(np.nan_to_num(y_train).astype(np.float32)).to(device)
    members = np.arange(y_train.shape[1])
    batches = epoch_of()
    epochs, patience = schedule.in_epochs(len(batches))
    stopping = Stopping(len(members), patience)
    best = [one.detach().clone() for one in stack.state()]
    steps = optimiser(stack.free())
    if start_counts:
        stopping.see(members, aurocs_of(y_val, val_logits()), 0)
    for epoch in range(1, epochs + 1):
        for rows in batches:
            at = torch.from_numpy(rows).to(device)
            stack.descend(rows, y[at], known[at])
            steps.step()
        better, goes_on = stopping.see(members, aurocs_of(y_val[:, members], val_logits()), epoch)
        risen, of = torch.from_numpy(members[better]).to(device), torch.from_numpy(better).to(device)
        for whole, now in zip(best, stack.state(), strict=True):
            whole[risen] = now.detach()[of]
        if not goes_on.any() or epoch == epochs:
            break
        batches = epoch_of()
        if not goes_on.all():
            stays = torch.from_numpy(goes_on).to(device)
            steps = _narrowed(stack, steps, stays, optimiser)
            members, y, known = members[goes_on], y[:, stays], known[:, stays]
    stack.load(best)
    return stopping


def _narrowed(
    stack: Stack, steps: torch.optim.Optimizer, stays: Tensor, optimiser: MakeOptimiser
) -> torch.optim.Optimizer:
    """The stack without the members that have stopped, and an optimiser that goes on where the old one was."""
    moments = [steps.state[one] for one in stack.free()]
    stack.load([one[stays] for one in stack.state()])
    out = optimiser(stack.free())
    for parameter, of in zip(stack.free(), moments, strict=True):
        out.state[parameter] = {name: one if one.ndim == 0 else one[stays].clone() for name, one in of.items()}
    return out

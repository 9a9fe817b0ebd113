"""Networks with parameters stacked over members and trained together, each with its own early stopping on validation.

One optimiser updates all members element by element, so no member's step depends on another's. A member that has stopped is
removed from the stack, and costs nothing from then on.
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
#: parameters -> their optimiser
MakeOptimiser = Callable[[list[Tensor]], torch.optim.Optimizer]


class Stack(Protocol):
    """Networks whose tensors are stacked, with the member as the first axis."""

    def free(self) -> list[Tensor]:
        """Return the parameters."""
        ...

    def state(self) -> list[Tensor]:
        """Return the parameters, then any other state of the networks."""
        ...

    def load(self, state: Sequence[Tensor]) -> None:
        """Load copies of a `state`, of all members or of a subset."""
        ...

    def descend(self, rows: IntArray, y: Tensor, known: Tensor) -> None:
        """Compute the gradient of a batch's `masked_loss` into every parameter's `grad`.

        Parameters
        ----------
        rows : (b,) indices among the training studies
        y, known : (b, m)
        """
        ...


def masked_loss(logits: Tensor, y: Tensor, known: Tensor) -> Tensor:
    """Return the sum over members of the mean log loss over a batch's known labels; 0 for a member without known labels.

    Parameters
    ----------
    logits, y, known : (b, m); y is 0 or 1, known is 1 if the label is known, else 0
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
    """Train every member until its validation AUROC stops rising; the stack is left with each member's best epoch.

    Parameters
    ----------
    y_train, y_val : (n, m) float64: 0, 1, NaN if unknown; each member has both classes in both
    epoch_of : function
        Returns the batches of the next epoch, as indices among the training studies.
    val_logits : function
        Returns the (n, m) log odds of the validation studies under the current members of the stack.
    start_counts : bool
        Whether the initial members are candidates too, as epoch 0.
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
    """Remove the stopped members from the stack, and return an optimiser that continues from the old one's state."""
    moments = [steps.state[one] for one in stack.free()]
    stack.load([one[stays] for one in stack.state()])
    out = optimiser(stack.free())
    for parameter, of in zip(stack.free(), moments, strict=True):
        out.state[parameter] = {name: one if one.ndim == 0 else one[stays].clone() for name, one in of.items()}
    return out

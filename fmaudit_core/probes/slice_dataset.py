"""Networks that read bags of slices, and their training. The networks are defined in `attention.py` and `recurrent.py`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fmaudit_core.probes.mlp_stack import Stack, train_stack
from fmaudit_core.probes.slice_store import SliceBags
from fmaudit_core.probes.training import Schedule, Trained

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: bags read at once for scoring
BLOCK: Final = 256


@dataclass(frozen=True)
class BaggedCohort:
    """Studies in bags, with their labels.

    Parameters
    ----------
    bags : SliceBags
    train, val, score : indices of studies in `bags`
    y_train, y_val : (n, t) float64: 0, 1, NaN if unknown; each task has both classes in both
    """

    bags: SliceBags
    train: IntArray
    y_train: Float64Array
    val: IntArray
    y_val: Float64Array
    score: IntArray

    def of_task(self, t: int) -> BaggedCohort:
        """Return the same studies with the labels of one task only."""
        return replace(self, y_train=self.y_train[:, [t]], y_val=self.y_val[:, [t]])


class BagStack(Stack):
    """A stack of networks over bags; see `mlp_stack.Stack`.

    Parameters
    ----------
    bags : SliceBags
    train : (n,) indices of the training studies in `bags`
    """

    def __init__(self, bags: SliceBags, train: IntArray, device: str) -> None:
        self.bags, self.train, self.device = bags, train, device

    @abstractmethod
    def logits(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the log odds of studies, (b, m).

        Parameters
        ----------
        x, mask : (b, s, r) and (b, s) bool, a study's slices before its padding
        """

    def read(self, places: IntArray) -> tuple[Tensor, Tensor]:
        """Return bags and their masks, on the device."""
        x, mask = self.bags.batch(places)
        return torch.from_numpy(x).to(self.device), torch.from_numpy(mask).to(self.device)

    @torch.inference_mode()
    def scored(self, places: IntArray) -> Float64Array:
        """Return the log odds of studies, (n, m), computed in blocks."""
        parts = [self.logits(*self.read(places[at : at + BLOCK])) for at in range(0, len(places), BLOCK)]
        out: Float64Array = torch.cat(parts).cpu().numpy().astype(np.float64)
        return out


def train_bags(
    stack: BagStack,
    cohort: BaggedCohort,
    *,
    schedule: Schedule,
    weight_decay: float,
    epoch_of: Callable[[], Sequence[IntArray]],
    start_counts: bool = False,
) -> Trained:
    """Train a stack with AdamW, one member per task of the cohort, and score with each member's best epoch; see `train_stack`."""
    stopping = train_stack(
        stack,
        cohort.y_train,
        cohort.y_val,
        schedule=schedule,
        optimiser=lambda free: torch.optim.AdamW(
            free, lr=schedule.learning_rate, weight_decay=weight_decay, fused=True
        ),
        epoch_of=epoch_of,
        val_logits=lambda: stack.scored(cohort.val),
        start_counts=start_counts,
        device=stack.device,
    )
    return Trained(stack.scored(cohort.score), stopping.best, stopping.best_epoch, stopping.epochs)

"""A recurrent probe over slices, after INSPECT's CT-LRCN: one network per task reads the sequence of a study's slice features.

A bidirectional LSTM of one layer reads a study from the feet upwards. Its states are max-pooled over the slices present, and a
linear head gives the log odds. Classes are drawn equally often; the epoch with the best validation AUROC is kept. INSPECT's code
transposes its input, so that its network runs over the studies of a batch, and pools over the padding too; this one does neither,
reads another encoder's slices, and is not INSPECT's model.

References
----------
Huang et al. 2023, INSPECT: A Multimodal Dataset for Pulmonary Embolism Diagnosis and Prognosis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fmaudit_core.probes.mlp_stack import masked_loss
from fmaudit_core.probes.slice_dataset import BaggedCohort, BagStack, train_bags
from fmaudit_core.probes.slice_store import SliceBags
from fmaudit_core.probes.training import Schedule, Trained, balanced_draw

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recurrent:
    """Settings of a recurrent probe.

    Parameters
    ----------
    hidden : width of the LSTM in each direction
    dropout : share of the pooled states that are dropped at a step
    weight_decay : weight decay of AdamW
    """

    hidden: int = 128
    dropout: float = 0.25
    weight_decay: float = 1e-2


class SliceLstm(nn.Module):
    """A bidirectional LSTM over slices with max pooling and a linear head.

    Parameters
    ----------
    width : number of components of a slice
    """

    def __init__(self, width: int, recurrent: Recurrent) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, recurrent.hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(recurrent.dropout)
        self.head = nn.Linear(2 * recurrent.hidden, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the log odds of studies, (b, 1).

        Parameters
        ----------
        x, mask : (b, s, r) and (b, s) bool, a study's slices before its padding
        """
        lengths = mask.sum(dim=1).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, padding_value=-torch.inf)
        logits: Tensor = self.head(self.dropout(states.amax(dim=1)))
        return logits


class RecurrentStack(BagStack):
    """One network as a stack of one member."""

    def __init__(self, bags: SliceBags, train: IntArray, recurrent: Recurrent, seed: int, device: str) -> None:
        super().__init__(bags, train, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = SliceLstm(bags.width, recurrent)
        self.network.to(device)

    def free(self) -> list[Tensor]:
        """Return the parameters."""
        return list(self.network.parameters())

    def state(self) -> list[Tensor]:
        """Return the parameters as a stack of one member."""
        return [one[None] for one in self.free()]

    def load(self, state: Sequence[Tensor]) -> None:
        """Load copies of a `state`."""
        with torch.no_grad():
            for one, given in zip(self.free(), state, strict=True):
                one.copy_(given[0])

    def logits(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the log odds of studies, (b, 1), with dropout while the network is being trained."""
        logits: Tensor = self.network(x, mask)
        return logits

    def descend(self, rows: IntArray, y: Tensor, known: Tensor) -> None:
        """Compute the gradient of a batch's loss into every parameter's `grad`."""
        self.network.train()
        self.network.zero_grad(set_to_none=True)
        torch.autograd.backward(masked_loss(self.logits(*self.read(self.train[rows])), y, known))

    def scored(self, places: IntArray) -> Float64Array:
        """Return the log odds of studies, (n, 1), without dropout."""
        self.network.eval()
        return super().scored(places)


def train_recurrent(
    cohort: BaggedCohort,
    *,
    recurrent: Recurrent,
    schedule: Schedule,
    seed: int,
    device: str = "cpu",
) -> Trained:
    """Train one network per task from one seed, with early stopping on validation, and score with each network's best epoch."""
    parts = []
    for t in range(cohort.y_train.shape[1]):
        # dropout uses the process's generator, whose state is restored
        with torch.random.fork_rng(devices=[] if device == "cpu" else None):
            torch.manual_seed(seed)
            parts.append(_train_one(cohort.of_task(t), recurrent, schedule, seed, device))
    return Trained(
        np.concatenate([one.logits for one in parts], axis=1),
        *(np.concatenate([getattr(one, name) for one in parts]) for name in ("val_auroc", "best_epoch", "epochs")),
    )


def _train_one(cohort: BaggedCohort, recurrent: Recurrent, schedule: Schedule, seed: int, device: str) -> Trained:
    stack, y = RecurrentStack(cohort.bags, cohort.train, recurrent, seed, device), cohort.y_train[:, 0]
    order, known = np.random.default_rng([seed, 1]), np.flatnonzero(~np.isnan(y))
    return train_bags(
        stack, cohort, schedule=schedule, weight_decay=recurrent.weight_decay,
        epoch_of=partial(balanced_draw, order, y, known, schedule.batch_size),
    )  # fmt: skip

"""Nonlinear attribute probes: many networks with one hidden layer, trained together as in `adversarial.py`."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HIDDEN: Final = 32
_STEPS: Final = 200
_BATCH: Final = 256
_RATE: Final = 3e-3
_WEIGHT_DECAY: Final = 1e-2


def mlp_scores(
    x: Float32Array, code: IntArray, to_score: Float32Array, *, seed: int, device: str = "cpu"
) -> Float64Array:
    """Train r probes and score other studies.

    Parameters
    ----------
    x : (r, n, d) float32, or (1, n, d) if all probes share the same features
    code : (r, n) int, subgroups 0..k-1, -1 if unknown; all subgroups of a probe have equal weight
    to_score : (r or 1, m, d) float32

    Returns
    -------
    (r, m, k) float64, log odds up to a constant; -inf for subgroups that are absent from a probe's training
    """
    r, n = code.shape
    d, k = x.shape[2], int(code.max()) + 1
    mean, spread = x.mean(axis=1, keepdims=True), x.std(axis=1, keepdims=True)
    scale = np.where(spread <= 1e-7 * np.maximum(np.abs(mean), 1e-12), np.inf, spread)
    features = torch.from_numpy(((x - mean) / scale).astype(np.float32)).to(device)
    labels = torch.from_numpy(np.maximum(code, 0)).to(device)
    counts = np.stack([np.bincount(one[one >= 0], minlength=k) for one in code])
    present = (counts > 0).sum(axis=1, keepdims=True)
    each = n / np.maximum(present * counts, 1)
    weight = torch.from_numpy(
        (np.take_along_axis(each, np.maximum(code, 0), axis=1) * (code >= 0)).astype(np.float32)
    ).to(device)
    absent = torch.from_numpy(counts == 0).to(device)[:, None]
    generator = torch.Generator().manual_seed(seed)

    def start(*shape: int, fan_in: int) -> torch.Tensor:
        bound = 1.0 / math.sqrt(fan_in)
        drawn = (torch.rand(shape, generator=generator) * 2 - 1) * bound
        return drawn.to(device).requires_grad_()

    w1, b1 = start(r, d, HIDDEN, fan_in=d), start(r, 1, HIDDEN, fan_in=d)
    w2, b2 = start(r, HIDDEN, k, fan_in=HIDDEN), start(r, 1, k, fan_in=HIDDEN)
    optimiser = torch.optim.AdamW([w1, b1, w2, b2], lr=_RATE, weight_decay=_WEIGHT_DECAY, fused=True)

    def logits_of(seen: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(b2, functional.relu(torch.matmul(seen, w1) + b1), w2).masked_fill(absent, -torch.inf)

    for _ in range(_STEPS):
        batch = torch.randint(0, n, (min(_BATCH, n),), generator=generator).to(device)
        optimiser.zero_grad(set_to_none=True)
        each_loss = functional.cross_entropy(
            logits_of(features[:, batch]).flatten(0, 1), labels[:, batch].flatten(), reduction="none"
        )
        torch.autograd.backward((each_loss * weight[:, batch].flatten()).sum() / len(batch))
        optimiser.step()
    with torch.inference_mode():
        seen = torch.from_numpy(((to_score - mean) / scale).astype(np.float32)).to(device)
        scores: Float64Array = logits_of(seen).cpu().numpy().astype(np.float64)
    return scores

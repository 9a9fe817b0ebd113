"""Mitigation: adversarial networks together, compared with fairlearn and one by one; error rates of the paired tests.

    python benchmarks/bench_mitigation.py                          # at the size of a real cohort
    python benchmarks/bench_mitigation.py --only tests             # only type-I error, power and coverage
    python benchmarks/bench_mitigation.py --only networks --batches 8

One epoch of 360 networks one after another takes many minutes, so each side is timed over some batches after a warm-up and scaled
to an epoch of one network. All sides use batches of one size; fairlearn is also timed at its own default size.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from fairlearn.adversarial import AdversarialFairnessClassifier
from torch import nn

from fmaudit_core.fairness.gaps import exceedance
from fmaudit_core.mitigation.adversarial import GradientReversal, Training, _Stack
from fmaudit_core.mitigation.swap_test import GAP, VARIANCE, Calls, p_of_difference, redrawn, reduction, swapped
from fmaudit_core.probes.mlp import native_bfloat16

SHARES = np.array([0.35, 0.25, 0.18, 0.12, 0.07, 0.03])


def together(x: np.ndarray, y: np.ndarray, group: np.ndarray, training: Training, batches: int) -> float:
    """Return the seconds per network and epoch of the stack."""
    m, size = y.shape[1], training.batch_size
    stack = _Stack(x, y, group, [1.0] * m, [0] * m, training, "cpu")
    optimiser = torch.optim.AdamW(stack.free(), lr=1e-3, weight_decay=1e-2, fused=True)

    def step(start: int) -> None:
        batch = torch.arange(start, start + size) % len(x)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(stack.losses(batch, stack.alpha))
        optimiser.step()

    return timed(step, size, batches) * math.ceil(len(x) / size) / m


class One(nn.Module):
    """The same network in plain torch."""

    def __init__(self, d: int, h: int, groups: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(d, h), nn.ReLU())
        self.head = nn.Linear(h, 1)
        self.adversary = nn.Sequential(nn.Linear(h, h // 2), nn.ReLU(), nn.Linear(h // 2, groups))

    def forward(self, x: torch.Tensor, strength: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.encoder(x)
        return self.head(hidden)[:, 0], self.adversary(GradientReversal.apply(hidden, strength))


def one_by_one(x: np.ndarray, y: np.ndarray, group: np.ndarray, training: Training, batches: int) -> float:
    """Return the seconds per network and epoch of a plain torch loop."""
    size, groups = training.batch_size, int(group.max()) + 1
    features, labels = torch.from_numpy(x), torch.from_numpy(y[:, 0].astype(np.float32))
    subgroup = torch.from_numpy(group[:, 0])
    model = One(x.shape[1], training.hidden, groups)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    weight = torch.ones(groups)

    def step(start: int) -> None:
        batch = torch.arange(start, start + size) % len(x)
        optimiser.zero_grad(set_to_none=True)
        logit, told = model(features[batch], torch.tensor(1.0))
        loss = nn.functional.binary_cross_entropy_with_logits(logit, labels[batch])
        (loss + nn.functional.cross_entropy(told, subgroup[batch], weight=weight)).backward()
        optimiser.step()

    return timed(step, size, 8 * batches) * math.ceil(len(x) / size)


def timed(step: Callable[[int], None], size: int, batches: int) -> float:
    """Return the seconds per batch, after two for warm-up."""
    for warm in range(2):
        step(warm * size)
    start = time.perf_counter()
    for batch in range(batches):
        step(batch * size)
    return (time.perf_counter() - start) / batches


def fairlearns(x: np.ndarray, y: np.ndarray, group: np.ndarray, hidden: int, size: int) -> float:
    """Return the seconds per epoch of fairlearn's classifier: one hidden layer, and an adversary on its output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AdversarialFairnessClassifier(
            backend="torch", predictor_model=[hidden, "relu"], adversary_model=[hidden // 2, "relu"], batch_size=size, epochs=1,
            random_state=0,
        )  # fmt: skip
        warm = slice(0, 4 * size)
        model.fit(x[warm], y[warm, 0].astype(int), sensitive_features=group[warm, 0])
        start = time.perf_counter()
        model.fit(x, y[:, 0].astype(int), sensitive_features=group[:, 0])
        return time.perf_counter() - start


def networks(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    n, d = options.studies, options.dim
    m = 9 * options.tasks * options.seeds
    x = rng.normal(size=(n, d)).astype(np.float32)
    y = (rng.random((n, m)) < 0.2).astype(float)
    group = rng.integers(0, 4, (n, m))
    print(
        f"{m} networks (9 alpha x attribute, {options.tasks} tasks, {options.seeds} seeds) at {n:,} x {d:,}, hidden 64;"
    )
    print(f"seconds per network and epoch, {torch.get_num_threads()} threads")
    for size in (options.batch,):
        training = Training(batch_size=size, half_precision=native_bfloat16("cpu"))
        ours = together(x, y, group, training, options.batches)
        plain = together(x, y, group, Training(batch_size=size), options.batches)
        alone = one_by_one(x, y, group, training, options.batches)
        theirs = fairlearns(x, y, group, 64, size)
        print(f"  batches of {size}")
        print(
            f"    together              {ours:8.4f}   ({'bfloat16' if training.half_precision else 'float32'} product)"
        )
        print(f"    together, float32     {plain:8.4f}")
        print(f"    torch, one by one     {alone:8.4f}   ratio {alone / ours:5.1f} x")
        print(f"    fairlearn             {theirs:8.4f}   ratio {theirs / ours:5.1f} x")
    default = fairlearns(x, y, group, 64, 32)
    print(f"    fairlearn, batches of 32 as by default {default:8.4f}   ratio {default / ours:5.1f} x")


def calls(
    seed: int, *, before: float = 0.0, after: float = 0.0, noise: float = 1.0, encoder: int = 0, n_patients: int = 2_700
) -> Calls:
    """Return predicted positives at the size of the paper's test split.

    `before` and `after` lower the scores of the third subgroup.
    """
    rng = np.random.default_rng(seed)
    of_patient = rng.choice(len(SHARES), n_patients, p=SHARES)
    patient = np.repeat(np.arange(n_patients), 1 + rng.poisson(0.2, n_patients))
    patient = patient[rng.random(len(patient)) < 0.195]
    group = of_patient[patient]
    common = 1.2 + 0.5 * rng.normal(size=n_patients)[patient] + 0.7 * rng.normal(size=len(patient))
    own = np.random.default_rng([seed, encoder])
    first, second = (
        common - shift * (group == 2) + 0.5 * spread * own.normal(size=len(patient)) >= 0.6
        for shift, spread in ((before, 1.0), (after, noise))
    )
    kept = np.bincount(group, minlength=len(SHARES))[group] >= 25
    return Calls.of(patient[kept], np.unique(group[kept], return_inverse=True)[1], first[kept], second[None, kept])


SCENES = {
    "no disparity, before and after alike": {},
    "no disparity, after twice as noisy": {"noise": 2.0},
    "the same disparity before and after": {"before": 0.6, "after": 0.6},
    "mended by half": {"before": 0.8, "after": 0.4},
}


def tests(options: argparse.Namespace) -> None:
    print(f"share of {options.simulations:,} simulations rejected at 0.05, {options.swaps} swaps")
    print(f"  {'':38s} {'gap':>7s} {'corrected variance':>19s}")
    for name, scene in SCENES.items():
        p = []
        for seed in range(options.simulations):
            one = calls(seed, **scene)
            found, null = reduction(one), swapped(one, options.swaps, seed=seed, named="t")
            p.append((exceedance(null[:, GAP], found.gap), exceedance(null[:, VARIANCE], found.variance)))
        gap, variance = np.mean(np.array(p) <= 0.05, axis=0)
        print(f"  {name:38s} {gap:7.3f} {variance:19.3f}")
    truth = reduction(calls(1, before=0.8, after=0.4, n_patients=2_000_000))
    covered = []
    for seed in range(options.simulations):
        low, high = np.quantile(
            redrawn(calls(seed, before=0.8, after=0.4), options.swaps, seed=seed, named="t"), [0.025, 0.975], axis=0
        )
        covered.append((low[GAP] <= truth.gap <= high[GAP], low[VARIANCE] <= truth.variance <= high[VARIANCE]))
    gap, variance = np.mean(covered, axis=0)
    print(f"  {'coverage of the 95 % interval':38s} {gap:7.3f} {variance:19.3f}")
    p = []
    for seed in range(options.simulations):
        apart, drawn = np.zeros(2), np.zeros((options.swaps, 2))
        for sign, encoder in ((1, 0), (-1, 1)):
            one = calls(seed, before=0.8, after=0.4, encoder=encoder)
            found = reduction(one)
            apart += sign * np.array([found.gap, found.variance])
            drawn += sign * redrawn(one, options.swaps, seed=seed, named="t")
        p.append([p_of_difference(drawn[:, i], apart[i]) for i in (GAP, VARIANCE)])
    gap, variance = np.mean(np.array(p) <= 0.05, axis=0)
    print(f"  {'interaction, equal reductions':38s} {gap:7.3f} {variance:19.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("networks", "tests"))
    parser.add_argument("--studies", type=int, default=16_000)
    parser.add_argument("--dim", type=int, default=1_024)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--simulations", type=int, default=1_000)
    parser.add_argument("--swaps", type=int, default=999)
    options = parser.parse_args()
    if options.only != "tests":
        networks(options)
    if options.only != "networks":
        tests(options)


if __name__ == "__main__":
    main()

"""The sweep of perceptrons: the tasks of a shape and seed together, compared with one network after another in plain torch.

    python benchmarks/bench_mlp.py                       # 16,000 x 1,024, 8 tasks, 3 shapes, 5 seeds
    python benchmarks/bench_mlp.py --only speed --rounds 3
    python benchmarks/bench_mlp.py --studies 4000 --dim 256

Speed: seconds per member and epoch. Each side is timed over some batches after a warm-up, the sides in turns, and scaled to an
epoch. Of the sweep's 120 members the peer trains one of each shape, since a batch costs the same for every member of a shape.
AUROC: both sides train the smallest shape for all tasks and some seeds, and are scored on a test split at the best epoch on
validation.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fmaudit_core.probes.logistic import standardisation
from fmaudit_core.probes.mlp import Mlp, MlpStack, native_bfloat16, train_mlps
from fmaudit_core.probes.training import Schedule, aurocs_of, batches, ranked_auroc

SHAPES = ((256, 128), (512, 256), (512, 256, 128))
DROPOUT = 0.2


def peer(d: int, shape: tuple[int, ...]) -> nn.Sequential:
    """Return the same network in plain torch."""
    layers: list[nn.Module] = []
    for width in shape:
        layers += [nn.Linear(d, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(DROPOUT)]
        d = width
    return nn.Sequential(*layers, nn.Linear(d, 1))


def cohort(n: int, d: int, tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings with a decaying spectrum, and partly nonlinear outcomes with one label in ten unknown."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)) * (1 + np.arange(d)) ** -0.3
    y = np.empty((n, tasks))
    for t in range(tasks):
        linear, left, right = (x @ rng.normal(size=d) / math.sqrt(d) * 6 for _ in range(3))
        risk = linear + left * right + rng.logistic(size=n)
        y[:, t] = risk > np.quantile(risk, 0.8)
    y[rng.random(y.shape) < 0.1] = np.nan
    return x.astype(np.float32), y


def ours_step(x: np.ndarray, y: np.ndarray, shape: tuple[int, ...], size: int, *, half: bool) -> Callable[[int], None]:
    stack = MlpStack(x, y.shape[1], Mlp(shape, DROPOUT, half_precision=half), seed=0)
    optimiser = torch.optim.Adam(stack.free(), lr=1e-3, fused=True)
    told, known = torch.from_numpy(np.nan_to_num(y).astype("f4")), torch.from_numpy((~np.isnan(y)).astype("f4"))

    def step(at: int) -> None:
        rows = np.arange(at * size, (at + 1) * size) % len(x)
        index = torch.from_numpy(rows)
        stack.descend(rows, told[index], known[index])
        optimiser.step()

    return step


def peer_step(x: np.ndarray, y: np.ndarray, shape: tuple[int, ...], size: int) -> Callable[[int], None]:
    there = ~np.isnan(y[:, 0])
    features, labels = torch.from_numpy(x[there]), torch.from_numpy(y[there, 0].astype("f4"))
    network = peer(x.shape[1], shape)
    optimiser, loss = torch.optim.Adam(network.parameters(), lr=1e-3), nn.BCEWithLogitsLoss()

    def step(at: int) -> None:
        index = torch.arange(at * size, (at + 1) * size) % len(features)
        optimiser.zero_grad()
        loss(network(features[index])[:, 0], labels[index]).backward()
        optimiser.step()

    return step


def loader_epoch(x: np.ndarray, y: np.ndarray, shape: tuple[int, ...], size: int) -> float:
    """Return the seconds of an epoch of one network fed by a DataLoader, as in torch's tutorials."""
    there = ~np.isnan(y[:, 0])
    data = TensorDataset(torch.from_numpy(x[there]), torch.from_numpy(y[there, 0].astype("f4")))
    network = peer(x.shape[1], shape)
    optimiser, loss = torch.optim.Adam(network.parameters(), lr=1e-3), nn.BCEWithLogitsLoss()
    start = time.perf_counter()
    for features, labels in DataLoader(data, batch_size=size, shuffle=True):
        optimiser.zero_grad()
        loss(network(features)[:, 0], labels).backward()
        optimiser.step()
    return time.perf_counter() - start


def timed(steps: dict[str, Callable[[int], None]], per_round: int, rounds: int) -> dict[str, float]:
    """Return the median seconds per step of each side, measured in turns so that a busy machine slows both."""
    for step in steps.values():
        step(0)
        step(1)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for at in range(per_round):
                step(at)
            seconds[name].append((time.perf_counter() - start) / per_round)
    return {name: float(np.median(one)) for name, one in seconds.items()}


def speed(options: argparse.Namespace) -> None:
    x, y = cohort(options.studies, options.dim, options.tasks)
    size, half = options.batch, native_bfloat16("cpu")
    steps = math.ceil(len(x) / size)
    members = len(SHAPES) * options.tasks * options.seeds
    print(f"{members} members at {len(x):,} x {options.dim:,}, batches of {size}, {torch.get_num_threads()} threads")
    print(
        f"seconds per member and epoch; together: {options.tasks} tasks, {'bfloat16' if half else 'float32'} products"
    )
    total: dict[str, float] = {}
    for shape in SHAPES:
        sides = {
            "together": ours_step(x, y, shape, size, half=half),
            "together, float32": ours_step(x, y, shape, size, half=False),
            "torch": peer_step(x, y, shape, size),
        }
        found = {name: steps * one for name, one in timed(sides, options.batches, options.rounds).items()}
        for name in ("together", "together, float32"):
            found[name] /= options.tasks
        found["torch, DataLoader"] = loader_epoch(x, y, shape, size) * len(x) / (~np.isnan(y[:, 0])).sum()
        total = {name: total.get(name, 0.0) + one for name, one in found.items()}
        print(f"  {'-'.join(map(str, shape)):12s}" + "".join(f"   {name} {one:.3f}" for name, one in found.items()))
    for name in ("torch", "torch, DataLoader"):
        print(f"  {name:18s} against together over the three shapes: {total[name] / total['together']:.2f} x")
    each = members / len(SHAPES)
    print(
        f"  an epoch of the sweep: {each * total['together']:.0f} s together, {each * total['torch']:.0f} s one by one"
    )


def trained_alone(
    x: np.ndarray,
    y: np.ndarray,
    val: np.ndarray,
    y_val: np.ndarray,
    score: np.ndarray,
    *,
    seed: int,
    epochs: int,
    size: int,
) -> np.ndarray:
    """Return the scores of a plain network of the smallest shape at the best epoch on validation."""
    torch.manual_seed(seed)
    features, labels = torch.from_numpy(x), torch.from_numpy(y.astype("f4"))
    network, rng = peer(x.shape[1], SHAPES[0]), np.random.default_rng(seed)
    optimiser, loss = torch.optim.Adam(network.parameters(), lr=1e-3), nn.BCEWithLogitsLoss()
    best, scores, known = -np.inf, np.empty(0), ~np.isnan(y_val)
    for _ in range(epochs):
        network.train()
        for rows in batches(rng, len(features), size):
            index = torch.from_numpy(rows[~np.isnan(y[rows])])
            optimiser.zero_grad()
            loss(network(features[index])[:, 0], labels[index]).backward()
            optimiser.step()
        network.eval()
        with torch.inference_mode():
            of_val, of_score = (network(torch.from_numpy(one))[:, 0].numpy() for one in (val, score))
        reached = ranked_auroc(y_val[known] == 1, of_val[known])
        if reached > best:
            best, scores = reached, of_score
    return scores


def same_auroc(options: argparse.Namespace) -> None:
    x, y = cohort(options.studies + 4_000, options.dim, options.tasks)
    mean, spread = standardisation(x[: options.studies])
    x = ((x - mean) / spread).astype(np.float32)
    train, test = slice(0, options.studies), slice(options.studies + 1_000, None)
    val = slice(options.studies, options.studies + 1_000)
    schedule = Schedule(options.epochs, options.epochs, options.batch, 1e-3)
    mlp = Mlp(SHAPES[0], DROPOUT, half_precision=native_bfloat16("cpu"))
    found: dict[str, Any] = {"together": [], "torch": []}
    for seed in range(options.auroc_seeds):
        trained = train_mlps(x[train], y[train], x[val], y[val], x[test], mlp=mlp, schedule=schedule, seed=seed)
        found["together"].append(aurocs_of(y[test], trained.logits))
        alone = [
            trained_alone(
                x[train], y[train, t], x[val], y[val, t], x[test], seed=seed, epochs=options.epochs, size=options.batch
            )
            for t in range(y.shape[1])
        ]
        found["torch"].append(aurocs_of(y[test], np.stack(alone, axis=1).astype(float)))
    print(
        f"test AUROC of {'-'.join(map(str, SHAPES[0]))} after {options.epochs} epochs, mean over {options.auroc_seeds} seeds"
    )
    ours, theirs = np.array(found["together"]), np.array(found["torch"])
    for t in range(y.shape[1]):
        print(f"  task {t}: together {ours[:, t].mean():.4f}, torch {theirs[:, t].mean():.4f}")
    apart = (ours - theirs).mean(axis=0)
    noise = np.sqrt((ours.var(axis=0, ddof=1) + theirs.var(axis=0, ddof=1)).mean() / len(ours))
    print(
        f"  difference {apart.mean():+.4f}, by seed noise alone {noise / math.sqrt(len(apart)):.4f} (standard error); "
        f"of one task at most {np.abs(apart).max():.4f}, by seed noise {noise:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("speed", "auroc"))
    parser.add_argument("--studies", type=int, default=16_000)
    parser.add_argument("--dim", type=int, default=1_024)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--auroc-seeds", type=int, default=5)
    options = parser.parse_args()
    if options.only != "auroc":
        speed(options)
    if options.only != "speed":
        same_auroc(options)


if __name__ == "__main__":
    main()

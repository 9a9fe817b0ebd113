"""Networks trained together are the networks of torch.nn trained alone; padding counts for nothing; chance stays chance."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from fmaudit_core.probes.attention import Attention, AttentionStack, linear_start, train_attention
from fmaudit_core.probes.mlp import Mlp, MlpStack, train_mlps
from fmaudit_core.probes.mlp_stack import masked_loss
from fmaudit_core.probes.recurrent import Recurrent, RecurrentStack, SliceLstm, train_recurrent
from fmaudit_core.probes.slice_dataset import BaggedCohort
from fmaudit_core.probes.slice_store import slice_bags
from fmaudit_core.probes.training import Schedule, Stopping, aurocs_of, balanced_draw, ranked_auroc, trainable
from tests.probes.slices import planted

SHAPES = [(16, 8), (12,), (20, 12, 8)]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Bags:
    """Bags in memory, with the interface of those on disk."""

    def __init__(self, bags):
        self.bags, self.width = bags, bags[0].shape[1]

    def batch(self, rows):
        counts = np.array([len(self.bags[row]) for row in rows])
        out = np.zeros((len(rows), counts.max(), self.width), dtype=np.float32)
        for one, row in zip(out, rows, strict=True):
            one[: len(self.bags[row])] = self.bags[row]
        return out, np.arange(counts.max()) < counts[:, None]


def labels(rng, n, tasks, censored=0.25):
    """0, 1 and NaN."""
    y = (rng.random((n, tasks)) < 0.4).astype(float)
    y[rng.random((n, tasks)) < censored] = np.nan
    return y


def tensors(y):
    return torch.from_numpy(np.nan_to_num(y).astype(np.float32)), torch.from_numpy((~np.isnan(y)).astype(np.float32))


def sequential(stack, member, shape, dropout=0.0):
    """The member as torch.nn builds it, layer by layer, from the stack's first weights."""
    layers, before = [], stack.x.shape[1]
    for weight, scale, shift, width in zip(stack.weights, stack.scales, stack.shifts, shape, strict=True):
        linear, norm = nn.Linear(before, width, bias=False), nn.BatchNorm1d(width)
        with torch.no_grad():
            linear.weight.copy_(weight[member])
            norm.weight.copy_(scale[member])
            norm.bias.copy_(shift[member])
        layers += [linear, norm, nn.ReLU(), nn.Dropout(dropout)]
        before = width
    head = nn.Linear(before, 1)
    with torch.no_grad():
        head.weight.copy_(stack.head[[member]])
        head.bias.copy_(stack.bias[[member]])
    return nn.Sequential(*layers, head)


@pytest.mark.parametrize("shape", SHAPES)
def test_members_of_the_sweep_are_single_networks_of_torch(shape):
    """Same first weights and batches: after 12 steps of Adam outputs, parameters and running statistics agree to 1e-5."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 14)).astype(np.float32), labels(rng, 90, 3)
    stack = MlpStack(x, 3, Mlp(shape, dropout=0.0), seed=7)
    alone = [sequential(stack, member, shape) for member in range(3)]
    optimiser = torch.optim.Adam(stack.free(), lr=1e-2, fused=True)
    others = [torch.optim.Adam(one.parameters(), lr=1e-2) for one in alone]
    told, known = tensors(y)
    for step in range(12):
        rows = np.arange(step * 7, step * 7 + 30) % 90
        stack.descend(rows, told[rows], known[rows])
        optimiser.step()
        for member, (network, steps) in enumerate(zip(alone, others, strict=True)):
            there = known[rows, member] == 1
            network.train()
            steps.zero_grad()
            logit = network(torch.from_numpy(x[rows]))[:, 0]
            nn.functional.binary_cross_entropy_with_logits(logit[there], told[rows, member][there]).backward()
            steps.step()
    ours = stack.logits(torch.from_numpy(x)).detach()
    for member, network in enumerate(alone):
        network.eval()
        assert ours[:, member] == pytest.approx(network(torch.from_numpy(x))[:, 0].detach(), abs=1e-5)
        norms = [layer for layer in network if isinstance(layer, nn.BatchNorm1d)]
        for layer, norm in enumerate(norms):
            assert stack.means[layer][member] == pytest.approx(norm.running_mean, abs=1e-5)
            assert stack.variances[layer][member] == pytest.approx(norm.running_var, abs=1e-5)
    assert not torch.allclose(stack.head[0], stack.head[1])  # they started alike and went their own ways


def test_lost_units_are_those_of_dropout():
    """With the same units lost, logits and gradients are those of layers applied one by one."""
    rng = np.random.default_rng(1)
    x, shape = rng.normal(size=(40, 9)).astype(np.float32), (10, 6)
    stack = MlpStack(x, 2, Mlp(shape, dropout=0.3), seed=1)
    kept = stack.lost(40)
    assert {round(float(one), 4) for one in torch.cat([k.flatten() for k in kept]).unique()} == {0.0, 1.4286}
    share = float(torch.cat([(k > 0).float().flatten() for k in kept]).mean())
    assert share == pytest.approx(0.7, abs=0.08)
    network = sequential(stack, 1, shape)
    z = torch.from_numpy(x)
    for layer in range(2):
        z = network[4 * layer + 2](network[4 * layer + 1](network[4 * layer](z))) * kept[layer].T
    expected = network[-1](z)[:, 0]
    found = stack.logits(torch.from_numpy(x), kept, training=True)[:, 1]
    assert found.detach() == pytest.approx(expected.detach(), abs=1e-5)
    found.square().sum().backward()
    expected.square().sum().backward()
    for layer in range(2):
        assert stack.weights[layer].grad[1] == pytest.approx(network[4 * layer].weight.grad, abs=1e-4)
        assert not stack.weights[layer].grad[0].any()


def test_half_precision_steps_like_single_precision():
    """Weights' gradients written past autograd are the gradients; bfloat16 rounds them to three digits."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(256, 32)).astype(np.float32), labels(rng, 256, 4)
    rows, (told, known) = np.arange(256), tensors(y)
    stacks = [MlpStack(x, 4, Mlp((24, 12), dropout=0.0, half_precision=half), seed=3) for half in (False, True)]
    for _ in range(2):  # a second descent replaces the first, it does not add to it
        for stack in stacks:
            stack.descend(rows, told, known)
    for exact, rounded in zip(*(stack.free() for stack in stacks), strict=True):
        apart = (exact.grad - rounded.grad).norm() / exact.grad.norm()
        assert apart < 0.05


def test_a_member_stops_by_itself_and_leaves_the_others_as_they_were():
    """A task with nothing to learn stops early; what the other comes to does not depend on its company."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 10)).astype(np.float32)
    signal = (x[:, 0] + 0.7 * rng.normal(size=400) > 0).astype(float)
    y = np.stack([signal, (rng.random(400) < 0.5).astype(float)], axis=1)
    options = {"mlp": Mlp((8,), dropout=0.0), "schedule": Schedule(40, 4, 64), "seed": 5}
    both = train_mlps(x[:200], y[:200], x[200:], y[200:], x, **options)
    alone = train_mlps(x[:200], y[:200, :1], x[200:], y[200:, :1], x, **options)
    assert both.epochs[1] < both.epochs[0] or both.epochs[1] == both.best_epoch[1] + 4
    assert both.logits[:, 0] == pytest.approx(alone.logits[:, 0], abs=1e-4)
    assert both.val_auroc[0] == pytest.approx(alone.val_auroc[0], abs=1e-6)
    # the score is that of the best epoch, not of the last
    assert aurocs_of(y[200:], both.logits[200:]) == pytest.approx(both.val_auroc)


def gated(stack, member, bag):
    """One study's log odds and slice weights, written as equation 9 of Ilse et al. reads."""
    v, u = nn.Linear(stack.bags.width, stack.attention.hidden), nn.Linear(stack.bags.width, stack.attention.hidden)
    with torch.no_grad():
        for layer, weight, bias in ((v, stack.v, stack.v0), (u, stack.u, stack.u0)):
            layer.weight.copy_(weight[member])
            layer.bias.copy_(bias[member])
    h = torch.from_numpy(bag)
    score = (torch.tanh(v(h)) * torch.sigmoid(u(h))) @ stack.w[member]
    weights = torch.exp(score - score.max())
    weights = weights / weights.sum()
    return weights @ h @ stack.head[member] + stack.bias[member], weights, (v, u)


def test_attention_is_equation_nine_and_padding_counts_for_nothing():
    rng = np.random.default_rng(6)
    bags = Bags([rng.normal(size=(k, 7)).astype(np.float32) for k in (1, 5, 9, 3)])
    stack = AttentionStack(bags, np.arange(4), 2, Attention(hidden=6, dropout=0.0), seed=8)
    assert stack.weights(*stack.read(np.arange(4)))[2, 0, :9].detach() == pytest.approx(1 / 9)  # alike at the start
    with torch.no_grad():
        stack.w.copy_(torch.from_numpy(rng.normal(size=(2, 6)).astype(np.float32)))
    logits = stack.logits(*stack.read(np.arange(4)))
    shares = stack.weights(*stack.read(np.arange(4)))
    for at, bag in enumerate(bags.bags):
        for member in range(2):
            expected, weights, _ = gated(stack, member, bag)
            assert float(logits[at, member].detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
            assert shares[at, member, : len(bag)].detach() == pytest.approx(weights.detach(), abs=1e-6)
            assert not shares[at, member, len(bag) :].any()
    logits[:, 1].sum().backward()
    summed = torch.zeros_like(stack.v[1])
    for bag in bags.bags:
        logit, _, (v, _) = gated(stack, 1, bag)
        logit.backward(inputs=[v.weight])
        summed += v.weight.grad
    assert stack.v.grad[1] == pytest.approx(summed, abs=1e-5)
    assert not stack.v.grad[0].any()


def test_the_recurrent_network_reads_slices_of_one_study_and_no_padding():
    """A batch gives what each study gives alone, cell by cell in both directions: INSPECT's faults are not here."""
    rng = np.random.default_rng(9)
    bags = Bags([rng.normal(size=(k, 5)).astype(np.float32) for k in (4, 1, 7)])
    stack = RecurrentStack(bags, np.arange(3), Recurrent(hidden=6, dropout=0.0), 3, "cpu")
    found = stack.scored(np.arange(3))[:, 0]
    lstm = stack.network.lstm
    for at, bag in enumerate(bags.bags):
        states = []
        for suffix, order in (("", 1), ("_reverse", -1)):
            cell = nn.LSTMCell(5, 6)
            with torch.no_grad():
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(cell, name).copy_(getattr(lstm, f"{name}_l0{suffix}"))
            h, c, out = torch.zeros(1, 6), torch.zeros(1, 6), []
            for one in bag[::order]:
                h, c = cell(torch.from_numpy(one)[None], (h, c))
                out.append(h[0])
            states.append(torch.stack(out[::order]))
        pooled = torch.cat(states, dim=1).amax(dim=0)
        assert found[at] == pytest.approx(float(stack.network.head(pooled).detach()), abs=1e-5)
    assert isinstance(stack.network, SliceLstm)


def test_unknown_labels_count_for_nothing():
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5], [-0.7, 1.5]], requires_grad=True)
    y, known = torch.tensor([[1.0, 0], [0, 1], [1, 1]]), torch.tensor([[1.0, 0], [1, 0], [0, 0]])
    loss = masked_loss(logits, y, known)
    expected = nn.functional.binary_cross_entropy_with_logits(logits[:2, 0], y[:2, 0])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()))
    loss.backward()
    assert not logits.grad[2].any()
    assert not logits.grad[:, 1].any()


def test_classes_are_drawn_equally_often_and_only_known_ones():
    y = np.array([1.0] * 10 + [0.0] * 90 + [np.nan] * 20)
    drawn = np.concatenate(balanced_draw(np.random.default_rng(0), y, np.arange(100), 16))
    assert len(drawn) == 100
    assert drawn.max() < 100
    many = np.concatenate(
        [np.concatenate(balanced_draw(np.random.default_rng(k), y, np.arange(100), 16)) for k in range(40)]
    )
    assert np.mean(y[many]) == pytest.approx(0.5, abs=0.03)


def test_stopping_waits_for_patience_and_keeps_the_first_of_equals():
    stopping = Stopping(1, patience=2)
    seen = [
        stopping.see(np.array([0]), np.array([value]), epoch) for epoch, value in enumerate((0.6, 0.7, 0.7, 0.6), 1)
    ]
    assert [(bool(better[0]), bool(on[0])) for better, on in seen] == [
        (True, True),
        (True, True),
        (False, True),
        (False, False),
    ]
    assert stopping.best_epoch.tolist() == [2]
    assert stopping.epochs.tolist() == [4]


def test_aurocs_are_those_of_scikit_learn_and_a_task_needs_both_classes():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    y, score = rng.random(200) < 0.3, np.round(rng.normal(size=200), 1)
    assert ranked_auroc(y, score) == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    one_class = np.array([[1.0, 1.0], [np.nan, 0.0]])
    assert trainable(one_class, one_class[:, [1, 1]]).tolist() == [False, True]


@contextmanager
def cohort_of_slices(tmp_path, **options):
    path = tmp_path / "e.duckdb"
    studies, truth, _ = planted(path, **options)
    ids = studies["study_id"].to_list()
    split, y = studies["split"].to_numpy(), truth["label"].to_numpy().astype(float)[:, None]
    train, val, test = (np.flatnonzero(split == name) for name in ("train", "val", "test"))
    names = [ids[row] for row in train]
    with slice_bags(path, ids, names, components=0, most_slices=250, folder=tmp_path) as bags:
        yield bags, y, train, val, test


def fitted(kind, bags, y, train, val, test):
    """One network of a kind on one task."""
    options = {"schedule": Schedule(20, 5, 64, 3e-3), "seed": 0}
    if kind == "mlp":
        x = np.stack([bags.batch(np.array([row]))[0][0].mean(axis=0) for row in range(len(y))])
        return train_mlps(x[train], y[train], x[val], y[val], x[test], mlp=Mlp((32, 16)), **options)
    cohort = BaggedCohort(bags, train, y[train], val, y[val], test)
    if kind == "abmil":
        return train_attention(cohort, start=linear_start(cohort), attention=Attention(16), **options)
    return train_recurrent(cohort, recurrent=Recurrent(16), **options)


@pytest.mark.parametrize("kind", ["abmil", "lrcn", "mlp"])
def test_shuffled_labels_are_chance_for_every_network(kind, tmp_path):
    """Labels dealt at random leave AUROC within three standard errors of 0.5 on studies where the true ones are found."""
    with cohort_of_slices(tmp_path, n=1_400, d=8, length=(5, 8), seed=3) as (bags, y, *splits):
        dealt = np.random.default_rng(12).permutation(y)
        found = {name: fitted(kind, bags, of, *splits) for name, of in (("dealt", dealt), ("true", y))}
    test = splits[2]
    n_pos, n_neg = (y[test] == 1).sum(), (y[test] == 0).sum()
    se = np.sqrt((n_pos + n_neg + 1) / (12 * n_pos * n_neg))
    assert abs(aurocs_of(dealt[test], found["dealt"].logits)[0] - 0.5) < 3 * se
    assert aurocs_of(y[test], found["true"].logits)[0] > 0.5 + 6 * se


def test_attention_and_recurrence_find_what_lies_in_two_slices(tmp_path):
    with cohort_of_slices(tmp_path, n=900, d=12, length=(10, 14), strength=3.5) as (bags, y, train, val, test):
        cohort, schedule = BaggedCohort(bags, train, y[train], val, y[val], test), Schedule(40, 10, 32, 3e-3, 200)
        attended = train_attention(
            cohort, start=linear_start(cohort), attention=Attention(64), schedule=schedule, seed=0
        )
        read = train_recurrent(cohort, recurrent=Recurrent(24), schedule=schedule, seed=0)
    assert aurocs_of(y[test], attended.logits)[0] > 0.9
    assert aurocs_of(y[test], read.logits)[0] > 0.9

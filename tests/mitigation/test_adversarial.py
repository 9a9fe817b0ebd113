"""Networks with an adversary: the gradient that is turned round, many at once as each alone, and what fresh probes still read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fmaudit_core.mitigation import adversarial
from fmaudit_core.mitigation.adversarial import GradientReversal, Training, _Stack, ramp, train, training_length


def reverse(strength):
    return lambda x: GradientReversal.apply(x, strength)


def test_the_reversal_passes_gradcheck_against_the_function_whose_gradient_it_gives():
    """Forwards it is the identity, so torch's check is made of a function whose derivative is known: identity at strength -1."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(reverse(torch.tensor(-1.0, dtype=torch.float64)), (x,))
    for strength in (0.5, 1.0, 2.0):
        twice = reverse(torch.tensor(1.0 / strength, dtype=torch.float64))
        once = reverse(torch.tensor(strength, dtype=torch.float64))
        # two reversals whose strengths multiply to 1 are the identity's derivative again
        assert torch.autograd.gradcheck(lambda one, a=once, b=twice: torch.sin(a(b(one))), (x,))
        weight = torch.randn(4, 3, dtype=torch.float64)
        (turned,) = torch.autograd.grad((once(x) * weight).sum(), x)
        assert torch.allclose(turned, -strength * weight)
        assert torch.equal(once(x), x)


def test_the_ramp_is_the_published_one():
    assert ramp(0.0) == 0.0
    assert ramp(0.5) == pytest.approx(2 / (1 + np.exp(-5)) - 1)
    assert 0.999 < ramp(1.0) < 1.0


def planted(n=4_000, d=24, seed=0, readable=2.4):
    """A subgroup that can be read off linearly, and a disease on other axes."""
    rng = np.random.default_rng(seed)
    group = (rng.random(n) < 0.3).astype(int)
    y = (rng.random(n) < 0.35).astype(float)
    x = rng.normal(size=(n, d))
    x[:, :4] += readable / 2 * group[:, None]
    x[:, 6:10] += 1.0 * y[:, None]
    return x.astype(np.float32), y, group


def fresh_auroc(hidden, group):
    half = len(group) // 2
    probe = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1_000).fit(hidden[:half], group[:half])
    return roc_auc_score(group[half:], probe.decision_function(hidden[half:]))


def test_a_fresh_probe_reads_less_of_a_linearly_planted_attribute_and_the_task_is_kept():
    x, y, group = planted()
    learned, held_out = slice(0, 2_000), slice(2_000, None)
    found = train(
        x[learned], np.stack([y[learned]] * 2, axis=1), np.stack([group[learned]] * 2, axis=1),
        alpha=[0.0, 2.0], seed=[1, 1], training=Training(hidden=32, batch_size=128),
    )  # fmt: skip
    prepared = found.prepared(x[held_out])
    before, after = (fresh_auroc(found.hidden(prepared, network), group[held_out]) for network in (0, 1))
    assert before > 0.85
    assert after < before - 0.15
    task = [roc_auc_score(y[held_out], logit) for logit in found.logits(prepared)]
    assert task[1] > 0.85
    assert task[1] > task[0] - 0.05


def test_an_attribute_that_has_nothing_to_do_with_the_task_does_not_stand_out_more_than_before():
    """What an adversary that lags behind brings about: the encoder fools it, and a fresh probe reads more."""
    rng = np.random.default_rng(5)
    n, d = 4_000, 200
    x, y, group = rng.normal(size=(n, d)), (rng.random(n) < 0.3).astype(float), (rng.random(n) < 0.5).astype(int)
    x[:, :30] += 0.15 * y[:, None]
    x[:, 30:60] += 0.25 * group[:, None]
    learned, held_out = slice(0, 2_000), slice(2_000, None)
    found = train(
        x[learned].astype(np.float32), np.stack([y[learned]] * 3, axis=1), np.stack([group[learned]] * 3, axis=1),
        alpha=[0.0, 0.5, 2.0], seed=[1, 1, 1], training=Training(hidden=32),
    )  # fmt: skip
    prepared = found.prepared(x[held_out].astype(np.float32))
    before, half, twice = (fresh_auroc(found.hidden(prepared, network), group[held_out]) for network in range(3))
    assert before > 0.55
    assert half < before + 0.02
    assert twice < before + 0.02


def few_and_noisy():
    """Labels of which a quarter is wrong, and features enough to learn them by heart."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2_400, 60)).astype(np.float32), (rng.random(2_400) < 0.4).astype(float)
    x[:, :30] += 2 / np.sqrt(30) * y[:, None]
    return x, np.where(rng.random(2_400) < 0.25, 1 - y, y)


def test_training_is_as_long_as_validation_gets_better():
    x, y = few_and_noisy()
    learned, val, test = slice(0, 400), slice(400, 1_000), slice(1_000, None)
    longest = Training(hidden=32, epochs=400, batch_size=100, learning_rate=1e-3)
    of = (x[learned], y[learned, None]), (x[val], y[val, None])
    length = training_length(*of[0], *of[1], seed=[1], training=longest)
    assert length < longest.steps(400) / 2
    aurocs = []
    for steps in (length, longest.steps(400)):
        found = train(*of[0], np.full((400, 1), -1), alpha=[0.0], seed=[1], training=replace(longest, max_steps=steps))
        aurocs.append(roc_auc_score(y[test], found.logits(found.prepared(x[test]))[0]))
    assert aurocs[0] > aurocs[1] + 0.03
    assert training_length(*of[0], *of[1], seed=[1], training=longest) == length


def test_where_validation_has_one_class_training_is_as_long_as_it_may_be():
    x, y = few_and_noisy()
    longest = Training(hidden=8, epochs=3, batch_size=100)
    assert training_length(x[:400], y[:400, None], x[400:], np.ones((2_000, 1)), seed=[1], training=longest) == 12


def test_products_in_half_precision_lead_to_the_same_ranking():
    x, y, group = planted(2_000)
    aucs = []
    for half in (False, True):
        alike = Training(hidden=16, epochs=20, batch_size=128, learning_rate=1e-3, half_precision=half)
        found = train(x[:1_000], y[:1_000, None], group[:1_000, None], alpha=[1.0], seed=[0], training=alike)
        aucs.append(roc_auc_score(y[1_000:], found.logits(found.prepared(x[1_000:]))[0]))
    assert aucs[0] > 0.8
    assert aucs[1] == pytest.approx(aucs[0], abs=0.01)


def test_networks_trained_together_are_those_trained_alone():
    x, y, group = planted(400, 10)
    other = np.where(np.arange(400) < 40, np.nan, 1 - y)
    alike = Training(hidden=8, epochs=3, batch_size=64)
    together = train(
        x, np.stack([y, other, y], axis=1), np.stack([group, group, np.full(400, -1)], axis=1),
        alpha=[1.0, 0.5, 0.0], seed=[3, 3, 3], training=alike,
    )  # fmt: skip
    alone = train(x, other[:, None], group[:, None], alpha=[0.5], seed=[3], training=alike)
    assert together.w1[1] == pytest.approx(alone.w1[0], abs=2e-5)
    assert together.head[1] == pytest.approx(alone.head[0], abs=2e-5)
    assert np.abs(together.w1[0] - together.w1[1]).max() > 1e-3


def test_the_stacked_loss_equals_plain_torch_of_one_network():
    x, y, group = planted(200, 6)
    y[:30] = np.nan
    stack = _Stack(x, y[:, None], group[:, None], [1.0], [0], Training(hidden=5), "cpu")
    ours = stack.losses(torch.arange(200), torch.tensor([0.7]))
    known = ~np.isnan(y)
    features = torch.from_numpy(x)
    hidden = torch.relu(features @ stack.w1 + stack.b1)
    logits = (hidden @ stack.head[0] + stack.bias[0])[torch.from_numpy(known)]
    task = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(y[known]).float())
    told = torch.relu(hidden @ stack.a1[0] + stack.c1[0]) @ stack.a2[0] + stack.c2[0]
    counts = np.bincount(group[known], minlength=2)
    adversary = torch.nn.functional.cross_entropy(
        told[torch.from_numpy(known)], torch.from_numpy(group[known]),
        weight=torch.from_numpy(known.sum() / (2 * counts)).float(),
    )  # fmt: skip
    assert ours.item() == pytest.approx((task + adversary).item(), rel=1e-5)


def test_the_same_seed_gives_the_same_networks_and_another_seed_others():
    x, y, group = planted(300, 8)
    again = [
        train(x, y[:, None], group[:, None], alpha=[1.0], seed=[s], training=Training(hidden=8, epochs=2)).w1
        for s in (1, 1, 2)
    ]
    assert np.array_equal(again[0], again[1])
    assert not np.array_equal(again[0], again[2])


def test_training_ends_with_its_steps_as_with_its_passes():
    x, y, group = planted(300, 8)
    ends = [Training(hidden=8, batch_size=100, epochs=3), Training(hidden=8, batch_size=100, epochs=50, max_steps=9)]
    first, second = (train(x, y[:, None], group[:, None], alpha=[1.0], seed=[1], training=end).w1 for end in ends)
    assert np.array_equal(first, second)


def test_networks_trained_in_turns_are_those_trained_at_once_and_take_as_long(monkeypatch):
    """Memory is bounded by turns; which turn a network falls into changes nothing, its batches least of all."""
    x, y, group = planted(300, 10)
    labels, groups = np.stack([y, 1 - y, y], axis=1), np.stack([group] * 3, axis=1)
    found, lengths = [], []
    for most in (40_000_000, 1):
        monkeypatch.setattr(adversarial, "_MAX_WEIGHTS", most)
        monkeypatch.setattr(adversarial, "_MAX_HIDDEN", most)
        brief = Training(hidden=8, epochs=5, batch_size=50)
        found.append(train(x, labels, groups, alpha=[1.0, 0.5, 0.0], seed=[4, 3, 5], training=brief))
        lengths.append(
            training_length(x[:200], labels[:200], x[200:], labels[200:], seed=[4, 3, 5], training=brief)
        )  # fmt: skip
    assert found[1].w1 == pytest.approx(found[0].w1, abs=2e-5)
    assert found[1].head == pytest.approx(found[0].head, abs=2e-5)
    assert lengths[0] == lengths[1]


def test_the_length_is_told_by_validation_at_the_looks_and_by_all_networks_together(monkeypatch):
    """Against a plain loop: networks trained to each look, their AUROC on validation averaged."""
    monkeypatch.setattr(adversarial, "_LOOKS", 5)
    x, y = few_and_noisy()
    labels = np.stack([y, np.where(np.arange(2_400) % 7 == 0, np.nan, 1 - y)], axis=1)
    longest = Training(hidden=16, epochs=100, batch_size=100, learning_rate=1e-3)
    looks = np.unique(np.geomspace(20, 400, 5).round().astype(int))
    reached = []
    for steps in looks:
        alike = replace(longest, max_steps=int(steps))
        found = train(x[:400], labels[:400], np.full((400, 2), -1), alpha=[0.0, 0.0], seed=[1, 2], training=alike)
        logits = found.logits(found.prepared(x[400:1_000]))
        known = ~np.isnan(labels[400:1_000])
        reached.append(np.mean([roc_auc_score(labels[400:1_000][k, j], logits[j, k]) for j, k in enumerate(known.T)]))
    length = training_length(x[:400], labels[:400], x[400:1_000], labels[400:1_000], seed=[1, 2], training=longest)
    assert length == looks[int(np.argmax(reached))]

"""Refits with equal training counts: the draws, the contrast against a second implementation, planted truths."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from benchmarks.bench_training_counts import TRUTHS, drawn, found, simulated
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.thresholds import choose_threshold
from fmaudit_core.fairness.training_counts import SEEDS, Probed, training_counts
from fmaudit_core.fairness.training_draws import STEPS, counts_at, draw_training, smallest_counts

NONE, FEW, HARD = TRUTHS


def test_draws_have_equal_counts_or_the_same_total_and_each_step_contains_the_previous_one():
    rng = np.random.default_rng(0)
    place = rng.choice([-1, 0, 1, 2], 3_000, p=[0.1, 0.2, 0.3, 0.4])
    y = rng.random(3_000) < 0.2
    each = smallest_counts(place, y)
    assert each == (int((y & (place == 0)).sum()), int((~y & (place == 0)).sum()))
    draw = draw_training(place, y, each, rng)
    for step in range(STEPS):
        for outcome, n in zip((True, False), counts_at(step, each), strict=True):
            assert [int((draw.equal[step] & (place == level) & (y == outcome)).sum()) for level in range(3)] == [n] * 3
        assert not step or not (draw.equal[step - 1] & ~draw.equal[step]).any()
    for outcome, n in zip((True, False), each, strict=True):
        assert int((draw.random & (y == outcome)).sum()) == 3 * n
    assert not (draw.random | draw.equal[-1])[place < 0].any()
    assert (draw.equal[-1] & (place == 0)).sum() == (place == 0).sum()  # the smallest subgroup is whole


def test_gaps_are_those_of_scikit_learn_fitted_to_the_same_draws(monkeypatch):
    probed = drawn(FEW, np.random.default_rng(1))
    made = []

    def remember(*given):
        made.append(draw_training(*given))
        return made[-1]

    monkeypatch.setattr("fmaudit_core.fairness.training_counts.draw_training", remember)
    counts = training_counts(probed, ["group"], FairnessSection()).counts
    row = counts.row(by_predicate=pl.col("subgroup") == "few", named=True)
    train, val, test = (probed.inside(one) for one in ("train", "val", "test"))
    mean, scale = probed.x[train].mean(axis=0), probed.x[train].std(axis=0)
    x, y = (probed.x - mean) / scale, probed.y_true
    member = (probed.studies["group"] == "few").to_numpy()

    def gap(studies):
        peer = LogisticRegression(C=probed.c, tol=1e-8, max_iter=2_000).fit(x[train][studies], y[train][studies])
        score = peer.decision_function(x)
        missed = score < choose_threshold(y[val], score[val], FairnessSection())
        return missed[test & y & member].mean() - missed[test & y & ~member].mean()

    assert len(made) == SEEDS
    assert row["gap_all"] == pytest.approx(gap(np.ones(int(train.sum()), bool)))
    assert row["gap_equal"] == pytest.approx(np.mean([gap(one.equal[-1]) for one in made]))
    assert row["gap_random"] == pytest.approx(np.mean([gap(one.random) for one in made]))
    assert row["gap_contrast"] == pytest.approx(row["gap_random"] - row["gap_equal"])
    assert row["gap_contrast"] == pytest.approx(row["rest_change"] - row["subgroup_change"])


def test_both_sides_of_two_subgroups_tell_the_same():
    counts = training_counts(drawn(FEW, np.random.default_rng(2)), ["group"], FairnessSection()).counts
    few, many = counts.sort("subgroup").to_dicts()
    assert few["gap_contrast"] == pytest.approx(-many["gap_contrast"])
    assert few["gap_contrast_p"] == pytest.approx(many["gap_contrast_p"])
    assert few["gap_contrast_low"] < few["gap_contrast"] < few["gap_contrast_high"]


def test_learning_curves_end_with_the_equal_counts():
    made = training_counts(drawn(FEW, np.random.default_rng(3)), ["group"], FairnessSection())
    last = made.curves.filter(step=STEPS)
    gap = last.filter(subgroup="few")["value"][0] - last.filter(subgroup="many")["value"][0]
    assert gap == pytest.approx(made.counts.filter(subgroup="few")["gap_equal"][0])
    assert made.curves.filter(subgroup="few")["n_pos"].is_sorted()
    assert (made.curves["lowest"] <= made.curves["value"]).all()
    assert (made.curves["value"] <= made.curves["highest"]).all()


def test_few_training_studies_are_a_status_and_small_subgroups_take_no_part():
    probed = drawn(FEW, np.random.default_rng(4))
    in_train = pl.col("split") == "train"
    some = pl.when(in_train & pl.col("y_true") & (pl.col("group") == "few") & (pl.int_range(pl.len()) % 9 > 0))
    few = probed.studies.with_columns(group=some.then(pl.lit("many")).otherwise("group"))
    made = training_counts(Probed(probed.x, few, probed.c, probed.key), ["group"], FairnessSection())
    assert made.counts["status"].to_list() == ["few_training"] * 2
    assert made.counts["gap_contrast"].to_list() == [None, None]
    assert made.curves.is_empty()
    rare = pl.when(pl.int_range(pl.len()) % 100 == 0).then(pl.lit("rare")).otherwise("group")
    named = Probed(probed.x, probed.studies.with_columns(group=rare), probed.c, probed.key)
    assert training_counts(named, ["group"], FairnessSection()).counts["subgroup"].to_list() == ["few", "many"]
    alone = Probed(probed.x, probed.studies.with_columns(group=pl.lit("all")), probed.c, probed.key)
    assert training_counts(alone, ["group"], FairnessSection()).counts.is_empty()


def test_planted_truths_are_told_apart():
    """A short form of benchmarks/bench_training_counts.py; bounds as unlikely as four standard errors."""
    n = 12
    none, few, hard = (simulated(truth, range(n)) for truth in TRUTHS)
    most = binom.ppf(1 - 3e-5, n, 0.05) / n
    assert none["rejected"] <= most
    assert hard["rejected"] <= most
    assert abs(none["gap_contrast"]) < 0.03
    assert abs(hard["gap_contrast"]) < 0.03
    assert hard["gap_random"] > 0.1
    assert few["rejected"] >= binom.ppf(3e-5, n, 0.79) / n
    assert few["gap_random"] > 0.15
    assert abs(few["gap_equal"]) < 0.08


def test_the_same_seed_gives_the_same_rows():
    assert found(NONE, 0) == found(NONE, 0)

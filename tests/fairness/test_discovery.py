"""The search for hidden subgroups: the statistic and its variance, the finders, what is described, planted truths and nulls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import fisher_exact
from sklearn.linear_model import Ridge

from benchmarks.bench_discovery import TRUTHS, drawn, simulated
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.discovery import discover
from fmaudit_core.fairness.excess_misses import (
    Scored,
    compare_with_rest,
    excess_misses,
    log_odds_of,
    miss_residuals,
    recalibration_slope,
    standard_error,
)
from fmaudit_core.fairness.miss_direction import Choice, choose, fit_directions, separation, top
from fmaudit_core.fairness.miss_rules import conditions_of, find_rules, jaccard
from fmaudit_core.fairness.region_search import DIRECTION, RULES, Searched, sides_of
from fmaudit_core.fairness.region_traits import traits_of

#: two thirds of the patients of the benchmark
BY_NAME = {truth.name: replace(truth, patients=12_000, dim=32) for truth in TRUTHS}
PLANTED = BY_NAME["direction, 10 %, 37 points"]
BY_RULE = BY_NAME["rules, 10 %, 37 points"]
SETTINGS = FairnessSection()
SHARES = (0.1, 0.2)


def scored(n_patients=400, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 3, n_patients))
    log_odds = rng.normal(-0.5, 1.2, len(patient)) + 0.6 * rng.normal(size=n_patients)[patient]
    y = rng.random(len(patient)) < 1 / (1 + np.exp(-log_odds - shift))
    return Scored(y, log_odds, log_odds < 0.0, patient)


def test_the_excess_is_what_was_missed_less_what_scores_predict():
    studies = scored()
    found, p = excess_misses(studies), studies.probability
    assert p.sum() == pytest.approx(studies.y_true.sum())
    assert found.udr == pytest.approx(studies.uncalled[studies.y_true].mean())
    assert found.expected == pytest.approx(p[studies.uncalled].sum() / p.sum())
    assert found.influence.sum() == pytest.approx(0, abs=1e-9)


def test_its_variance_is_that_of_leaving_patients_out():
    studies = scored(250)
    region = np.random.default_rng(1).random(250)[studies.patient] < 0.4
    full = compare_with_rest(studies, region)
    kept = [studies.patient != one for one in range(250)]
    left_out = [compare_with_rest(studies.only(one), region[one]).value for one in kept]
    jackknife = (249 / 250) * ((np.array(left_out) - np.mean(left_out)) ** 2).sum()
    assert full.se**2 == pytest.approx(jackknife, rel=0.1)
    assert standard_error(studies, 0.4) == pytest.approx(full.se, rel=0.25)


def test_milder_disease_or_another_prevalence_is_no_excess():
    n = 40_000
    rng = np.random.default_rng(2)
    y = rng.random(n) < np.where(np.arange(n) < n // 2, 0.1, 0.3)
    log_odds = 1.4 * (rng.normal(size=n) + 1.4 * y)
    studies = Scored(y, log_odds, log_odds < 1.2, np.arange(n))
    by_prevalence = compare_with_rest(studies, np.arange(n) < n // 2)
    assert abs(by_prevalence.value) < 0.02
    milder = scored(30_000)
    lower = milder.log_odds + np.random.default_rng(3).normal(size=len(milder.log_odds)) < -0.5
    by_severity = compare_with_rest(milder, lower)
    assert by_severity.region.udr - by_severity.rest.udr > 0.2
    assert abs(by_severity.value) < 4 * by_severity.se


def test_residuals_stand_out_where_scores_see_less_and_not_for_milder_disease_or_another_prevalence():
    n = 40_000
    rng = np.random.default_rng(5)
    first = np.arange(n) < n // 2
    y = rng.random(n) < np.where(first, 0.1, 0.3)
    shift = 1.4 * rng.normal(size=n)
    evenly = Scored(y, shift + 1.96 * y, shift + 1.96 * y < 1.2, np.arange(n))
    assert abs(separation(miss_residuals(evenly), first)) < 4
    milder = scored(30_000)
    assert abs(separation(miss_residuals(milder), milder.log_odds < -1.0)) < 4
    less = shift + np.where(first, 0.5, 1.96) * y
    assert separation(miss_residuals(Scored(y, less, less < 1.2, np.arange(n))), first) > 10


def test_slopes_are_recalibrated_on_validation_and_never_turned_round():
    studies = scored(3_000)
    too_extreme = 1 / (1 + np.exp(-2 * studies.log_odds))
    assert recalibration_slope(studies.y_true, too_extreme, studies.patient) == pytest.approx(0.5, abs=0.06)
    assert recalibration_slope(studies.y_true, 1 - too_extreme, studies.patient) == 1.0
    assert np.isfinite(log_odds_of(np.array([0.0, 1.0]))).all()


@pytest.mark.parametrize("dim", [20, 700])
def test_a_direction_is_a_ridge_regression_and_uncorrelated_with_the_score(dim):
    rng = np.random.default_rng(0)
    x, score = rng.normal(size=(500, dim)).astype(np.float32), rng.normal(size=500)
    x[:, 0] += score
    residual = rng.normal(size=500)
    x -= x.mean(axis=0)
    (found,) = fit_directions(x, score, residual, [Choice(3.0, 0.2, twice=False)])
    along = found.along(x, score)
    assert abs(np.corrcoef(along, score)[0, 1]) < 0.01
    centred = score - score.mean()
    rest = x - np.outer(centred, centred @ x / (centred @ centred))
    penalty = 3.0 * (rest**2).sum() / min(x.shape)
    peer = Ridge(alpha=penalty, fit_intercept=False).fit(rest, residual - residual.mean())
    assert found.weights == pytest.approx(peer.coef_, abs=1e-4)
    assert top(along, 0.2).sum() == 100


def test_the_size_of_a_region_is_chosen_out_of_fold_by_what_is_tested():
    search, _ = sides_of(drawn(PLANTED, np.random.default_rng(0))[0])
    chosen, z = choose(search.x, search.scored, search.residual, SHARES, 0)
    assert z > 4
    assert chosen.share == 0.1
    assert choose(search.x, search.scored, np.random.default_rng(1).permutation(search.residual), SHARES, 0)[1] < 3


def test_a_second_regression_turns_the_direction_towards_a_cluster_and_stays_where_there_is_none():
    rng = np.random.default_rng(0)
    member, score = rng.random(6_000) < 0.1, rng.normal(size=6_000)
    x = rng.normal(size=(6_000, 30)).astype(np.float32)
    residual = member + 3 * rng.normal(size=6_000)
    choices = [Choice(1.0, 0.1, twice) for twice in (False, True)]

    def cosines(features, of):
        once, twice = (
            one.weights / np.linalg.norm(one.weights) for one in fit_directions(features, score, residual, choices)
        )
        return once @ of, twice @ of, once @ twice

    cluster = x.copy()
    cluster[:, 3] += 3 * member
    once, twice, _ = cosines(cluster - cluster.mean(axis=0), np.eye(30)[3])
    assert once < 0.95
    assert twice > once + 0.03
    assert cosines(x, np.eye(30)[3])[2] > 0.98


def test_regions_of_one_outcome_do_not_stand_out():
    rng = np.random.default_rng(0)
    x, log_odds = rng.normal(size=(400, 3)).astype(np.float32), rng.normal(size=400)
    lone = Scored(np.arange(400) == 7, log_odds, log_odds < 0.0, np.arange(400))
    assert choose(x, lone, x[:, 0].astype(np.float64), SHARES, 0)[1] == -np.inf


def test_rules_are_found_with_their_conditions_and_enough_patients():
    rng = np.random.default_rng(0)
    n = 3_000
    columns = {
        "sex": rng.choice(["f", "m"], n),
        "scanner": rng.choice(["A", "B", "C"], n),
        "n": rng.choice(list("xyz"), n),
    }
    planted = (columns["sex"] == "f") & (columns["scanner"] == "B")
    residual = rng.normal(size=n) + 1.0 * planted
    askable = {name: sorted(set(values)) for name, values in columns.items()}
    conditions = conditions_of(columns, askable)
    (best, *_) = find_rules(conditions, residual, np.ones(n, bool), np.ones(n), least=25, most=2)
    assert {(one.column, one.level, one.holds) for one in (conditions.names[at] for at in best.at)} == {
        ("sex", "f", True), ("scanner", "B", True),
    }  # fmt: skip
    assert (conditions.region(best.at) == planted).all()
    few = np.zeros(n, dtype=bool)
    few[np.flatnonzero(planted)[:20]] = True
    few[np.flatnonzero(~planted)[:60]] = True
    for rule in find_rules(conditions, residual, few, np.ones(n), least=25, most=2):
        assert few[conditions.region(rule.at)].sum() >= 25
    times = rng.integers(0, 3, n)
    rows = np.repeat(np.arange(n), times)
    weighted = find_rules(conditions, residual, np.ones(n, bool), times.astype(float), least=25, most=2)
    drawn_again = find_rules(
        conditions.only(rows), residual[rows], np.ones(len(rows), bool), np.ones(len(rows)), least=25, most=2
    )
    assert [one.at for one in weighted] == [one.at for one in drawn_again]


def test_where_no_region_is_large_enough_there_is_no_rule():
    levels = {"site": np.array(["a", "b"] * 20)}
    conditions = conditions_of(levels, {"site": ["a", "b"]})
    ones = np.ones(40)
    assert find_rules(conditions, np.zeros(40), ones.astype(bool), ones, least=25, most=2) == []


def test_levels_that_may_not_be_asked_are_in_no_condition():
    columns = {"race": np.array(["a", "b", "c"] * 20), "yes": np.array(["yes", "no"] * 30)}
    names = conditions_of(columns, {"race": ["a"], "yes": ["no", "yes"]}).names
    assert {one.level for one in names if one.column == "race"} == {"a"}
    assert [(one.level, one.holds) for one in names if one.column == "yes"] == [("no", True), ("yes", True)]


def test_overlap_is_the_share_of_either_that_is_in_both():
    assert jaccard(np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)) == pytest.approx(1 / 3)
    assert jaccard(np.zeros(3, bool), np.zeros(3, bool)) == 0.0


def test_traits_are_odds_ratios_of_patients_and_leave_small_counts_out():
    rng = np.random.default_rng(0)
    n = 2_000
    patient = np.arange(n)
    region = rng.random(n) < 0.2
    levels = {
        "scanner": np.where(rng.random(n) < np.where(region, 0.6, 0.2), "B", "A"),
        "rare": np.where((np.cumsum(region) < 9) & region, "yes", "no"),
        "noise": rng.choice(["x", "y"], n),
    }
    (row,) = traits_of(levels, region, patient, [], least=10, confidence=0.95)
    has = levels["scanner"] == "B"
    crossed = [[(has & region).sum(), (~has & region).sum()], [(has & ~region).sum(), (~has & ~region).sum()]]
    assert (row["column"], row["level"]) == ("scanner", "B")
    assert row["odds_ratio"] == pytest.approx(fisher_exact(crossed).statistic)
    assert row["odds_low"] < row["odds_ratio"] < row["odds_high"]
    assert row["q_value"] < 0.001
    assert row["share_inside"] == pytest.approx(has[region].mean())
    assert traits_of(levels, region, patient, ["scanner"], least=10, confidence=0.95) == []


def test_labels_of_the_test_part_draw_no_region():
    searched, _ = drawn(BY_RULE, np.random.default_rng(3))
    flipped = searched.studies.with_columns(
        y_true=pl.when(pl.col("split") == "test").then(pl.col("y_true").reverse()).otherwise("y_true")
    )
    one = discover(searched, SETTINGS)
    other = discover(Searched(searched.x, flipped, searched.levels, searched.key), SETTINGS)
    assert one.members.equals(other.members)
    assert one.members.height > 0


def test_no_region_rests_on_few_patients_and_one_row_tells_that_nothing_stood_out():
    searched, _ = drawn(BY_RULE, np.random.default_rng(3))
    small = searched.studies.with_columns(
        y_true=pl.col("y_true") & ((pl.col("split") != "test") | (pl.int_range(pl.len()) % 60 == 0))
    )
    row = discover(Searched(searched.x, small, searched.levels, searched.key), SETTINGS).subgroups.row(0, named=True)
    assert (row["region"], row["status"], row["confirmed"], row["detectable"]) == (0, "none", False, None)
    made = discover(searched, SETTINGS)
    for row in made.subgroups.filter(status="tested").to_dicts():
        assert row["p_adjusted"] >= row["p_value"]
        assert row["excess_low"] < row["excess"] < row["excess_high"]
        assert 0 <= row["stability"] <= 1
        assert row["detectable"] > 0


@pytest.mark.parametrize(("test_from", "least"), [(60, 0.15), (130, 0.35), (200, None)])
def test_a_region_of_the_embedding_is_never_too_small_to_be_tested(test_from, least, monkeypatch):
    monkeypatch.setattr("fmaudit_core.fairness.region_search.RESAMPLES", 1)
    made = discover(drawn(PLANTED, np.random.default_rng(0))[0], FairnessSection(test_from=test_from)).subgroups
    directions = made.filter(finder=DIRECTION)
    assert directions["status"].to_list() == (["tested"] if least else [])
    assert all(share >= least for share in directions["share"])


def test_planted_subgroups_are_found_and_nulls_are_quiet(monkeypatch):
    """A short form of benchmarks/bench_discovery.py, with bounds that seeded draws can miss by chance in one of a hundred."""
    monkeypatch.setattr("fmaudit_core.fairness.region_search.RESAMPLES", 1)
    names = ("null", "null, severity", "null, prevalence")
    assert sum(simulated(BY_NAME[name], range(3))["any"] * 3 for name in names) <= 2
    assert simulated(PLANTED, range(4))[DIRECTION] >= 0.5
    assert simulated(BY_RULE, range(4))[RULES] >= 0.5

"""Gaps after standardising: weights and variances against second implementations, planted truths, refusals."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from benchmarks.bench_adjusted_gaps import TRUTHS, drawn, found, simulated
from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.adjusted_gaps import adjusted_gaps
from fmaudit_core.fairness.adjusted_tests import fieller
from fmaudit_core.fairness.propensity import fit_propensity
from fmaudit_core.fairness.standardised import (
    CRUDE,
    OF_SUBGROUP,
    OVERLAP,
    Weights,
    auroc_contrast,
    covariance,
    rate_contrast,
)
from fmaudit_core.fairness.within_cells import WithinCells

PARTLY = next(one for one in TRUTHS if one.name == "gap partly due to scanners")


def sample(n_patients=250, seed=0):
    """Return studies of one class: subgroup, levels of two covariates, patients with one to three studies, event, score."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    scanner = rng.integers(0, 3, len(patient))
    site = rng.integers(0, 2, len(patient))
    member = rng.random(len(patient)) < np.array([0.2, 0.4, 0.6])[scanner] + 0.1 * site
    noise = rng.normal(size=n_patients)[patient]
    score = 0.8 * scanner + 0.5 * member + noise + rng.normal(size=len(patient))
    return member, np.stack([scanner, site], axis=1), patient, score > 1.0, score


def test_probabilities_are_those_of_scikit_learn_without_a_penalty():
    member, covariates, *_ = sample()
    fitted = fit_propensity(member, covariates)
    dummies = np.stack([covariates[:, 0] == 1, covariates[:, 0] == 2, covariates[:, 1] == 1], axis=1)
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000).fit(dummies, member)
    assert fitted.probability == pytest.approx(peer.predict_proba(dummies)[:, 1], abs=1e-6)


def test_a_covariate_twice_changes_no_probability():
    member, covariates, *_ = sample()
    twice = fit_propensity(member, np.concatenate([covariates, covariates[:, :1]], axis=1))
    assert twice.probability == pytest.approx(fit_propensity(member, covariates).probability, abs=1e-9)


def stacked(theta, x, member, y, kind):
    """Return the estimating equations of each study: the propensity's scores, two weighted means, two plain means."""
    beta, (first, rest, crude_first, crude_rest) = theta[:-4], theta[-4:]
    e = 1 / (1 + np.exp(-(x @ beta)))
    of_first, of_rest = (1 - e, e) if kind == OVERLAP else (np.ones_like(e), e / (1 - e))
    return np.column_stack(
        [
            (member - e)[:, None] * x, member * of_first * (y - first), ~member * of_rest * (y - rest),
            member * (y - crude_first), ~member * (y - crude_rest),
        ]
    )  # fmt: skip


@pytest.mark.parametrize("kind", [OVERLAP, OF_SUBGROUP])
def test_variances_are_those_of_stacked_estimating_equations(kind):
    """M-estimation (Stefanski & Boos 2002) with a derivative taken numerically, clustered by patient."""
    member, covariates, patient, event, _ = sample()
    fitted = fit_propensity(member, covariates)
    plain, adjusted = (rate_contrast(Weights.of(fitted, one), event, patient) for one in (CRUDE, kind))
    x, y = fitted.design, event.astype(float)
    beta = np.linalg.lstsq(x, np.log(fitted.probability / (1 - fitted.probability)), rcond=None)[0]
    theta = np.concatenate([beta, [adjusted.first, adjusted.rest, plain.first, plain.rest]])
    assert stacked(theta, x, member, y, kind).sum(axis=0) == pytest.approx(0, abs=1e-6)
    step = 1e-5
    bread = np.stack(
        [
            (stacked(theta + one, x, member, y, kind) - stacked(theta - one, x, member, y, kind)).sum(axis=0)
            / (2 * step)
            for one in step * np.eye(len(theta))
        ],
        axis=1,
    )
    by_patient = np.stack([np.bincount(patient, column) for column in stacked(theta, x, member, y, kind).T])
    inverse = np.linalg.inv(bread)
    n = len(np.unique(patient))
    sandwich = inverse @ (by_patient @ by_patient.T) @ inverse.T * n / (n - 1)
    to_gaps = np.zeros((2, len(theta)))
    to_gaps[0, -4:], to_gaps[1, -4:] = [0, 0, 1, -1], [1, -1, 0, 0]
    expected = to_gaps @ sandwich @ to_gaps.T
    both = (plain.by_patient, adjusted.by_patient)
    got = [[covariance(one, other, n) for other in both] for one in both]
    assert np.array(got) == pytest.approx(expected, rel=1e-5)


def classes(seed=3):
    """Return positives and negatives of the same patients: subgroups, covariates, patients and scores."""
    rng = np.random.default_rng(seed)
    member, covariates, patient, _, score = sample(320, seed)
    positive = rng.random(len(patient)) < 0.4
    return member, covariates, patient, positive, score + 1.0 * positive


def contrasts(member, covariates, patient, positive, score, kind=OVERLAP):
    weights = [
        Weights.of(fit_propensity(member[of_class], covariates[of_class]), kind) for of_class in (positive, ~positive)
    ]
    return weights, auroc_contrast(
        *weights, (score[positive], score[~positive]), (patient[positive], patient[~positive])
    )


def test_a_weighted_auroc_is_the_share_of_weighted_pairs_won():
    member, covariates, patient, positive, score = classes()
    score = score.round(1)  # ties
    (of_pos, of_neg), found = contrasts(member, covariates, patient, positive, score)
    for side, value in ((True, found.first), (False, found.rest)):
        a, b = member[positive] == side, member[~positive] == side
        pairs = np.multiply.outer(of_pos.weight[a], of_neg.weight[b])
        won = np.subtract.outer(score[positive][a], score[~positive][b])
        assert value == pytest.approx((pairs * ((won > 0) + 0.5 * (won == 0))).sum() / pairs.sum())


def test_the_variance_of_a_weighted_auroc_is_that_of_leaving_patients_out():
    data = classes()
    _, full = contrasts(*data)
    patient = data[2]
    left_out = []
    for one in np.unique(patient):
        keep = patient != one
        left_out.append(contrasts(*(column[keep] for column in data))[1].scaled)
    n = len(left_out)
    jackknife = (n - 1) / n * ((np.array(left_out) - np.mean(left_out)) ** 2).sum()
    assert covariance(full.scaled_by_patient, full.scaled_by_patient, n) == pytest.approx(jackknife, rel=0.1)


def test_crude_differences_are_those_without_weights():
    member, covariates, patient, event, _ = sample()
    found = rate_contrast(Weights.of(fit_propensity(member, covariates), CRUDE), event, patient)
    assert found.difference == pytest.approx(event[member].mean() - event[~member].mean())


def test_a_level_of_one_side_gets_no_weight_and_separation_is_refused():
    member, covariates, *_ = sample()
    own = covariates.copy()
    own[member & (np.arange(len(member)) % 3 == 0), 0] = 7
    fitted = fit_propensity(member, own)
    assert not fitted.inside[own[:, 0] == 7].any()
    assert fitted.inside[own[:, 0] != 7].all()
    assert not Weights.of(fitted, OVERLAP).weight[~fitted.inside].any()
    assert fit_propensity(member, member[:, None].astype(np.int64)) is None
    # no level alone separates, but the combination does
    crossed = np.array([[0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [2, 0]] * 30)
    assert fit_propensity((crossed[:, 0] == 0) | (crossed[:, 1] == 0) & (crossed[:, 0] != 1), crossed) is None


def test_fieller_limits_are_where_the_ratio_is_just_rejected():
    a, b, v_aa, v_bb, v_ab, t = 0.1, 0.2, 0.0009, 0.001, 0.0004, 1.96
    for limit in fieller(a, b, v_aa, v_bb, v_ab, t):
        assert (a - limit * b) ** 2 == pytest.approx(t**2 * (v_aa - 2 * limit * v_ab + limit**2 * v_bb))
    assert fieller(a, 0.05, v_aa, v_bb, v_ab, t) is None


@pytest.mark.parametrize(
    "name", ["gap wholly due to scanners", "gap partly due to scanners", "gap not due to scanners"]
)
def test_planted_truths_are_recovered(name):
    """A short form of benchmarks/bench_adjusted_gaps.py; bounds as unlikely as four standard errors."""
    truth, n = next(one for one in TRUTHS if one.name == name), 30
    fewest = binom.ppf(3e-5, n, 0.95) / n
    for metric, row in simulated(truth, n).items():
        assert row["refused"] <= 0.1
        if metric != "auroc":
            assert row["adjusted"] == pytest.approx(truth.gap, abs=0.03)
            assert row["crude"] == pytest.approx(
                truth.gap + truth.explained() * (0.5 if metric == "fpr" else 1), abs=0.03
            )
            assert row["explained covered"] >= fewest
        assert row.get("covered", 1.0) >= fewest
        if truth.gap == 0:
            assert row["rejected"] <= 1 - fewest


def test_scanners_of_their_own_are_refused():
    truth = next(one for one in TRUTHS if not one.overlaps)
    for draw in range(5):
        rows = found(truth, draw)
        for row in (rows["udr"], rows["auroc"]):  # there are enough negatives on a scanner of both
            assert row["status"] == "no_overlap"
            assert row["reason"] in ("few_effective", "unbalanced", "one_study", "separated")
            assert row["adjusted"] is None
            assert row["explained"] is None
            assert row["share"] is None


def test_rows_name_what_they_were_standardised_for_and_a_share_only_of_a_disparity():
    frame = drawn(PARTLY, np.random.default_rng(1))
    settings = FairnessSection()
    verdict = {name: frame[name][0] for name in SCORE_SET} | {"attribute": "group", "metric": "udr"}
    gaps = pl.DataFrame([verdict | {"verdict": "disparity"}])
    rows = adjusted_gaps(frame, ["group"], ["scanner", "group"], settings, mediators=["scanner"], gaps=gaps)
    assert rows.height == 6
    assert rows["covariates"].to_list() == [["scanner"]] * 6
    assert rows["mediators"].to_list() == [["scanner"]] * 6
    shown = rows.drop_nulls("share")
    assert set(shown["metric"]) == {"udr"}
    assert shown["share"].to_list() == pytest.approx((shown["explained"] / shown["crude"]).to_list())
    # both sides of two subgroups: the same gap with the other sign
    udr = rows.filter(metric="udr").sort("subgroup")
    assert udr["adjusted"][0] == pytest.approx(-udr["adjusted"][1])
    assert adjusted_gaps(frame, ["group"], ["group"], settings).is_empty()
    assert adjusted_gaps(frame, ["group"], [], settings).is_empty()


def test_small_and_unrecorded_subgroups_are_on_no_side():
    frame = drawn(PARTLY, np.random.default_rng(2))
    few = pl.when(pl.int_range(pl.len()) < 30).then(pl.lit("few"))
    named = frame.with_columns(group=few.when(pl.int_range(pl.len()) < 600).then(pl.lit("unknown")).otherwise("group"))
    rows = adjusted_gaps(named, ["group"], ["scanner"], FairnessSection())
    assert set(rows["subgroup"]) == {"old", "young"}
    without = adjusted_gaps(
        named.filter(~pl.col("group").is_in(["few", "unknown"])), ["group"], ["scanner"], FairnessSection()
    )
    assert rows.equals(without)


def test_nobody_missed_on_one_side_is_not_certain():
    frame = drawn(PARTLY, np.random.default_rng(3))
    none = frame.with_columns(
        y_score=pl.when((pl.col("group") == "young") & pl.col("y_true")).then(9.0).otherwise("y_score")
    )
    row = adjusted_gaps(none, ["group"], ["scanner"], FairnessSection()).row(
        by_predicate=(pl.col("subgroup") == "young") & (pl.col("metric") == "udr"), named=True
    )
    assert row["adjusted"] < row["adjusted_high"]
    assert row["adjusted_low"] < row["adjusted"]


def test_permutations_within_cells_keep_the_propensity_and_the_observed_statistic():
    member, covariates, patient, event, _ = sample(120)
    fitted = fit_propensity(member, covariates)
    found = WithinCells.of(fitted, covariates, patient, seed=1)
    of_studies = found.members[:, found.unit]
    for labels in of_studies[:20]:
        assert fit_propensity(labels, covariates).probability == pytest.approx(fitted.probability, abs=1e-8)
        for one in np.unique(patient):
            assert len(set(labels[(patient == one) & member])) <= 1  # a patient's studies of a side move together
    assert (of_studies[0] == member).all()
    assert (of_studies[1:] != member).any()
    # the p counts statistics of fresh fits to the permuted labels
    statistics = []
    for labels in of_studies:
        contrast = rate_contrast(Weights.of(fit_propensity(labels, covariates), OVERLAP), event, found.unit)
        by_unit = contrast.by_patient
        statistics.append(abs(contrast.difference) / np.sqrt(by_unit @ by_unit))
    expected = (1 + sum(one >= statistics[0] - 1e-9 for one in statistics[1:])) / len(statistics)
    assert found.p_value(event) == pytest.approx(expected)


def test_without_two_alike_nothing_can_be_permuted():
    member = np.array([True, False] * 20)
    fitted = fit_propensity(member, np.zeros((40, 1), dtype=np.int64))
    apart = np.stack([np.arange(40), member], axis=1).astype(np.int64)
    assert WithinCells.of(fitted, apart, np.arange(40), seed=1) is None

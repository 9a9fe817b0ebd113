"""Two models on the same studies: DeLong and McNemar where they coincide, patients as clusters, and the table of all pairs."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest, norm
from statsmodels.stats.contingency_tables import mcnemar

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.by_patient import ByPatient
from fmaudit_core.fairness.paired import Paired, paired, paired_auroc
from tests.fairness.cohorts import predictions

FEW = FairnessSection(n_permutations=99)


def paired_rate(first, second, patient) -> Paired:
    return paired(*(ByPatient.of_calls(each, patient) for each in (first, second)))


def two_models(n_patients, studies, seed, gain=0.0):
    """Labels, two correlated scores that share patient effects, and patients."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), studies)
    n = len(patient)
    y = rng.random(n) < 0.3
    shared = 0.6 * rng.normal(size=n_patients)[patient] + 0.6 * rng.normal(size=n)
    own = [0.4 * rng.normal(size=n_patients)[patient] + 0.5 * rng.normal(size=n) for _ in range(2)]
    return y, (1.0 + gain) * y + shared + own[0], 1.0 * y + shared + own[1], patient


def by_definition(y, one, two):
    """DeLong, DeLong & Clarke-Pearson 1988 from the pairs themselves."""
    components = []
    for score in (one, two):
        wins = (score[y][:, None] > score[~y]) + 0.5 * (score[y][:, None] == score[~y])
        components.append((wins.mean(1), wins.mean(0)))
    (a10, a01), (b10, b01) = components
    variance = np.var(a10 - b10, ddof=1) / y.sum() + np.var(a01 - b01, ddof=1) / (~y).sum()
    return a10.mean() - b10.mean(), np.sqrt(variance)


def test_delongs_paired_test_by_its_definition():
    y, one, two, _ = two_models(150, 1, seed=1, gain=0.3)
    one, two = np.round(one, 1), np.round(two, 1)  # with ties
    found = paired_auroc(y, one, two)
    difference, se = by_definition(y, one, two)
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.first == pytest.approx(auroc(y, one).value, abs=1e-12)
    # clusters of one study carry the cluster formula's term between the classes, which is one part in n
    assert found.se == pytest.approx(se, rel=0.01)
    assert found.p_value() == pytest.approx(2 * norm.sf(abs(difference) / found.se))


def test_a_model_against_itself_is_no_difference():
    y, one, _, patient = two_models(100, 2, seed=2)
    found = paired_auroc(y, one, one, patient)
    assert found.difference == 0
    assert found.p_value() is None
    assert found.interval(0.95) is None


def test_a_rate_of_single_studies_is_mcnemars():
    y, one, two, patient = two_models(400, 1, seed=3, gain=0.5)
    a, b = one[y] >= 0.8, two[y] >= 0.8
    found = paired_rate(a, b, patient[y])
    table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
    peer = mcnemar(table, exact=False, correction=False).pvalue
    assert found.difference == pytest.approx(a.mean() - b.mean(), abs=1e-12)
    assert found.p_value() == pytest.approx(peer, abs=0.01)  # its variance is taken under the null


@pytest.mark.parametrize("studies", [1, 3])
def test_under_no_difference_it_rejects_as_often_as_it_says_and_covers(studies):
    rejected = {"auroc": 0, "udr": 0}
    n_trials = 600
    for seed in range(n_trials):
        y, one, two, patient = two_models(300 // studies, studies, seed=seed)
        rejected["auroc"] += paired_auroc(y, one, two, patient).p_value() <= 0.05
        rejected["udr"] += paired_rate(one[y] < 0.7, two[y] < 0.7, patient[y]).p_value() <= 0.05
    for count in rejected.values():
        assert 0.03 <= count / n_trials <= 0.07


def test_copies_of_every_study_of_a_patient_tell_nothing_new():
    y, one, two, patient = two_models(120, 1, seed=5, gain=0.2)
    thrice = [np.repeat(part, 3) for part in (y, one, two, patient)]
    single, copied = paired_auroc(y, one, two, patient), paired_auroc(*thrice)
    assert copied.difference == pytest.approx(single.difference, abs=1e-12)
    assert copied.se == pytest.approx(single.se, rel=1e-9)


@pytest.fixture(scope="module")
def compared():
    """Three models: the third ranks better; the second is the first with a little noise."""
    base = predictions(2_500, seed=6)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=base.height)
    models = {
        "first": base,
        "noisy": base.with_columns(y_score=pl.col("y_score") + 0.01 * pl.Series(noise)),
        "better": base.with_columns(y_score=pl.col("y_score") + pl.col("y_true").cast(pl.Float64)),
    }
    frame = pl.concat(one.with_columns(encoder=pl.lit(name)) for name, one in models.items())
    return assess(frame, attributes=["group"], settings=FEW).model_comparisons


def test_every_two_models_are_compared_over_all_and_by_subgroup(compared):
    pairs = compared.select("encoder", "other_encoder").unique()
    assert set(pairs.iter_rows()) == {("better", "first"), ("better", "noisy"), ("first", "noisy")}
    of_pair = compared.filter((pl.col("encoder") == "better") & (pl.col("other_encoder") == "first"))
    assert set(of_pair.get_column("subgroup")) == {"all", "a", "b", "c", "d"}
    assert set(of_pair.get_column("metric")) == {"auroc", "udr", "fpr"}


def test_the_better_model_is_better_and_equal_ones_are_not_inferior(compared):
    overall = compared.filter((pl.col("attribute") == "overall") & (pl.col("metric") == "auroc"))
    told = {(row["encoder"], row["other_encoder"]): row for row in overall.iter_rows(named=True)}
    better = told["better", "first"]
    assert better["difference"] > 0.05
    assert better["ci_low"] > 0
    assert better["p_value"] < 1e-6
    assert better["q_value"] >= better["p_value"]
    assert better["non_inferior"]
    equal = told["first", "noisy"]
    assert equal["non_inferior"]
    assert abs(equal["difference"]) < 0.005


def test_inferior_models_are_not_called_non_inferior():
    base = predictions(2_000, seed=7)
    worse = base.with_columns(y_score=pl.col("y_score") - 0.8 * pl.col("y_true").cast(pl.Float64))
    frame = pl.concat([base.with_columns(encoder=pl.lit("z")), worse.with_columns(encoder=pl.lit("a"))])
    found = assess(frame, attributes=["group"], settings=FEW).model_comparisons
    row = found.filter((pl.col("attribute") == "overall") & (pl.col("metric") == "auroc")).row(0, named=True)
    assert row["encoder"] == "a"
    assert row["difference"] < -0.1
    assert row["non_inferior"] is False


def test_small_subgroups_are_never_compared_by_a_p():
    base = predictions(600, shares=(0.6, 0.3, 0.07, 0.03), seed=8)
    frame = pl.concat(
        base.with_columns(encoder=pl.lit(name), y_score=pl.col("y_score") + shift * pl.col("y_true"))
        for name, shift in (("a", 0.0), ("b", 0.5))
    )
    found = assess(frame, attributes=["group"], settings=FEW).model_comparisons
    untested = found.filter(pl.col("status") != "tested")
    assert untested.height
    assert untested.get_column("p_value").null_count() == untested.height
    suppressed = found.filter(pl.col("status").is_in(["suppressed", "not_estimable"]))
    assert suppressed.height
    assert suppressed.get_column("n_pos").null_count() == suppressed.height


def test_one_model_has_nobody_to_be_compared_with():
    found = assess(predictions(500, seed=9), attributes=["group"], settings=FEW)
    assert found.model_comparisons.is_empty()


@pytest.mark.parametrize("n", [1, 5, 40])
def test_where_all_patients_speak_for_one_model_they_are_counted(n):
    """A standard error of 0 is no certainty: the sign test's p, and the end of Clopper and Pearson's interval for n of n."""
    patient = np.repeat(np.arange(n), 2)
    found = paired_rate(np.ones(2 * n, dtype=bool), np.zeros(2 * n, dtype=bool), patient)
    if n == 1:  # of one patient nothing is told
        assert (found.p_value(), found.interval(0.95)) == (None, None)
        return
    assert found.p_value() == pytest.approx(binomtest(n, n).pvalue)
    assert found.interval(0.95) == pytest.approx((binomtest(n, n).proportion_ci(0.95).low, 1.0))
    assert found.p_non_inferior(0.05, higher_is_better=True) == pytest.approx(0.5**n)
    assert found.p_non_inferior(0.05, higher_is_better=False) == 1.0
    y = np.arange(2 * n) % 2 == 0
    ranks = paired_auroc(y, y.astype(float), 1.0 - y, np.arange(2 * n))
    assert ranks.difference == 1
    assert ranks.p_value() == pytest.approx(binomtest(n, n).pvalue)
    same = paired_rate(y, y, patient)
    assert (same.p_value(), same.interval(0.95)) == (None, None)

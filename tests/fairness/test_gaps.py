"""Gaps and their null: against naive counting, under the null, and under what leaves them unchanged."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fairlearn.metrics import MetricFrame
from scipy.stats import permutation_test
from sklearn.metrics import recall_score, roc_auc_score
from statsmodels.stats.multitest import multipletests

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.gaps import estimates
from fmaudit_core.fairness.kernels import Labellings, Ranking, count
from fmaudit_core.fairness.multiplicity import benjamini_hochberg, step_down_max_t
from fmaudit_core.fairness.permutation import Dealer
from tests.fairness.cohorts import LEVELS, predictions

FEW = FairnessSection(n_permutations=499)


def test_counting_equals_sklearn_for_groups_and_their_rest_with_ties():
    rng = np.random.default_rng(0)
    n, y = 400, rng.random(400) < 0.3
    score = np.round(rng.normal(size=n) + y, 1)
    labels = rng.integers(0, 3, (70, n)).astype(np.uint8)  # more than one block
    assert np.array_equal(Labellings.of(labels).rows(), labels)
    found = estimates(count(Ranking.of(score, y, 0.5), Labellings.of(labels), 3))
    for b in (0, 1, 63, 64, 69):
        for g in range(3):
            inside = labels[b] == g
            assert found["auroc"].by_group[b, g] == pytest.approx(roc_auc_score(y[inside], score[inside]), abs=1e-12)
            assert found["auroc"].by_rest[b, g] == pytest.approx(roc_auc_score(y[~inside], score[~inside]), abs=1e-12)
            assert found["udr"].by_group[b, g] == pytest.approx(1 - (score[inside & y] >= 0.5).mean(), abs=1e-12)
            assert found["fpr"].by_rest[b, g] == pytest.approx((score[~inside & ~y] >= 0.5).mean(), abs=1e-12)
    assert found["auroc"].pooled[0] == pytest.approx(roc_auc_score(y, score), abs=1e-12)


def test_values_and_gaps_equal_fairlearns():
    frame = predictions()
    out = assess(frame, attributes=("group", "other"), settings=FEW)
    test = frame.filter(pl.col("split") == "test")
    metrics = out.subgroup_metrics.filter((pl.col("attribute") == "group") & (pl.col("metric") == "tpr"))
    called = test["y_score"].to_numpy() >= metrics["threshold"][0]
    theirs = MetricFrame(
        metrics=recall_score,
        y_true=test["y_true"].to_numpy(),
        y_pred=called,
        sensitive_features=test["group"].to_numpy(),
    )
    ours = dict(metrics.select("subgroup", "value").iter_rows())
    assert ours == pytest.approx(theirs.by_group.to_dict(), abs=1e-12)
    gap = out.fairness_gaps.filter((pl.col("attribute") == "group") & (pl.col("metric") == "udr"))["gap"].item()
    assert gap == pytest.approx(theirs.difference(), abs=1e-12)


def test_a_two_group_test_equals_scipys_where_the_designs_coincide():
    """One study a patient, positives only matter to UDR: SciPy deals the called flags of positives between two groups."""
    rng = np.random.default_rng(3)
    n = 120
    called, group = rng.random(n) < 0.5, np.arange(n) % 2
    called[group == 0] |= rng.random(n // 2) < 0.2
    theirs = permutation_test(
        (called[group == 0].astype(float), called[group == 1].astype(float)),
        lambda a, b, axis: np.abs(a.mean(axis) - b.mean(axis)),
        vectorized=True, n_resamples=9_999, alternative="greater", random_state=np.random.default_rng(0),
    ).pvalue  # fmt: skip
    positive = np.arange(2 * n) < n  # as many negatives, which UDR does not listen to
    score, group = np.tile(called, 2).astype(float), np.tile(group, 2)
    dealer = Dealer(group, np.arange(2 * n), positive, seed=0, named="t")
    from fmaudit_core.fairness.gaps import null_gaps

    (ours,) = null_gaps([Ranking.of(score, positive, 0.5)], group.astype(np.uint8), dealer.deals(9_999), 2)
    assert ours["udr"].p_gap == pytest.approx(theirs, abs=0.02)


def test_labels_move_with_their_patient_and_within_outcome_strata():
    frame = predictions(200, studies_per_patient=2.5)
    patient = frame["patient_id"].rank("dense").to_numpy().astype(int)
    group = frame["group"].replace_strict({level: i for i, level in enumerate(LEVELS)}).to_numpy()
    positive = frame["y_true"].to_numpy()
    n_positive, n_negative = (np.bincount(patient, of)[patient] for of in (positive, ~positive))
    dealt = rows(Dealer(group, patient, positive, seed=1, named="t"), 50)
    first = np.array([np.flatnonzero(patient == one)[0] for one in patient])
    assert np.array_equal(dealt, dealt[:, first])
    once = np.unique(first)
    for most in ((0, 1), (1, 0), (0, 2), (1, 1), (2, 0)):  # exactly as many; of more, about as many
        alike = once[(n_positive[once] == most[0]) & (n_negative[once] == most[1])]
        own = np.bincount(group[alike], minlength=4)
        assert all(np.array_equal(np.bincount(row[alike], minlength=4), own) for row in dealt)
    held = [np.bincount(group[of], minlength=4) for of in (positive, ~positive)]
    for row in dealt:  # so a subgroup is dealt about as many positives and negatives as it has
        found = [np.bincount(row[of], minlength=4) for of in (positive, ~positive)]
        assert all(np.abs(one / own - 1).max() < 0.08 for one, own in zip(found, held, strict=True))
    assert len(np.unique(dealt, axis=0)) == 50


def test_a_changing_attribute_is_dealt_as_a_trajectory():
    patient = np.repeat(np.arange(40), 2)
    group = np.where(np.arange(80) % 2 == 0, 0, np.repeat(np.arange(40) % 2, 2))
    dealt = rows(Dealer(group, patient, np.arange(80) % 5 == 0, seed=1, named="t"), 20)
    pairs = dealt.reshape(20, 40, 2)
    assert set(map(tuple, pairs.reshape(-1, 2))) == {(0, 0), (0, 1)}  # no trajectory that nobody had
    assert np.all(pairs[..., 1].sum(axis=1) == 20)


def test_deals_do_not_depend_on_how_they_are_chunked(monkeypatch):
    from fmaudit_core.fairness import permutation

    patient, group = np.arange(50), np.arange(50) % 3
    whole = rows(Dealer(group, patient, group > 0, seed=1, named="t"), 777)
    monkeypatch.setattr(permutation, "_CHUNK_BYTES", 0)
    assert len(list(Dealer(group, patient, group > 0, seed=1, named="t").deals(777))) > 1
    again = rows(Dealer(group, patient, group > 0, seed=1, named="t"), 777)
    assert np.array_equal(whole, again)
    other = rows(Dealer(group, patient, group > 0, seed=1, named="u"), 777)
    assert not np.array_equal(whole, other)


def rows(dealer, n_permutations):
    return np.concatenate([one.rows() for one in dealer.deals(n_permutations)])


def gaps(frame, **kwargs):
    out = assess(frame, attributes=("group", "other"), settings=kwargs.pop("settings", FEW), **kwargs)
    return out.fairness_gaps.sort("attribute", "metric")


def test_the_order_of_rows_does_not_matter():
    frame = predictions()
    assert gaps(frame).equals(gaps(frame.sample(fraction=1.0, shuffle=True, seed=1)))


def test_renaming_subgroups_changes_names_only():
    frame = predictions()
    renamed = frame.with_columns(pl.col("group").replace({"a": "z1", "b": "z2", "c": "z3", "d": "z4"}))
    drop = ("best_subgroup", "worst_subgroup")
    assert gaps(frame).drop(drop).equals(gaps(renamed).drop(drop))


def test_copies_of_every_study_leave_the_p_of_patients_unchanged():
    frame = predictions(2_000, studies_per_patient=1.0)
    copies = pl.concat([frame, frame.with_columns(pl.col("study_id") + "-copy")])
    one, two = gaps(frame), gaps(copies)
    assert one["p_value"].to_list() == pytest.approx(two["p_value"].to_list(), abs=1e-12)
    assert one["gap"].to_list() == pytest.approx(two["gap"].to_list(), abs=1e-12)


def test_the_same_seed_gives_the_same_p_for_every_model_on_the_same_studies():
    frame = predictions()
    both = pl.concat([frame.with_columns(encoder=pl.lit(name)) for name in ("one", "two")])
    out = gaps(both)
    one, two = (out.filter(pl.col("encoder") == name).drop("encoder") for name in ("one", "two"))
    assert one.drop("p_adjusted").equals(two.drop("p_adjusted"))


def test_a_planted_disparity_is_found_and_named():
    frame = predictions(1500, shift={"c": 1.6})
    row = gaps(frame).row(by_predicate=(pl.col("attribute") == "group") & (pl.col("metric") == "udr"), named=True)
    assert (row["verdict"], row["worst_subgroup"]) == ("disparity", "c")
    assert row["gap"] > row["null_gap_95"] > row["null_expected_gap"] > 0
    null = gaps(frame).row(by_predicate=(pl.col("attribute") == "other") & (pl.col("metric") == "udr"), named=True)
    assert null["verdict"] != "disparity"


def test_not_significant_is_never_called_fair():
    small = gaps(predictions(400)).filter(pl.col("metric") == "udr")
    assert set(small["verdict"]) == {"insufficient_evidence"}


def test_many_equal_patients_earn_the_verdict_of_equivalence():
    frame = predictions(40_000, separation=3.0, prevalence=(0.3,) * 4, shares=(0.25,) * 4)
    row = gaps(frame, settings=FairnessSection(n_permutations=199)).filter(
        (pl.col("metric") == "udr") & (pl.col("attribute") == "other")
    )
    assert row["verdict"].item() == "no_disparity_beyond_margin"


@pytest.mark.parametrize("studies_per_patient", [1.2, 3.0])
def test_under_the_null_the_tests_reject_as_often_as_they_say(studies_per_patient):
    """A short version of benchmarks/bench_fairness_calibration.py: 200 nulls, unequal prevalence from 5 to 32 %."""
    settings = FairnessSection(n_permutations=199, test_from=15)
    rejected = []
    for seed in range(200):
        frame = predictions(
            1_200,
            studies_per_patient=studies_per_patient,
            prevalence=(0.05, 0.15, 0.32, 0.2),
            shares=(0.4, 0.3, 0.2, 0.1),
            seed=seed,
        )
        out = assess(frame.drop("other"), attributes=("group",), settings=settings, threshold=0.8).fairness_gaps
        rejected.append(out.sort("metric").select(p=pl.col("p_value") <= 0.05, g=pl.col("p_gap") <= 0.05).to_numpy())
    share = np.mean(rejected, axis=0)
    # 200 trials: three standard errors of 0.05
    assert np.all(share < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)), share


def test_q_values_equal_statsmodels():
    p = np.random.default_rng(0).random(30) ** 2
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1], abs=1e-12)


def test_step_down_lies_between_raw_and_bonferroni_and_keeps_order():
    rng = np.random.default_rng(0)
    null = rng.normal(size=(4_999, 5)) ** 2
    observed = [9.0, 0.1, 12.0, 4.0, 1.0]
    raw = np.array([(1 + (null[:, j] >= observed[j]).sum()) / 5_000 for j in range(5)])
    adjusted = step_down_max_t(observed, null)
    assert np.all(adjusted >= raw)
    assert np.all(adjusted <= 5 * raw + 0.02)
    assert np.array_equal(np.argsort(adjusted, kind="stable"), np.argsort(raw, kind="stable"))
    assert step_down_max_t([9.0], null[:, :1])[0] == pytest.approx(raw[0], abs=1e-12)


def test_wholly_dependent_tests_cost_nothing():
    null = np.random.default_rng(0).normal(size=(999, 1)) ** 2
    together = step_down_max_t([5.0, 5.0, 5.0], np.repeat(null, 3, axis=1))
    assert together == pytest.approx([step_down_max_t([5.0], null)[0]] * 3, abs=2e-3)

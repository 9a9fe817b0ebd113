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
from fmaudit_core.fairness.gaps import estimates, null_gaps
from fmaudit_core.fairness.kernels import Ranking
from fmaudit_core.fairness.labellings import Labellings
from fmaudit_core.fairness.multiplicity import benjamini_hochberg, step_down_max_t
from fmaudit_core.fairness.permutation import PatientPermuter
from fmaudit_core.fairness.units import Units
from tests.fairness.cohorts import LEVELS, predictions

FEW = FairnessSection(n_permutations=499)


def test_counting_equals_sklearn_with_ties():
    rng = np.random.default_rng(0)
    n, y = 400, rng.random(400) < 0.3
    score = np.round(rng.normal(size=n) + y, 1)
    labels = rng.integers(0, 3, (70, n)).astype(np.uint8)  # more than one block
    labellings, units = Labellings.of(labels), Units.of(labels[0], np.arange(n), y)
    assert np.array_equal(labellings.rows(), labels)
    found = estimates(Ranking.of(score, y, units, 0.5), labellings, 3, units.sizes(labellings, 3))
    for b in (0, 1, 63, 64, 69):
        for g in range(3):
            inside = labels[b] == g
            assert found["auroc"].value[b, g] == pytest.approx(roc_auc_score(y[inside], score[inside]), abs=1e-12)
            assert found["udr"].value[b, g] == pytest.approx(1 - (score[inside & y] >= 0.5).mean(), abs=1e-12)
            assert found["fpr"].value[b, g] == pytest.approx((score[inside & ~y] >= 0.5).mean(), abs=1e-12)


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
    """Two groups of equal size, one study per patient, every patient positive: |z| and |difference| order permutations alike."""
    rng = np.random.default_rng(3)
    n = 120
    called, group = rng.random(n) < 0.5, np.arange(n) % 2
    called[group == 0] |= rng.random(n // 2) < 0.2
    theirs = permutation_test(
        (called[group == 0].astype(float), called[group == 1].astype(float)),
        lambda a, b, axis: np.abs(a.mean(axis) - b.mean(axis)),
        vectorized=True, n_resamples=9_999, alternative="greater", random_state=np.random.default_rng(0),
    ).pvalue  # fmt: skip
    positive = np.ones(n, dtype=bool)
    units = Units.of(group, np.arange(n), positive)
    permuter = PatientPermuter(units, seed=0, named="t", test_from=0)
    ranking = Ranking.of(called.astype(float), positive, units, 0.5)
    (ours,) = null_gaps([ranking], units, permuter.permutations(9_999), metrics=["udr"])
    assert ours["udr"].p_value == pytest.approx(theirs, abs=0.02)


def test_labels_move_with_their_patient_over_all_patients():
    frame = predictions(200, studies_per_patient=2.5)
    units = units_of(frame)
    permuter = PatientPermuter(units, seed=1, named="t", test_from=1)
    permuted = rows(permuter, 50)
    assert not permuter.stratified
    own = np.bincount(units.group, minlength=4)
    assert all(np.array_equal(np.bincount(row, minlength=4), own) for row in permuted)
    assert len(np.unique(permuted, axis=0)) == 50
    with_positive = np.stack([np.bincount(row[units.positives > 0], minlength=4) for row in permuted])
    assert with_positive.std(axis=0).min() > 0  # unstratified: the outcome does not hold labels back


def test_labels_stay_among_patients_with_the_rarer_class_where_a_subgroup_would_receive_too_few():
    frame = predictions(200, studies_per_patient=2.5)
    units = units_of(frame)
    permuter = PatientPermuter(units, seed=1, named="t", test_from=25)
    assert permuter.stratified
    own = np.bincount(units.group[units.rarer], minlength=4)
    assert all(np.array_equal(np.bincount(row[units.rarer], minlength=4), own) for row in rows(permuter, 20))


def test_a_patient_in_two_bands_is_a_unit_in_each():
    patient = np.repeat(np.arange(40), 2)
    band = np.where(np.arange(80) % 2 == 0, 0, np.repeat(np.arange(40) % 2, 2))
    units = Units.of(band, patient, np.arange(80) % 5 == 0)
    assert len(units.group) == 60
    assert sorted(units.positives + units.negatives) == [1] * 40 + [2] * 20
    assert np.array_equal(units.group[units.of_study], band)


def test_permutations_do_not_depend_on_how_they_are_chunked(monkeypatch):
    from fmaudit_core.fairness import permutation

    group = np.arange(50) % 3
    units = Units.of(group, np.arange(50), group > 0)

    def drawn(named):
        return PatientPermuter(units, seed=1, named=named, test_from=1)

    whole = rows(drawn("t"), 777)
    monkeypatch.setattr(permutation, "_CHUNK_BYTES", 0)
    assert len(list(drawn("t").permutations(777))) > 1
    assert np.array_equal(whole, rows(drawn("t"), 777))
    assert not np.array_equal(whole, rows(drawn("u"), 777))


def test_attributes_of_the_same_patients_share_their_permutations():
    patient, first = np.arange(60), np.arange(60) % 3
    one, two = (Units.of(group, patient, patient % 2 == 0) for group in (first, (first + 1) % 3))
    permuted = [rows(PatientPermuter(units, seed=1, named="t", test_from=1), 20) for units in (one, two)]
    assert np.array_equal((permuted[0] + 1) % 3, permuted[1])


def units_of(frame):
    group = frame["group"].replace_strict({level: i for i, level in enumerate(LEVELS)}).to_numpy()
    patient = frame["patient_id"].rank("dense").to_numpy().astype(int)
    return Units.of(group, patient, frame["y_true"].to_numpy())


def rows(permuter, n_permutations):
    return np.concatenate([one.rows() for one in permuter.permutations(n_permutations)])


def gaps(frame, **kwargs):
    out = assess(frame, attributes=("group", "other"), settings=kwargs.pop("settings", FEW), **kwargs)
    return out.fairness_gaps.sort("attribute", "metric")


def test_the_order_of_rows_does_not_matter():
    frame = predictions()
    assert gaps(frame).equals(gaps(frame.sample(fraction=1.0, shuffle=True, seed=1)))


def test_renaming_subgroups_changes_names_only():
    frame = predictions()
    renamed = frame.with_columns(pl.col("group").replace({"a": "z1", "b": "z2", "c": "z3", "d": "z4"}))
    drop = ("best_subgroup", "worst_subgroup", "not_covered")
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

"""Contrasts of a site against arithmetic by hand, and correlations of subgroups against the jackknife over patients."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy.special import logit

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.site_contrasts import Shown, site_contrasts
from fmaudit_core.fairness.site_estimates import site_estimates

A, B, C = Shown("a", 0.5, 40.0), Shown("b", 0.3, 100.0), Shown("c", 0.2, 300.0)


def angle(value, n):
    return math.asin(math.sqrt((value * n + 0.375) / (n + 0.75)))


def test_a_rate_is_compared_with_the_mean_of_the_others_weighted_by_their_size():
    first = site_contrasts("udr", [A, B, C], {})[0]
    others = (100 * angle(0.3, 100) + 300 * angle(0.2, 300)) / 400
    assert first.theta == pytest.approx(angle(0.5, 40) - others, abs=0.005)
    assert first.theta == round(first.theta, 2)
    assert first.others == round(others, 2)
    v = [1 / (4 * n + 2) for n in (40, 100, 300)]
    assert first.variance == pytest.approx(v[0] + 0.25**2 * v[1] + 0.75**2 * v[2])


def test_the_variance_does_not_depend_on_the_own_value_of_a_subgroup():
    for metric in ("udr", "fpr"):
        low, high = (site_contrasts(metric, [Shown("a", value, 40.0), B, C], {})[0] for value in (0.0, 0.5))
        assert low.variance == high.variance
    low, high = (site_contrasts("auroc", [Shown("a", value, 40.0), B, C], {})[0] for value in (0.25, 0.35))
    assert low.variance == pytest.approx(high.variance, rel=0.05)


def test_auroc_is_on_the_logit_scale_and_one_is_not_infinite():
    first = site_contrasts("auroc", [Shown("a", 1.0, 50.0), Shown("b", 0.8, 100.0)], {})[0]
    assert first.theta == pytest.approx(logit(0.99) - logit(0.8), abs=0.005)


def test_subgroups_that_share_patients_differ_more_surely():
    apart, related = (site_contrasts("udr", [A, B], one)[0] for one in ({}, {("b", "a"): 0.5}))
    va, vb = 1 / 162, 1 / 402
    assert apart.variance == pytest.approx(va + vb)
    assert related.variance == pytest.approx(va + vb - 2 * 0.5 * math.sqrt(va * vb))


def test_one_subgroup_has_no_contrast():
    assert site_contrasts("udr", [A], {}) == []


def drawn(n_patients=400, seed=0):
    """Two studies of each patient, half of the patients with one study in each band; labels and scores of a patient alike."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(n_patients), 2)
    young = rng.random(n_patients) < 0.5
    moved = rng.random(n_patients) < 0.5
    second = np.tile([False, True], n_patients)
    band = np.where(young[of] & ~(moved[of] & second), "18-40", "41-60")
    ill = (rng.random(n_patients) < 0.4)[of] ^ (rng.random(len(of)) < 0.1)
    score = rng.normal(size=n_patients)[of] + 0.4 * rng.normal(size=len(of)) + ill
    return pl.DataFrame(
        {
            "study_id": [f"s{i}" for i in range(len(of))], "patient_id": [f"p{i:03d}" for i in of], "split": "test",
            "y_true": ill, "y_score": score, "threshold": 0.8, "threshold_source": "given", "age_band": band,
            **dict.fromkeys(("encoder", "task", "probe", "modality", "pooling", "strategy"), "x"),
        }
    )  # fmt: skip


def jackknife(frame, estimate):
    """The correlation of an estimate in both bands over samples that lack one patient each."""
    values = []
    for patient in frame["patient_id"].unique(maintain_order=True):
        rest = frame.filter(pl.col("patient_id") != patient)
        values.append([estimate(rest.filter(age_band=band)) for band in ("18-40", "41-60")])
    return np.corrcoef(np.array(values).T)[0, 1]


def missed(frame):
    ill = frame.filter("y_true")
    return (ill["y_score"] < 0.8).mean()


def area(frame):
    return auroc(frame["y_true"].to_numpy(), frame["y_score"].to_numpy()).value


@pytest.mark.parametrize(("metric", "estimate"), [("udr", missed), ("auroc", area)])
def test_correlations_equal_those_of_the_jackknife(metric, estimate):
    frame = drawn()
    found = site_estimates(frame, ["age_band"], FairnessSection()).filter(metric=metric, subgroup="18-40")
    assert found["others"].to_list() == [["41-60"]]
    (correlation,) = found["correlations"].to_list()[0]
    assert correlation == pytest.approx(jackknife(frame, estimate), abs=0.02)
    assert abs(correlation) > 0.05


def test_patients_of_one_band_only_are_not_correlated_and_small_ones_have_no_row():
    frame = drawn().with_columns(sex=pl.when(pl.col("patient_id") < "p006").then(pl.lit("x")).otherwise(pl.lit("y")))
    found = site_estimates(frame, ["sex"], FairnessSection())
    assert found["subgroup"].unique().to_list() == ["y"]
    assert found["others"].to_list() == [[]] * 3
